"""Verifies an exported version: its outputs must equal the local Keras model's.

    keras-robust verify --model_base_path=exported/digits

loads the version as TensorFlow Serving loads it, and compares all signatures with the outputs that
were stored at its export. --signatures only prints what each signature takes and returns.
"""

from __future__ import annotations

from absl import flags

from keras_robust.cli import model_flags
from keras_robust.experiments.flags import command_line


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the command."""
    flags.DEFINE_string(
        "model_base_path", None, "Parent directory of the versions.", flag_values=values
    )
    flags.DEFINE_integer(
        "version", None, "Version to verify; by default the latest.", flag_values=values
    )
    flags.DEFINE_bool("signatures", False, "Only print the signatures.", flag_values=values)


def run(values: flags.FlagValues) -> str:
    """Verifies the version that the flags name.

    Returns:
        The largest difference for each signature, or the signatures.

    Raises:
        ValueError, OSError: a difference, or a user error.
    """
    base = command_line.required(values, "model_base_path", "exported/digits")
    model_flags.start_tensorflow()
    from keras_robust.serving.exporting.verify import describe, read_threshold, verify
    from keras_robust.serving.exporting.version_directory import find_version

    path = find_version(base, values.version)
    if values.signatures:
        return "\n".join(describe(path))
    lines = [
        f"  {name}: equal to the local model, largest difference {difference:.1e}"
        for name, difference in verify(path).items()
    ]
    threshold = f"  threshold of the detector: {read_threshold(path):.6g}"
    return "\n".join([str(path), *lines, threshold])
