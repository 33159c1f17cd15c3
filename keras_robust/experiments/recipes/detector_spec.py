"""Detectors as recipes and flags hold them: the name of a score, with options as in `lid:k=10`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

import keras_robust as kr
from keras_robust.detection import registry
from keras_robust.experiments.recipes.attack_spec import attack_spec


def check(text: str, kind: str = "score") -> tuple[str, dict[str, Any]]:
    """The name and the options of a score.

    Args:
        text: `NAME`, or `NAME:OPTION=VALUE:...`.
        kind: what the text is, for the message.

    Raises:
        ValueError: an unknown score, or an option that it does not take.

    Example:
        >>> check("lid:k=10")
        ('lid', {'k': 10})
    """
    spec = attack_spec(text)
    registry.check_options(spec["name"], spec["options"], kind)
    return spec["name"], spec["options"]


def text_of(name: str, options: Mapping[str, Any]) -> str:
    """The text of a score with options; `check` reads it.

    Example:
        >>> text_of("lid", {"k": 10, "bank": 500})
        'lid:k=10:bank=500'
    """
    given = [f"{key}={'none' if value is None else value}" for key, value in options.items()]
    return ":".join([name, *given])


def build(text: str, model: keras.Model) -> kr.detection.Detector:
    """The detector of a model by its text, neither fitted nor calibrated.

    Raises:
        ValueError: an unknown score or option, an invalid value, or a score that the model does not
            have.
    """
    name, options = check(text)
    if isinstance(options.get("layers"), str):
        options["layers"] = tuple(options["layers"].split("+"))
    return kr.detection.build(name, model, **options)


def fitted(
    detector: kr.detection.Detector,
    train: tf.data.Dataset,
    validation: tf.data.Dataset,
    false_alarm_rate: float,
    *,
    train_size: int | None = None,
) -> kr.detection.Detector:
    """A detector that is fitted on training images and calibrated on validation images.

    Args:
        detector: one that may need a fit.
        train: training images with labels.
        validation: images that the model was not trained on.
        false_alarm_rate: as for `Detector.calibrate`.
        train_size: the number of training images, if it is known.

    Raises:
        ValueError: no training images for a detector that needs them; see `Detector.calibrate`.
    """
    if isinstance(detector, kr.detection.FittedDetector) and train_size == 0:
        raise ValueError(
            f"The score {detector.scored_by!r} is fitted on training images, and the data has "
            "none. Use data with training images, such as digits or a run, or another score."
        )
    return detector.fit(train).calibrate(validation, false_alarm_rate)
