"""Calibrates the detector of an exported model again, without training.

    keras-robust calibrate --run=runs/a --model_base_path=exported/digits --false_alarm_rate=0.02

writes the next version: the same model with a threshold for another false alarm rate, set on the
validation images of the run, or with --model on those of --data. Like an export, it is verified and
appears by one atomic rename; a server that watches the directory loads it.
"""

from __future__ import annotations

from absl import flags

from keras_robust.cli import model_flags
from keras_robust.cli.extras import require_extra
from keras_robust.experiments.flags import command_line
from keras_robust.experiments.flags.output_path import check_output

positional = model_flags.positional


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the command."""
    model_flags.define(values)
    flags.DEFINE_string("data_dir", None, "Directory of TensorFlow Datasets.", flag_values=values)
    flags.DEFINE_string(
        "model_base_path", None, "Parent directory of the versions.", flag_values=values
    )
    flags.DEFINE_float(
        "false_alarm_rate",
        None,
        "Largest fraction of the validation images that the detector flags.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "version", None, "Version to calibrate; by default the latest.", flag_values=values
    )
    model_flags.define_score(values, None, "Score of the detector, by default that of the version")


def run(values: flags.FlagValues) -> str:
    """Calibrates and exports the model that the flags name.

    Returns:
        The version directory and its detector.

    Raises:
        ValueError, OSError, ImportError: a user error.
    """
    model_flags.check(values, own_detector=False)
    base = command_line.required(values, "model_base_path", "exported/digits")
    rate = command_line.required(values, "false_alarm_rate", "0.02")
    check_output(base, "model_base_path")
    require_extra("serving", "Export")
    model_flags.start_tensorflow()
    from keras_robust.experiments.publishing.export_run import (
        checkpoints,
        read_detector,
        recalibrate,
    )

    candidates = (
        checkpoints(values.run, values.data_dir) if values.run else [model_flags.load(values)]
    )
    path = recalibrate(candidates, base, rate, version=values.version, score=values.score)
    detector = read_detector(path)
    threshold = f"{detector['score']} above {detector['threshold']:.6g}"
    return (
        f"{path}\n  flags images with {threshold}: at most {detector['false_alarm_rate']:g} of the "
        f"{detector['samples']} validation images"
    )
