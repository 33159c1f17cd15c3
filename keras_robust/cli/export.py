"""Exports a model and its detector as a version that TensorFlow Serving loads.

    keras-robust export --model=my.keras --data=images.npz --model_base_path=exported/my
    keras-robust export --run=runs/digits --model_base_path=exported/digits

writes `exported/digits/<version>/`, verified, by one atomic rename. --format=onnx (or tflite,
openvino, keras) with --output=my.onnx writes one file instead. The detector of a model file is
calibrated on the validation images of --data (the array x_validation of a file); a run has its own.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from keras_robust.cli import model_flags
from keras_robust.cli.extras import EXTRAS, require_extra
from keras_robust.experiments.flags import attack_flags, command_line
from keras_robust.experiments.flags.output_path import check_output

MAIN_FLAGS = (
    "data",
    "model_base_path",
    "score",
    "false_alarm_rate",
    "certify",
    "radius",
    "preprocess",
    "format",
    "output",
)
positional = model_flags.positional
_SUFFIXES = {"onnx": ".onnx", "tflite": ".tflite", "openvino": ".xml", "keras": ".keras"}


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the command."""
    model_flags.define(values)
    model_flags.define_detector(values, score="entropy")
    attack_flags.define_files(values)
    flags.DEFINE_string(
        "model_base_path",
        None,
        "Parent directory of the versions; its name is the name of the model.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "version", None, "Number of the version; by default the next free one.", flag_values=values
    )
    flags.DEFINE_enum(
        "certify",
        None,
        ["ibp", "crown_ibp", "crown"],
        "Bounds of a signature certify: whether a prediction is proven within a radius.",
        flag_values=values,
    )
    attack_flags.define_ball(values)
    _define_formats(values)
    flags.DEFINE_list(
        "withhold",
        [],
        "Outputs to leave out of all answers, since attacks over the network use them: of "
        "detection_score, is_adversarial, member_probabilities.",
        flag_values=values,
    )


def _define_formats(values: flags.FlagValues) -> None:
    flags.DEFINE_enum(
        "format",
        "saved_model",
        ["saved_model", *_SUFFIXES],
        "Format: a version directory of TensorFlow Serving, or a file, --output.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "output",
        None,
        "File of another format than saved_model, such as my.onnx; openvino's is my.xml.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "quantize",
        None,
        ["float16", "dynamic"],
        "Weights of --format=tflite in 16 or 8 bits; the answers change, and how many is printed.",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> str:
    """Exports the model that the flags name.

    Returns:
        The version directory, or the file and how it differs from the model.

    Raises:
        ValueError, OSError, ImportError: a user error.
    """
    model_flags.check(values, threat_model=values.certify is not None)
    if values.certify is None and (values.norm is not None or values.radius is not None):
        raise command_line.UsageError(
            "--norm and --radius belong to --certify, as in --certify=ibp."
        )
    if values.format != "saved_model":
        return _convert(values)
    for name in ("output", "quantize"):
        if values[name].present:
            raise command_line.UsageError(f"--{name} belongs to another --format, such as tflite.")
    base = command_line.required(values, "model_base_path", "exported/digits")
    check_output(base, "model_base_path")
    require_extra("serving", "Export")
    loaded = model_flags.load(values, read_data=False)
    from keras_robust import certification
    from keras_robust.experiments.publishing.export_run import export_run

    bounds = None
    if values.certify is not None:
        ball = loaded.ball(values.norm, values.radius)
        bounds = getattr(certification, values.certify)(ball)
    return str(
        export_run(loaded, base, version=values.version, bounds=bounds, withhold=values.withhold)
    )


def _convert(values: flags.FlagValues) -> str:
    """Writes the model in one file."""
    for name in ("model_base_path", "version", "certify"):
        if values[name].present:
            raise command_line.UsageError(f"--{name} belongs to --format=saved_model.")
    suffix = _SUFFIXES[values.format]
    path = Path(command_line.required(values, "output", f"exported/my{suffix}"))
    if path.suffix != suffix:
        raise command_line.UsageError(
            f"--output is {path}; expected a name that ends with {suffix}, as --format="
            f"{values.format} has it."
        )
    check_output(path.parent, "output")
    if values.format in EXTRAS:
        require_extra(values.format, f"--format={values.format}")
    loaded = model_flags.load(values, read_data=False)
    from keras_robust.experiments.publishing.convert_run import convert_run

    found = convert_run(loaded, path, quantize=values.quantize, withhold=values.withhold)
    return found.summary()
