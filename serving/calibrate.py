"""Re-calibrates an exported model: another threshold of its detector, without training it again.

    python -m serving.calibrate --run=RUN --model_base_path=exported/digits --false_alarm_rate=0.02

writes the next version: the same model, whose threshold is set anew on the run's validation images.
Like an export, it is verified, and appears by one atomic rename; a server that watches the
directory takes it on.
"""

from __future__ import annotations

import sys

from absl import app, flags, logging

from keras_robust.core.quiet_tensorflow import quiet_start

if __name__ == "__main__":  # a program starts without TensorFlow's lines about the machine
    with quiet_start():
        import tensorflow as tf

        tf.config.list_logical_devices()

from keras_robust.experiments.runs.export_run import read_detector, recalibrate
from keras_robust.losses.uncertainty import SCORES


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string(
        "run", None, "The run that was exported.", required=True, flag_values=values
    )
    flags.DEFINE_string(
        "model_base_path", None, "Directory of the versions.", required=True, flag_values=values
    )
    flags.DEFINE_float(
        "false_alarm_rate",
        None,
        "At most this share of the validation images is flagged.",
        required=True,
        flag_values=values,
    )
    flags.DEFINE_integer("version", None, "Which; by default the latest.", flag_values=values)
    flags.DEFINE_enum("score", None, list(SCORES), "By default the version's.", flag_values=values)
    flags.DEFINE_string(
        "data_dir", None, "Of TensorFlow Datasets; by default the run's.", flag_values=values
    )


def run(values: flags.FlagValues = flags.FLAGS) -> str:
    """Does what the flags say; returns what to print."""
    path = recalibrate(
        values.run,
        values.model_base_path,
        values.false_alarm_rate,
        version=values.version,
        score=values.score,
        data_dir=values.data_dir,
    )
    detector = read_detector(path)
    return (
        f"{path}\n  flagged from now on: {detector['score']} above {detector['threshold']:.6g}, "
        f"{detector['false_alarm_rate']:g} of {detector['samples']} validation images at most"
    )


def main(_: list[str]) -> None:
    """Runs the program; what the user can mend ends it with one sentence."""
    logging.set_verbosity(logging.WARNING)
    try:
        print(run())
    except (OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
