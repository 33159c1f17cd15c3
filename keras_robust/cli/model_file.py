"""A user's own Keras model file with data, in the form of a run."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf
from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.cli.data_file import read_data_file, read_image_folder
from keras_robust.core.classifier import bounds_of, classifier_of
from keras_robust.core.first_layers import bytes_expected
from keras_robust.experiments.recipes import build, detector_spec, schema
from keras_robust.experiments.runs.loaded_run import LoadedRun
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.models.loading import load_model


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModelFile(LoadedRun):
    """A Keras model file with data: evaluated, attacked and exported by the same code as a run.

    Args:
        data: the images and labels.
        score: score of the detector; None for no detector.
        false_alarm_rate: rate at which the detector is calibrated on the validation images.
    """

    data: kr.data.Splits
    score: str | None = None
    false_alarm_rate: float = 0.05

    @functools.cached_property
    def splits(self) -> kr.data.Splits:
        """The data."""
        return self.data

    @property
    def validation(self) -> tf.data.Dataset:
        """The validation images.

        Raises:
            ValueError: the data has none.
        """
        if self.splits.validation is None:
            raise ValueError(
                f"{self.splits.info.name} has no validation images, on which the threshold of a "
                "detector is set; add an array x_validation of images that the model was not "
                "trained on."
            )
        return self.splits.validation

    @functools.cached_property
    def detector(self) -> kr.detection.Detector | None:
        """A detector that is calibrated on the validation images; None without a score.

        Raises:
            ValueError: no validation images, or too few for the rate; no training images for a
                score that is fitted.
        """
        if self.score is None:
            return None
        return detector_spec.fitted(
            detector_spec.build(self.score, self.model),
            self.splits.train,
            self.validation,
            self.false_alarm_rate,
            train_size=self.splits.info.train_size,
        )

    def with_detector(self, score: str | None, false_alarm_rate: float) -> LoadedModelFile:
        """The same model with a detector, calibrated at its first use; None for no detector.

        Raises:
            ValueError: a score for ensembles, and the model is not one.
        """
        if score is not None:
            config = self.config.copy_and_resolve_references()
            config.detector.score = score
            build.check_score(config, self.model)
        return dataclasses.replace(self, score=score, false_alarm_rate=false_alarm_rate)

    @property
    def title(self) -> str:
        """The path of the file, for messages."""
        return str(self.run.path)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.splits.info.class_names


def load_model_file(
    path: str | os.PathLike[str],
    data: str,
    *,
    norm: str = "linf",
    radius: float = 0.0,
    data_dir: str | None = None,
    batch_size: int = 128,
    pixel_range: Sequence[float] | None = None,
    preprocess: str | None = None,
    class_names: Sequence[str] | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> LoadedModelFile:
    """Loads a classifier from a Keras model file.

    Args:
        path: a `.keras` file of a Keras classifier or of a `RobustModel`.
        data: a folder of images by class, an `.npz` file, or a name for `keras_robust.data.load`.
        norm: norm of the threat model.
        radius: radius of the threat model.
        data_dir: directory of TensorFlow Datasets.
        batch_size: images per batch.
        pixel_range: the pixel values that the model takes for black and white; None for (0, 1), or
            (0, 255) if its first layers rescale those.
        preprocess: the mode of `keras_robust.models.preprocessing` that the model needs, or None.
        class_names: the subfolders of a folder in the order of the labels; None for alphabetical.
        note: called with a line on what is assumed.

    Raises:
        FileNotFoundError: the model or the data is missing.
        ValueError: not a Keras classifier, a `RobustModel` of another pixel range, or data that
            does not fit it.
    """
    path = Path(path)
    model = load_model(path)
    if pixel_range is None and preprocess is None:
        pixel_range = _assumed_range(path, model, note)
    if preprocess is None:
        _check_range(path, model, pixel_range or (0.0, 1.0))
    classifier = _classifier(model, pixel_range or (0.0, 1.0), preprocess)
    splits = load_data(
        path,
        data,
        classifier.input_shape[1:],
        int(classifier.output["logits"].shape[-1]),
        data_dir=data_dir,
        batch_size=batch_size,
        class_names=class_names,
        note=note,
    )
    config = recipe_of(path, norm, radius, batch_size)
    config.defense.name = _defense(model)
    return LoadedModelFile(RunDirectory(path), config, "", classifier, splits)


def load_data(
    path: Path,
    data: str,
    shape: Sequence[int],
    classes: int,
    *,
    data_dir: str | None,
    batch_size: int,
    class_names: Sequence[str] | None,
    note: Callable[[str], None],
) -> kr.data.Splits:
    """Reads the data of a model; the arguments of `load_model_file`.

    Args:
        path: the model, for messages.
        shape: `(height, width, channels)` of its images.
        classes: its number of classes.

    Raises:
        FileNotFoundError: the data is missing.
        ValueError: it does not fit the model.
    """
    if Path(data).is_dir() or data.endswith("/"):  # with the slash, a folder that is missing
        splits = read_image_folder(Path(data), shape, batch_size, class_names, note)
    else:
        splits = _read_data(data, classes, data_dir, batch_size)
    _check_data(path, tuple(shape), classes, splits.info)
    return splits


def recipe_of(path: Path, norm: str, radius: float, batch_size: int) -> ConfigDict:
    """The recipe that stands for a model file: its name and the threat model."""
    config = schema.defaults()
    config.model.name = path.stem
    config.defense.name = ""
    config.ball.norm, config.ball.radius = norm, radius
    config.dataset.batch_size = batch_size
    return config


def _check_range(path: Path, model: keras.Model, pixel_range: Sequence[float]) -> None:
    bounds = bounds_of(model)
    if bounds is not None and bounds != tuple(pixel_range):
        known, given = (",".join(f"{value:g}" for value in pair) for pair in (bounds, pixel_range))
        raise ValueError(
            f"{path} is a RobustModel whose attack keeps pixels within {known}, but the pixel "
            f"range is {given}. Pass --pixel_range={known}."
        )


def _assumed_range(
    path: Path, model: keras.Model, note: Callable[[str], None]
) -> tuple[float, float]:
    """The pixel range that the first layers of a model show; [0, 1] if they show none."""
    if bounds_of(model) is not None or not bytes_expected(classifier_of(model)):
        return 0.0, 1.0
    note(f"the first layers of {path} rescale pixels of 0 to 255; --pixel_range=0,255 is assumed.")
    return 0.0, 255.0


def _classifier(
    model: keras.Model, pixel_range: Sequence[float], preprocess: str | None
) -> keras.Model:
    """The model as a classifier of images in [0, 1]."""
    low, high = pixel_range
    layer = None
    if preprocess is not None:
        layer = kr.models.preprocessing(preprocess)
    elif (low, high) != (0.0, 1.0):
        layer = keras.layers.Rescaling(high - low, offset=low)
    return kr.models.adapt(classifier_of(model), preprocess=layer)


def _read_data(data: str, classes: int, data_dir: str | None, batch_size: int) -> kr.data.Splits:
    if data.endswith(".npz"):
        return read_data_file(Path(data), classes, batch_size)
    return kr.data.load(data, batch_size, data_dir)


def _check_data(
    path: Path, shape: tuple[int, ...], classes: int, info: kr.data.DatasetInfo
) -> None:
    if shape != tuple(info.image_shape):
        raise ValueError(
            f"{path} takes images of shape {shape}; those of {info.name} have "
            f"{tuple(info.image_shape)}."
        )
    if classes != info.classes:
        raise ValueError(
            f"{path} has {classes} classes; {info.name} has {info.classes}. Those of a folder are "
            "its subfolders, or --class_names."
        )


def _defense(model: keras.Model) -> str:
    """The robust loss of a `RobustModel`; empty for another model."""
    if isinstance(model, kr.RobustModel):
        return f"{type(model.robust_loss).__name__} (RobustModel)"
    return ""
