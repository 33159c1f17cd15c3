"""TODO keras_robust.serving.exporting.export."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import keras_robust
from keras_robust.core.quiet_tensorflow import quiet_logger
from keras_robust.detection import Detector
from keras_robust.serving.exporting.reference import REFERENCE_FILE, reference_of
from keras_robust.serving.exporting.signatures import INPUTS, classifier_of, endpoints, image_shape
from keras_robust.serving.exporting.verify import DETECTOR_COLLECTION, verify
from keras_robust.serving.exporting.version_directory import (
    check_free,
    check_version,
    publish,
    workspace,
)
from keras_robust.serving.exporting.warmup import write_warmup

METADATA_FILE = "keras_robust.json"


def _check_detector(detector: Any, classifier: keras.Model) -> None:
    if not isinstance(detector, Detector):
        raise TypeError(
            f"export_model was given {type(detector).__name__} as detector; expected "
            "`kr.detection.Detector(model).calibrate(validation, false_alarm_rate=0.05)`."
        )
    if getattr(detector.model, "classifier", detector.model) is not classifier:
        raise ValueError(
            "The detector is of another model than the one to export; calibrate one on the same "
            "model: a threshold means nothing for another."
        )
    if detector.threshold is None:
        raise ValueError(
            "The detector has no threshold; export the one that "
            "`detector.calibrate(validation, false_alarm_rate=0.05)` returns."
        )


def _metadata(
    classifier: keras.Model,
    detector: Detector,
    class_names: Sequence[str] | None,
    recipe: str | None,
) -> dict[str, Any]:
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
        "signatures": list(INPUTS),
        "detector": {
            "score": detector.scored_by,
            "threshold": detector.threshold,
            "false_alarm_rate": detector.false_alarm_rate,
            "samples": detector.samples,
        },
        "recipe": recipe,
        "versions": {
            "keras_robust": keras_robust.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
    }


def _write_saved_model(path: Path, classifier: keras.Model, detector: Detector) -> None:
    threshold = tf.Variable(detector.threshold, dtype=tf.float32, trainable=False, name="threshold")
    # Not `tf.saved_model.save`: of a Keras 3 model it does not load as TensorFlow Serving loads.
    archive = keras.export.ExportArchive()
    archive.track(classifier)
    archive.add_variable_collection(DETECTOR_COLLECTION, [threshold])
    for name, (function, spec) in endpoints(classifier, detector, threshold).items():
        archive.add_endpoint(name, function, input_signature=[spec])
    with quiet_logger():
        archive.write_out(str(path), verbose=False)


def export_model(
    model: keras.Model,
    model_base_path: str | os.PathLike[str],
    detector: Detector,
    *,
    version: int | None = None,
    class_names: Sequence[str] | None = None,
    recipe: str | None = None,
) -> Path:
    """Writes a model and its detector as `<model_base_path>/<version>/`.

    The version is written elsewhere, loaded as TensorFlow Serving loads it, compared with the local
    model on all four signatures, and only then given its name; a failure leaves nothing behind.

    Args:
        model: a `RobustModel`, or a built functional classifier `images -> {"logits", ...}`.
        model_base_path: the directory that a server watches; its name is the model's.
        detector: a calibrated detector of this model.
        version: a positive integer; by default the next free one.
        class_names: one for each class, kept in the metadata.
        recipe: name of the recipe that the model was trained by, kept in the metadata.

    Returns:
        The version directory.

    Raises:
        TypeError: when the model or the detector is something else.
        ValueError: when the model takes no images, the detector is not calibrated or is another
            model's, or the version is no positive integer.
        FileExistsError: when the version exists.
        VerificationError: when the served model differs from the local one.
    """
    classifier = classifier_of(model)
    shape = image_shape(classifier)
    _check_detector(detector, classifier)
    base = Path(os.path.abspath(model_base_path))
    if version is not None:
        check_free(base, check_version(version))
    metadata = _metadata(classifier, detector, class_names, recipe)
    expected = reference_of(classifier, detector)
    with workspace(base) as draft:
        _write_saved_model(draft, classifier, detector)
        extra = draft / "assets.extra"
        extra.mkdir()
        expected.save(extra / REFERENCE_FILE)
        (extra / METADATA_FILE).write_text(json.dumps(metadata, indent=2) + "\n", "utf-8")
        verify(draft, expected)
        write_warmup(draft, base.name, shape)
        return publish(draft, base, version)
