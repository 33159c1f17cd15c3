"""Calibrates the detector of an exported model again, without training.

    python -m serving.calibrate --run=RUN --model_base_path=exported/digits --false_alarm_rate=0.02

writes the next version: the same model with a threshold for another false alarm rate, set on the
run's validation images. Like an export, it is verified and appears by one atomic rename; a server
that watches the directory loads it.
"""

from __future__ import annotations

from absl import flags

from keras_robust.cli.calibrate import define_flags, run
from keras_robust.experiments.flags import command_line

PROGRAM = "serving.calibrate"


def main(_: list[str]) -> None:
    """Runs the program."""
    print(run(flags.FLAGS))


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
