"""The flags that choose a model: a Keras model file with data, or a run directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import command_line
from keras_robust.experiments.flags.lookup import number

if TYPE_CHECKING:
    from keras_robust.experiments.runs.loaded_run import LoadedRun

flags.disclaim_key_flags()  # `--help` shows them as the program's own

# Names of `keras_robust.detection.NAMES`, which cannot be imported without TensorFlow.
SCORES = (
    *("entropy", "least_confidence", "member_entropy", "disagreement"),
    *("mahalanobis", "relative_mahalanobis", "nearest_neighbors", "lid"),
    *("feature_squeezing", "layer_inconsistency", "conformal"),
)
_DETECTOR = ("score", "false_alarm_rate")
# Names of `keras_robust.models.adapting.backbone.PREPROCESSING`, for the same reason.
PREPROCESSING = ("bytes", "tf", "torch", "caffe")
_OF_MODEL_FILES = ("data", "batch_size", "pixel_range", "preprocess", "class_names")
_CONVERTED = (".onnx", ".tflite", ".xml")
_SUFFIXES = (".keras", ".h5", ".hdf5", *_CONVERTED)
# Attacks that ask a model for its predictions alone.
GRADIENT_FREE = ("square", "sparse_rs", "spsa", "boundary", "hop_skip_jump")


def define(values: flags.FlagValues) -> None:
    """Declares the flags of a model file and of a run directory."""
    flags.DEFINE_string(
        "model",
        None,
        "Keras model file of a classifier or a RobustModel, such as my.keras; --model= may be left "
        "out.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "run",
        None,
        "Run directory that trainers.train wrote, instead of --model.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "data",
        None,
        "Test images of --model: a folder with a subfolder of PNG or JPEG files for each class; an "
        ".npz file with x (uint8, or float in [0, 1]) and y, optionally x_validation and "
        "class_names; digits; or a name in TensorFlow Datasets.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size", 128, "Images per batch with --model.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_list(
        "pixel_range",
        None,
        "Pixel values that --model takes for black and white, such as 0,255 or -1,1; by default "
        "0,1, or 0,255 for a model whose first layer rescales those.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "preprocess",
        None,
        PREPROCESSING,
        "Preprocessing that --model was trained with, instead of --pixel_range: bytes (0 to 255), "
        "or a mode of keras.applications.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "class_names",
        None,
        "Subfolders of --data in the order of the labels; by default in alphabetical order.",
        flag_values=values,
    )


def positional(values: flags.FlagValues, arguments: list[str]) -> None:
    """Takes a model file, or a run directory, that is given without its flag.

    Raises:
        UsageError: anything else.
    """
    path, *others = arguments
    is_file = path.endswith(_SUFFIXES)
    if others or not (is_file or Path(path).is_dir()):
        raise command_line.not_a_flag(others[0] if others else path)
    command_line.assign(values, "model" if is_file else "run", path)


def define_detector(values: flags.FlagValues, score: str | None) -> None:
    """Declares the detector of a model file.

    Args:
        values: where to declare the flags.
        score: the default score; None for no detector.
    """
    define_score(
        values, score, "Score of the detector with --model, calibrated on the validation images"
    )
    flags.DEFINE_float(
        "false_alarm_rate",
        0.05,
        "Largest fraction of the validation images that the detector of --model flags.",
        flag_values=values,
    )


def define_score(values: flags.FlagValues, default: str | None, text: str) -> None:
    """Declares the score of a detector.

    Args:
        values: where to declare the flag.
        default: the default score; None for no default.
        text: the beginning of its help.
    """
    flags.DEFINE_string(
        "score",
        default,
        f"{text}: {', '.join(SCORES)}; with options as in lid:k=10 or conformal:base=mahalanobis. "
        "From mahalanobis on they are fitted on training images.",
        flag_values=values,
    )
    flags.register_validator(
        "score",
        lambda score: score is None or score.partition(":")[0] in SCORES,
        message=f"expected one of {', '.join(SCORES)}",
        flag_values=values,
    )


def is_converted(values: flags.FlagValues) -> bool:
    """Whether the model is a converted file, which has no gradients."""
    return values.model is not None and values.model.endswith(_CONVERTED)


def check_converted(values: flags.FlagValues) -> None:
    """Raises ValueError if a converted model is given what needs a Keras model."""
    for name in ("preprocess", "score", "certify"):
        if _is_given(values, name):
            raise ValueError(
                f"--{name} needs a Keras model file; {values.model} is a converted one."
            )
    attacks = values.attacks or ["pgd"]
    needing = [name for name in attacks if name.partition(":")[0] not in GRADIENT_FREE]
    if needing:
        given = (
            f"the attack {needing[0]} follows" if values.attacks else "the default attacks follow"
        )
        raise ValueError(
            f"{values.model} has no gradients, which {given}; expected --attacks="
            f"{','.join(GRADIENT_FREE[:1])}, or others of {', '.join(GRADIENT_FREE)}."
        )


def check(
    values: flags.FlagValues,
    *,
    threat_model: bool = False,
    own_detector: bool = True,
    converted: bool = False,
) -> None:
    """Raises unless the flags name one model, with what it needs.

    Args:
        values: the parsed flags.
        threat_model: whether a model file needs a radius.
        own_detector: whether a run has its detector, so that the flags of one belong to --model.
        converted: whether the command takes converted models.

    Raises:
        ValueError: no model or two, a missing flag, or a flag that the model does not take.
    """
    if (values.model is None) == (values.run is None):
        received = "neither was" if values.model is None else "both were"
        raise command_line.UsageError(
            f"Expected --model=my.keras (with --data) or --run=runs/digits; {received} given."
        )
    if values.run is not None:
        names = (*_OF_MODEL_FILES, *_DETECTOR) if own_detector else _OF_MODEL_FILES
        given = [name for name in names if _is_given(values, name)]
        if given:
            raise ValueError(f"--{given[0]} belongs to --model; a run has its own.")
        return
    if is_converted(values):
        if not converted:
            raise ValueError(
                f"{values.model} is a converted model, which `keras-robust evaluate` attacks; "
                "expected a Keras model file."
            )
        check_converted(values)
    command_line.required(values, "data", "digits")
    if threat_model:
        command_line.required(values, "radius", "8/255")
    if _is_given(values, "checkpoint"):
        raise ValueError("--checkpoint belongs to --run; a model file has none.")
    if values.pixel_range and values.preprocess:
        raise ValueError("--preprocess and --pixel_range exclude each other.")
    if values.class_names and not Path(values.data).is_dir():
        raise ValueError(f"--class_names belongs to a folder of images; {values.data} is none.")
    if values.pixel_range is not None and len(values.pixel_range) != 2:
        raise ValueError(
            f"--pixel_range is {','.join(values.pixel_range)}; expected two numbers, such as 0,255."
        )
    if _is_given(values, "loss") and values.loss == "detector_aware" and values.score is None:
        raise ValueError("--loss=detector_aware needs a detector; choose its --score.")


def load(values: flags.FlagValues, *, read_data: bool = True) -> LoadedRun:
    """Loads the model and the data that the checked flags name; imports TensorFlow.

    Args:
        values: the parsed flags.
        read_data: whether to read a run's data now, or at its first use.

    Raises:
        FileNotFoundError: the model or the data is missing.
        ValueError: the model cannot be loaded, or the data does not fit it.
    """
    start_tensorflow()
    from keras_robust.cli.model_file import load_model_file
    from keras_robust.experiments.runs.loaded_run import load_run

    checkpoint = values.checkpoint if "checkpoint" in values else None
    if values.run is not None:
        return load_run(values.run, checkpoint, values.data_dir, read_data=read_data)
    ball = {name: values[name].value for name in ("norm", "radius") if name in values}
    options: dict[str, Any] = {
        "data_dir": values.data_dir,
        "batch_size": values.batch_size,
        "pixel_range": _pixel_range(values),
        "class_names": values.class_names,
        "note": note,
        **{name: value for name, value in ball.items() if value is not None},
    }
    if is_converted(values):
        from keras_robust.cli.converted_file import load_converted_file

        return load_converted_file(values.model, values.data, **options)
    loaded = load_model_file(values.model, values.data, preprocess=values.preprocess, **options)
    if "score" not in values:
        return loaded
    return loaded.with_detector(values.score, values.false_alarm_rate)


def start_tensorflow() -> None:
    """Imports TensorFlow and the package without the lines that TensorFlow logs at its start."""
    with quiet_start():
        import keras_robust

        keras_robust.RobustModel  # noqa: B018  registers the classes that saved files name
        command_line.initialize_devices()


def note(line: str) -> None:
    """Writes a line about what is assumed, apart from the results."""
    print(f"Note: {line}", file=sys.stderr, flush=True)


def _pixel_range(values: flags.FlagValues) -> tuple[float, float] | None:
    if values.pixel_range is None:
        return None
    low, high = (number("pixel value", text) for text in values.pixel_range)
    return low, high


def _is_given(values: flags.FlagValues, name: str) -> bool:
    return name in values and bool(values[name].present)
