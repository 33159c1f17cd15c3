"""Export: a trained model and its detector as a version that TensorFlow Serving loads.

    python -m serving.export --run=runs/digits --model_base_path=exported/digits

writes `exported/digits/<version>/`, verified, by one atomic rename. --model=my.keras exports a
Keras model file of your own, with a detector calibrated on the validation images of --data.
"""

from __future__ import annotations

from absl import flags

from keras_robust.cli.export import define_flags, run
from keras_robust.experiments.flags import command_line

PROGRAM = "serving.export"


def main(_: list[str]) -> None:
    """Runs the program."""
    print(run(flags.FLAGS))


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
