"""Predictions as plain arrays, of every kind of model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

X = np.random.default_rng(0).uniform(size=(7, 2, 2, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def classifier():
    return kr.models.mlp((2, 2, 1), 3, hidden=(4,))


def test_kinds_are_of_the_same_logits(classifier):
    logits = classifier(X)["logits"].numpy()
    found = kr.models.predictions(classifier, X, "logits", batch_size=3)
    assert type(found) is np.ndarray and found.dtype == np.float32
    np.testing.assert_allclose(found, logits, atol=1e-6)
    np.testing.assert_allclose(
        kr.models.predictions(classifier, X), keras.ops.softmax(logits), atol=1e-6
    )
    classes = kr.models.predictions(classifier, X, "classes")
    np.testing.assert_array_equal(classes, logits.argmax(1))


def test_robust_models_functions_and_batches_with_labels(classifier):
    robust = kr.defenses.standard(classifier, kr.LinfBall(0.1))
    expected = kr.models.predictions(classifier, X)
    batches = tf.data.Dataset.from_tensor_slices((X, np.zeros(7))).batch(4)
    for model, images in ((robust, X), (lambda x: classifier(x), X), (robust, batches)):
        np.testing.assert_allclose(kr.models.predictions(model, images), expected, atol=1e-6)


def test_what_is_refused(classifier):
    with pytest.raises(TypeError, match="Images are uint8; .*Divide uint8 images by 255"):
        kr.models.predictions(classifier, (X * 255).astype(np.uint8))
    with pytest.raises(TypeError, match="Images are list"):
        kr.models.predictions(classifier, X.tolist())
    with pytest.raises(ValueError, match="kind is 'labels'; expected one of 'probabilities'"):
        kr.models.predictions(classifier, X, "labels")
    with pytest.raises(ValueError, match="no images to predict"):
        kr.models.predictions(classifier, X[:0])
    with pytest.raises(TypeError, match="kr|keras_robust.models.adapt"):
        kr.models.predictions(lambda x: x, X)
