"""Crafting in half precision: the attack changes, and nothing else does."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.losses.robust_loss import Adversarial
from keras_robust.training.crafting_forward import crafting_forward

BALL = kr.LinfBall(0.1)
PGD = kr.attacks.pgd(BALL, steps=3)
# Its steps go along the gradient, not along its sign, so that results of two precisions differ.
PGD_L2 = kr.attacks.pgd(kr.L2Ball(0.5), steps=3)


def ops_of(function, *args):
    """Pairs of an op's type and the dtype of its first output, in a traced function."""
    graph = tf.function(function, autograph=False).get_concrete_function(*args).graph
    return {(op.type, op.outputs[0].dtype.name) for op in graph.get_operations() if op.outputs}


def test_convolutions_and_products_are_in_half_precision(make_classifier):
    classifier, x = make_classifier(), tf.zeros([2, 6, 6, 1])
    found = ops_of(crafting_forward(classifier, dtype="bfloat16"), x)
    assert ("Conv2D", "bfloat16") in found and ("Conv2D", "float32") not in found
    assert ("MatMul", "bfloat16") in found and ("MatMul", "float32") not in found
    assert {dtype for kind, dtype in ops_of(classifier, x) if kind == "Conv2D"} == {"float32"}


def test_outputs_are_those_of_the_classifier_within_half_precision(make_classifier, make_batch):
    classifier = make_classifier()
    x, _ = make_batch(8)
    half = crafting_forward(classifier, dtype="bfloat16")
    for _ in range(2):  # the second time with other weights
        exact, rounded = classifier(x), half(tf.constant(x))
        assert set(exact) == set(rounded)
        for name, value in exact.items():
            assert rounded[name].dtype == tf.float32
            assert 0 < np.abs(rounded[name] - value).max() < 0.05 * np.abs(value).max()
        classifier.set_weights([1.5 * w for w in classifier.get_weights()])


def test_it_is_tracked_by_nobody(make_robust, make_classifier):
    """The copy of the layers adds no weight to train, to count or to save."""
    one, half = (
        make_robust(make_classifier(), crafting_dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    assert [w.path.split("/")[1:] for w in one.variables] == [
        w.path.split("/")[1:] for w in half.variables
    ]
    assert len(half.layers) == len(one.layers)


def test_images_stay_in_single_precision(make_robust, make_classifier, make_batch):
    """A radius of 1e-4 is less than half precision resolves near 1."""
    x, y = make_batch(8)
    attack = kr.attacks.fgsm(kr.LinfBall(1e-4))
    model = make_robust(make_classifier(), attack, crafting_dtype="bfloat16")
    x_adv = model.craft(tf.constant(x), tf.constant(y))
    assert x_adv.dtype == tf.float32
    assert 0.99e-4 < np.abs(x_adv - x).max() < 1.01e-4


def test_it_reaches_the_loss_of_float32(make_robust, make_classifier, make_batch):
    x, y = map(tf.constant, make_batch(32))
    losses = {}
    for dtype in ("float32", "bfloat16"):
        model = make_robust(make_classifier(dropout=0), PGD, crafting_dtype=dtype)
        x_adv = model.craft(x, y)
        logits = model.classifier(x_adv)["logits"]
        losses[dtype] = float(tf.reduce_mean(kr.losses.cross_entropy(logits, y)))
    clean = float(tf.reduce_mean(kr.losses.cross_entropy(model.classifier(x)["logits"], y)))
    gained = losses["float32"] - clean
    assert losses["bfloat16"] == pytest.approx(losses["float32"], abs=0.03 * gained)


class Given(kr.RobustModel):
    """Trains on adversarial images that it was handed."""

    def craft(self, x, y, seed=None):
        return self.given


@pytest.mark.parametrize("eager", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_update_is_in_float32(make_classifier, make_batch, fit_once, eager):
    """Trained on the same adversarial images, both precisions end in the same bits."""
    x, y = make_batch(8)
    crafted = kr.RobustModel(make_classifier(), PGD_L2, Adversarial(1.0), crafting_dtype="bfloat16")
    given = Given(make_classifier(), PGD_L2, Adversarial(1.0))
    given.given = crafted.craft(tf.constant(x), tf.constant(y))
    float32 = PGD_L2(given.classifier, x, y, seed=crafted._fold(0))
    assert np.any(given.given != float32)
    for model in (crafted, given):
        model.compile(keras.optimizers.Adam(0.01), run_eagerly=eager)
        fit_once(model, x, y)
    for found, value in zip(crafted.get_weights(), given.get_weights(), strict=True):
        np.testing.assert_array_equal(found, value)


def test_validation_is_in_float32(make_robust, make_classifier, make_batch):
    data = make_batch(16)
    logs = [
        make_robust(make_classifier(), crafting_dtype=dtype).evaluate(*data, verbose=0)
        for dtype in ("float32", "bfloat16")
    ]
    assert logs[0] == logs[1]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_it_trains_every_architecture(mode):
    """Among them batch norm, residual sums, padding and pooling, and a model inside a model."""
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="relu")])
    inputs = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(
        keras.layers.Conv2D(4, 3, padding="same")(
            keras.layers.Normalization(mean=0.5, variance=0.1)(inputs)
        )
    )
    nested = kr.models.adapt(keras.Model(inputs, keras.layers.Dense(3)(inner(pooled))))
    resnet = kr.models.build("resnet20", (8, 8, 3), 3)
    x = tf.random.stateless_uniform([4, 8, 8, 3], [0, 1])
    for classifier in (nested, resnet):
        forward = crafting_forward(classifier, mode, "bfloat16")
        before = [w.numpy() for w in classifier.weights]
        crafted = tf.function(lambda x, f=forward: PGD(f, x, tf.constant([0, 1, 2, 0])))(x)
        assert np.isfinite(crafted).all() and np.any(crafted != x)
        for old, new in zip(before, classifier.weights, strict=True):
            np.testing.assert_array_equal(old, new.numpy())


@pytest.mark.parametrize("settings", [{"crafting_dtype": "float16"}, {"crafting_mode": "both"}])
def test_other_modes_and_dtypes_are_refused(settings, make_robust, make_classifier):
    with pytest.raises(ValueError, match="expected one of 'float32', |expected one of 'eval', "):
        make_robust(make_classifier(), **settings)


def test_it_is_saved(make_robust, make_classifier, tmp_path):
    make_robust(make_classifier(), crafting_dtype="bfloat16", microbatches=3).save(
        tmp_path / "model.keras"
    )
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (loaded.crafting_dtype, loaded.microbatches) == ("bfloat16", 3)
