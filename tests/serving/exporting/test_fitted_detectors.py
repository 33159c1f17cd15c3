"""Exports of detectors with statistics: the SavedModel scores as the local detector does."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.serving.exporting.export import export_model
from keras_robust.serving.exporting.saved_model import SavedModelSession
from keras_robust.serving.exporting.verify import read_threshold

SLOW = ("relative_mahalanobis", "nearest_neighbors", "lid", "feature_squeezing")
ROWS = [
    ("conformal", {"base": "mahalanobis"}),
    pytest.param("layer_inconsistency", {}, marks=pytest.mark.slow),
    *(pytest.param(name, {}, marks=pytest.mark.slow) for name in SLOW),
]


@pytest.mark.parametrize(("name", "options"), ROWS)
def test_a_fitted_detector_is_served(name, options, tmp_path, tiny_classifier, random_images):
    classifier = tiny_classifier()
    if name == "layer_inconsistency":
        classifier = kr.models.small_cnn((8, 8, 1), 10, variant="tiny")
    train = random_images(150, seed=3), np.arange(150) % 10
    detector = kr.detection.build(name, classifier, **options).fit(train)
    detector = detector.calibrate((random_images(60, seed=4),), 0.25)
    path = export_model(classifier, tmp_path / "model", detector)
    images = random_images(32, seed=5)
    with SavedModelSession(path) as served:
        found = served.predict("detect", {"images": images})
    tolerance = detector.score_tolerance(tf.constant(images), 5e-6)
    np.testing.assert_allclose(found["detection_score"], detector.score(images), atol=tolerance)
    assert np.mean(found["is_adversarial"] == detector.is_adversarial(images).numpy()) > 0.9
    described = json.loads((path / "assets.extra" / "keras_robust.json").read_text())["detector"]
    assert (described["score"], described["options"]) == (name, detector.options)
    assert described["statistics_bytes"] == detector.fitted.nbytes
    assert read_threshold(path) == np.float32(detector.threshold)
