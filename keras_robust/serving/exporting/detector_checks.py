"""Checks of what is exported: the detector belongs to the model, which takes images in [0, 1]."""

from __future__ import annotations

import warnings

import keras

from keras_robust.core.classifier import bounds_of, classifier_of
from keras_robust.detection import Detector
from keras_robust.evaluation.running.model_warnings import range_warnings


def check_detector(detector: Detector, classifier: keras.Model) -> None:
    """Raises unless `detector` is a calibrated detector of the classifier."""
    if not isinstance(detector, Detector):
        raise TypeError(
            f"export_model was given {type(detector).__name__} as detector; expected "
            "`kr.detection.Detector(model).calibrate(validation, false_alarm_rate=0.05)`."
        )
    if classifier_of(detector.model) is not classifier:
        raise ValueError(
            "The detector belongs to another model than the one to export. Calibrate a detector of "
            "the same model: a threshold holds for one model only."
        )
    if detector.threshold is None:
        raise ValueError(
            "The detector has no threshold; export the one that "
            "`detector.calibrate(validation, false_alarm_rate=0.05)` returns."
        )


def check_range(model: keras.Model, detector: Detector, classifier: keras.Model) -> None:
    """Raises if the model is known to take other images than served models, [0, 1]."""
    for robust in (model, detector.model):
        bounds = bounds_of(robust)
        if bounds is not None and bounds != (0.0, 1.0):
            low, high = bounds
            raise ValueError(
                f"The model takes images in [{low:g}, {high:g}], the bounds of its attack; a "
                "served model takes [0, 1]. Export `kr.models.adapt(model.classifier, preprocess="
                f"keras.layers.Rescaling({high - low:g}, offset={low:g}))`, with a detector that "
                "is calibrated for it on images in [0, 1]."
            )
    for warning in range_warnings(classifier, (0.0, 1.0)):
        warnings.warn(f"A served model takes images in [0, 1]. {warning}", stacklevel=3)
