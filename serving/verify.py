"""Verification: compares an exported version with the local Keras model.

    python -m serving.verify --model_base_path=exported/digits

loads the version as TensorFlow Serving loads it, and compares all signatures with the outputs that
were stored at its export. --signatures only prints what each signature takes and returns.
"""

from __future__ import annotations

from absl import flags

from keras_robust.cli.verify import define_flags, run
from keras_robust.experiments.flags import command_line

PROGRAM = "serving.verify"


def main(_: list[str]) -> None:
    """Runs the program."""
    print(run(flags.FLAGS))


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
