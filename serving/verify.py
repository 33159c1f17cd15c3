"""Verification: loaded as TF Serving loads it, a model answers as the local Keras model does.

Run as a program, it compares an exported version with the answers that were stored with it
(`python -m serving.verify --model_base_path=exported/digits`), or prints what the version takes and
gives (`--signatures`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from absl import app, flags, logging

from keras_robust.core.quiet_tensorflow import quiet_start

if __name__ == "__main__":  # a program starts without TensorFlow's lines about the machine
    with quiet_start():
        import tensorflow as tf

        tf.config.list_logical_devices()

import tensorflow as tf

from keras_robust.serving.exporting.verify import describe, read_threshold, verify
from keras_robust.serving.exporting.version_directory import find_version


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string(
        "model_base_path", None, "Directory of the versions.", required=True, flag_values=values
    )
    flags.DEFINE_integer("version", None, "Which; by default the latest.", flag_values=values)
    flags.DEFINE_bool("signatures", False, "Only print the signatures.", flag_values=values)


def report(path: Path) -> Iterator[str]:
    """Verifies a version; yields the lines that say what was found."""
    yield str(path)
    for name, difference in verify(path).items():
        yield f"  {name}: equal to the local model, largest difference {difference:.1e}"
    yield f"  threshold of the detector: {read_threshold(path):.6g}"


def run(values: flags.FlagValues = flags.FLAGS) -> str:
    """Does what the flags say; returns what to print."""
    path = find_version(values.model_base_path, values.version)
    return "\n".join(describe(path) if values.signatures else report(path))


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
