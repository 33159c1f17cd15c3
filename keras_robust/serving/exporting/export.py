"""Export: writes a classifier with its detector as a version directory for TensorFlow Serving."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

from keras_robust.certification import Bounds
from keras_robust.core.atomic_files import write_errors
from keras_robust.core.quiet_tensorflow import quiet_logger
from keras_robust.detection import Detector, FittedDetector
from keras_robust.serving.exporting import certify_signature
from keras_robust.serving.exporting.certify_signature import check_bounds
from keras_robust.serving.exporting.clean_scores import check_clean_scores, write_clean_scores
from keras_robust.serving.exporting.detector_checks import check_detector, check_range
from keras_robust.serving.exporting.metadata import model_metadata
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
    check_detector(detector, classifier)
    check_range(model, detector, classifier)
    base = Path(os.path.abspath(model_base_path))
    with write_errors(base, _NOTHING):
        check_base(base)
        if version is not None:
            check_free(base, check_version(version))
    if bounds is not None:
        check_bounds(bounds, classifier)
    if clean_scores is not None:
        clean_scores = check_clean_scores(clean_scores)
    metadata = model_metadata(classifier, detector, class_names, recipe)
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
