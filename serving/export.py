"""Export: a trained model and its detector as a version directory that TensorFlow Serving loads.

    python -m serving.export --run=runs/digits --model_base_path=exported/digits

writes `exported/digits/<version>/`, verified, by one atomic rename.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import app, flags, logging

from keras_robust.core.quiet_tensorflow import quiet_start

if __name__ == "__main__":  # a program starts without TensorFlow's lines about the machine
    with quiet_start():
        import tensorflow as tf

        tf.config.list_logical_devices()

import tensorflow as tf

from keras_robust.experiments.runs.export_run import export_run


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string("run", None, "A run directory.", required=True, flag_values=values)
    flags.DEFINE_string(
        "model_base_path",
        None,
        "Directory of the versions; its name is the model's.",
        required=True,
        flag_values=values,
    )
    flags.DEFINE_integer("version", None, "By default the next free one.", flag_values=values)
    flags.DEFINE_enum(
        "checkpoint",
        None,
        ["best", "last"],
        "By default the best one if there is one.",
        flag_values=values,
    )


def run(values: flags.FlagValues = flags.FLAGS) -> Path:
    """Exports what the flags say."""
    return export_run(
        values.run, values.model_base_path, checkpoint=values.checkpoint, version=values.version
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
