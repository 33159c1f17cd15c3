"""Export: writes a classifier with its detector as a version directory for TensorFlow Serving."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

import keras_robust
from keras_robust.certification import Bounds
from keras_robust.core.atomic_files import write_errors
from keras_robust.core.classifier import bounds_of, classifier_of
from keras_robust.core.quiet_tensorflow import quiet_logger
from keras_robust.detection import Detector, FittedDetector
from keras_robust.evaluation.running.model_warnings import range_warnings
from keras_robust.serving.exporting import certify_signature
from keras_robust.serving.exporting.certify_signature import check_bounds
from keras_robust.serving.exporting.clean_scores import check_clean_scores, write_clean_scores
from keras_robust.serving.exporting.reference import REFERENCE_FILE, make_reference
from keras_robust.serving.exporting.signatures import (
    check_withheld,
    endpoints,
    exportable_classifier,
    image_shape,
    signatures_of,
    without,
)
from keras_robust.serving.exporting.verify import DETECTOR_COLLECTION, verify
from keras_robust.serving.exporting.version_directory import (
    check_base,
    check_free,
    check_version,
    publish,
    workspace,
)
from keras_robust.serving.exporting.warmup import write_warmup

METADATA_FILE = "keras_robust.json"
# The variable collection of a SavedModel that holds a fitted detector's statistics.
STATISTICS_COLLECTION = "fitted_statistics"
_NOTHING = " No version was written."


def export_model(
    model: keras.Model,
    model_base_path: str | os.PathLike[str],
    detector: Detector,
    *,
    version: int | None = None,
    class_names: Sequence[str] | None = None,
    recipe: str | None = None,
    bounds: Bounds | None = None,
    clean_scores: npt.ArrayLike | None = None,
    withhold: Iterable[str] = (),
) -> Path:
    """Writes a model and its detector as `<model_base_path>/<version>/`.

    The version is written under a temporary name, loaded as TensorFlow Serving loads it, compared
    with the local model on all signatures, and then renamed. A failure leaves no files.

    Args:
        model: a `RobustModel`, or a built functional classifier `images -> {"logits", ...}`.
        model_base_path: the directory that a server watches; its name is the model's name.
        detector: a calibrated detector of this model; the version holds the statistics of a fitted
            one as variables.
        version: a positive integer; default the next free one.
        class_names: one name per class, stored in the metadata.
        recipe: name of the training recipe, stored in the metadata.
        bounds: adds the signature `certify`, such as `kr.certification.ibp(ball)`. Requests choose
            the radius; the version is verified at that of the ball.
        clean_scores: `[n]` scores of clean images, such as `detector.score_dataset(validation)`,
            which the alarm of a served version needs (`keras_robust.serving.Monitor`).
        withhold: outputs to leave out of all answers, of `"detection_score"`, `"is_adversarial"`
            and `"member_probabilities"`: attacks over the network use them.

    Returns:
        The version directory.

    Raises:
        TypeError: `model` is not a classifier, or `detector` not a detector.
        ValueError: unsupported image shape, a model of images outside [0, 1], a detector that is
            not calibrated or belongs to another model, a layer that the bounds do not cover, too
            few clean scores, or an invalid version.
        FileExistsError: the version exists.
        OSError: the version cannot be written; nothing of it is left.
        VerificationError: the served model differs from the local one.
    """
    classifier = exportable_classifier(model)
    shape = image_shape(classifier)
    _check_detector(detector, classifier)
    _check_range(model, detector, classifier)
    base = Path(os.path.abspath(model_base_path))
    with write_errors(base, _NOTHING):
        check_base(base)
        if version is not None:
            check_free(base, check_version(version))
    if bounds is not None:
        check_bounds(bounds, classifier)
    if clean_scores is not None:
        clean_scores = check_clean_scores(clean_scores)
    metadata = _metadata(classifier, detector, class_names, recipe)
    withheld = check_withheld(withhold)
    metadata |= {**_certification(bounds), "withheld": list(withheld)}
    expected = make_reference(classifier, detector, bounds=bounds)
    expected = dataclasses.replace(expected, withheld=withheld)
    with write_errors(base, _NOTHING), workspace(base) as draft:
        _write_saved_model(draft, classifier, detector, bounds, withheld)
        extra = draft / "assets.extra"
        extra.mkdir()
        expected.save(extra / REFERENCE_FILE)
        if clean_scores is not None:
            write_clean_scores(draft, clean_scores)
        (extra / METADATA_FILE).write_text(json.dumps(metadata, indent=2) + "\n", "utf-8")
        verify(draft, expected)
        write_warmup(draft, base.name, shape, radius=expected.radius)
        return publish(draft, base, version)


def _check_detector(detector: Detector, classifier: keras.Model) -> None:
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


def _check_range(model: keras.Model, detector: Detector, classifier: keras.Model) -> None:
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


def _certification(bounds: Bounds | None) -> dict[str, Any]:
    """The signatures, and the bounds of `certify` as a configuration."""
    stored = None if bounds is None else keras.saving.serialize_keras_object(bounds)
    return {"signatures": list(signatures_of(bounds is not None)), "bounds": stored}


def _write_saved_model(
    path: Path,
    classifier: keras.Model,
    detector: Detector,
    bounds: Bounds | None,
    withheld: tuple[str, ...],
) -> None:
    threshold = tf.Variable(detector.threshold, dtype=tf.float32, trainable=False, name="threshold")
    # TensorFlow Serving cannot load what `tf.saved_model.save` writes for a Keras 3 model.
    archive = keras.export.ExportArchive()
    archive.track(classifier)
    archive.add_variable_collection(DETECTOR_COLLECTION, [threshold])
    if isinstance(detector, FittedDetector):
        detector, statistics = detector.with_variables()
        if statistics:
            archive.add_variable_collection(STATISTICS_COLLECTION, statistics)
    for name, (function, spec) in endpoints(classifier, detector, threshold).items():
        archive.add_endpoint(name, without(function, withheld), input_signature=[spec])
    if bounds is not None:
        certify = certify_signature.endpoint(classifier, bounds)
        specs = certify_signature.input_specs(classifier)
        archive.add_endpoint("certify", without(certify, withheld), input_signature=specs)
    with quiet_logger():
        archive.write_out(str(path), verbose=False)
