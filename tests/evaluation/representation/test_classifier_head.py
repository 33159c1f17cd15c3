"""The head gives the logits of the features, however the classifier was made."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation.representation.classifier_head import head_of

SHAPE = (6, 6, 1)


def sequential(last="softmax"):
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Conv2D(3, 3, name="conv"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(7, "relu", name="hidden"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(4, activation=last, name="last"),
        ]
    )


def around(model):
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Rescaling(2.0), model])


def backbone():
    images = keras.Input(SHAPE)
    body = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(5)])
    features = body(images)
    return keras.Model(images, {"logits": keras.layers.Dense(4)(features), "features": features})


class Whole(keras.Model):
    """Not functional: its logits are its features."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(4)

    def build(self, shape):
        self.dense.build((None, 36))

    def call(self, x):
        return self.dense(keras.ops.reshape(x, (-1, 36)))


MODELS = {
    "of this library": lambda: kr.models.small_cnn(SHAPE, 4, variant="tiny"),
    "with skips": lambda: kr.models.resnet20((8, 8, 3), 4),
    "adapted": lambda: kr.models.adapt(sequential()),
    "adapted without softmax": lambda: kr.models.adapt(sequential(None)),
    "a convolution's": lambda: kr.models.adapt(sequential(), features="conv"),
    "the logits": lambda: kr.models.adapt(sequential(), features="last"),
    "nested": lambda: kr.models.adapt(around(sequential())),
    "nested, a convolution's": lambda: kr.models.adapt(around(sequential()), features="conv"),
    "nested twice": lambda: kr.models.adapt(around(around(sequential())), features="hidden"),
    "preprocessed": lambda: kr.models.adapt(
        sequential(), features="conv", preprocess=keras.layers.Rescaling(0.5)
    ),
    "a model as backbone": backbone,
    "subclassed": lambda: kr.models.adapt(Whole(), input_shape=SHAPE),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_logits_are_those_of_the_classifier(make):
    classifier = make()
    x = np.random.default_rng(0).random((3, *classifier.input.shape[1:])).astype("float32")
    outputs = classifier(x, training=False)
    head = head_of(classifier)
    np.testing.assert_allclose(head(outputs["features"]), outputs["logits"], atol=1e-5)
    moved = outputs["features"] + 0.5  # it is computed from what it is given
    assert not np.allclose(head(moved), outputs["logits"], atol=1e-3)


def test_the_weights_are_the_classifiers_own():
    classifier = kr.models.mlp((2, 2, 1), 3, hidden=(4,))
    head = head_of(classifier)
    classifier.get_layer("logits").kernel.assign(tf.zeros([4, 3]))
    np.testing.assert_array_equal(head(tf.ones([1, 4])), [[0.0, 0.0, 0.0]])


def test_features_that_a_branch_goes_around_are_refused():
    images = keras.Input((4,))
    left = keras.layers.Dense(3, name="left")(images)
    total = keras.layers.Add()([left, keras.layers.Dense(3)(images)])
    model = keras.Model(images, keras.layers.Dense(2)(total))
    with pytest.raises(ValueError, match="a branch bypasses the layer"):
        head_of(kr.models.adapt(model, features="left"))


@pytest.mark.parametrize("model", [lambda x: {"logits": x}, sequential()], ids=["function", "bare"])
def test_other_models_are_refused(model):
    with pytest.raises(TypeError, match="expected a functional model.*adapt"):
        head_of(model)
