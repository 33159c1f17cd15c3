"""The metadata of an exported model: its shape, classes and detector, and the versions."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

import keras_robust
from keras_robust.detection import Detector, FittedDetector
from keras_robust.serving.exporting.signatures import image_shape


def model_metadata(
    classifier: keras.Model,
    detector: Detector,
    class_names: Sequence[str] | None,
    recipe: str | None,
) -> dict[str, Any]:
    """The metadata as JSON values.

    Raises:
        ValueError: not one name per class.
    """
    output = classifier.output
    classes = output["logits"].shape[-1]
    if class_names is not None and len(class_names) != classes:
        raise ValueError(
            f"{len(class_names)} class names were received for {classes} classes: {class_names!r}."
        )
    members = output["member_logits"].shape[1] if "member_logits" in output else None
    return {
        "input_shape": list(image_shape(classifier)),
        "classes": classes,
        "class_names": None if class_names is None else list(class_names),
        "members": members,
        "detector": {
            "score": detector.scored_by,
            "threshold": detector.threshold,
            "false_alarm_rate": detector.false_alarm_rate,
            "samples": detector.samples,
            **_fitted(detector),
        },
        "recipe": recipe,
        "versions": {
            "keras_robust": keras_robust.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
    }


def _fitted(detector: Detector) -> dict[str, Any]:
    """The options and the memory of a fitted detector."""
    if not isinstance(detector, FittedDetector):
        return {}
    return {"options": detector.options, "statistics_bytes": detector.fitted.nbytes}
