"""Exports a model and its detector as a version that TensorFlow Serving loads.

    keras-robust export --model=my.keras --data=images.npz --model_base_path=exported/my
    keras-robust export --run=runs/digits --model_base_path=exported/digits

writes `exported/digits/<version>/`, verified, by one atomic rename. The detector of a model file is
calibrated on the validation images of --data (the array x_validation of a file); a run has its own.
"""

from __future__ import annotations

from absl import flags

from keras_robust.cli import model_flags
from keras_robust.cli.extras import require_extra
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
)
positional = model_flags.positional


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
    flags.DEFINE_list(
        "withhold",
        [],
        "Outputs to leave out of all answers, since attacks over the network use them: of "
        "detection_score, is_adversarial, member_probabilities.",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> str:
    """Exports the model that the flags name.

    Returns:
        The version directory.

    Raises:
        ValueError, OSError, ImportError: a user error.
    """
    model_flags.check(values, threat_model=values.certify is not None)
    if values.certify is None and (values.norm is not None or values.radius is not None):
        raise command_line.UsageError(
            "--norm and --radius belong to --certify, as in --certify=ibp."
        )
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
