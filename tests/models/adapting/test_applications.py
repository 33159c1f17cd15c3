"""`adapt` on models of keras.applications, as small as possible, with random weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust.models import adapt
from keras_robust.models.building import is_classifier

A = keras.applications
SMALL = [
    # name, options, size of the image, size of the features
    ("MobileNetV2", {"alpha": 0.35}, 32, 1280),
    ("MobileNet", {"alpha": 0.25}, 32, 256),
]
HEAVY = [
    ("ResNet50V2", {}, 32, 2048),
    ("EfficientNetB0", {}, 32, 1280),
    ("DenseNet121", {}, 32, 1024),
    ("VGG16", {}, 32, 4096),
    ("MobileNetV3Small", {"minimalistic": True}, 32, 1024),
    ("Xception", {}, 71, 2048),
    ("NASNetMobile", {}, 32, 1056),
]


@pytest.mark.parametrize(
    ("name", "options", "size", "features", "activation"),
    [
        *((*row, "softmax") for row in SMALL),
        (*SMALL[1], None),
        *(pytest.param(*row, "softmax", marks=pytest.mark.slow) for row in HEAVY),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_with_and_without_softmax(name, options, size, features, activation):
    keras.utils.set_random_seed(0)
    model = getattr(A, name)(
        weights=None,
        input_shape=(size, size, 3),
        classes=10,
        classifier_activation=activation,
        **options,
    )
    classifier = adapt(model)
    assert is_classifier(classifier)
    assert {id(v) for v in classifier.weights} == {id(v) for v in model.weights}
    x = tf.constant(np.random.default_rng(0).uniform(size=(2, size, size, 3)).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = classifier(x, training=False)
        first = outputs["logits"][:, 0]
    mine = keras.ops.softmax(outputs["logits"]) if activation else outputs["logits"]
    np.testing.assert_allclose(mine, model(x, training=False), atol=1e-6)
    assert outputs["features"].shape == (2, features)
    gradient = tape.gradient(first, x)
    assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)


def test_transfer_learning(tmp_path):
    """A backbone without its top, a head of one's own, the range that the backbone expects."""
    base = A.MobileNet(weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.25)
    base.trainable = False
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            base,
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    classifier = adapt(model, features="pool", preprocess=keras.layers.Rescaling(2.0, offset=-1.0))
    assert len(classifier.trainable_weights) == 2
    x = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype("float32")
    outputs = classifier(x, training=False)
    predicted = model(2.0 * x - 1.0, training=False)
    np.testing.assert_allclose(keras.ops.softmax(outputs["logits"]), predicted, atol=1e-6)
    assert outputs["features"].shape == (2, 256)
    classifier.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x, training=False)["logits"], outputs["logits"])
