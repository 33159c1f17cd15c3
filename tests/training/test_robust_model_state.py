"""RobustModel: what crafting leaves alone, what training moves, seeds, hooks, precision."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.losses.robust_loss import Adversarial

BALL = kr.LinfBall(0.1)
FGSM = kr.attacks.fgsm(BALL)


# What crafting leaves alone, and what training moves.


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("graph", [False, True])
def test_crafting_changes_nothing(make_robust, make_classifier, make_batch, values_of, mode, graph):
    """No weight, no running statistic, no seed of dropout."""
    model = make_robust(make_classifier(dropout=0.5), crafting_mode=mode)
    x, y = map(tf.constant, make_batch(8))
    before = values_of(model)
    craft = tf.function(model.craft) if graph else model.craft
    craft(x, y)
    for old, new in zip(before, values_of(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_crafting_in_eval_mode_is_the_attack_on_the_classifier(
    make_robust, make_classifier, make_batch
):
    x, y = make_batch(8)
    model = make_robust(make_classifier(dropout=0.5))
    np.testing.assert_array_equal(model.craft(x, y), FGSM(model.classifier, x, y))


def test_crafting_in_train_mode_is_against_the_statistics_of_the_batch(
    make_robust, make_classifier, make_batch
):
    """Without dropout, that is the attack on the classifier called with training=True."""
    x, y = make_batch(8)
    model = make_robust(make_classifier(dropout=0), crafting_mode="train")
    other = make_classifier(dropout=0)
    expected = FGSM(lambda x: other(x, training=True), x, y)
    np.testing.assert_array_equal(model.craft(x, y), expected)
    assert np.any(model.craft(x, y) != FGSM(model.classifier, x, y))


@pytest.mark.parametrize("clean_weight", [0.0, 1.0])
def test_statistics_move_once_per_forward_pass_clean_first(
    make_robust, fit_once, make_classifier, make_batch, clean_weight
):
    """As if the classifier had been called by hand on each batch it is trained on."""
    x, y = make_batch(8)
    model = make_robust(make_classifier(dropout=0), loss=Adversarial(clean_weight))
    x_adv = model.craft(x, y)
    fit_once(model, x, y)
    by_hand = make_classifier(dropout=0)
    for batch in (x, x_adv) if clean_weight else (x_adv,):
        by_hand(batch, training=True)
    for found, expected in zip(
        model.classifier.layers[3].non_trainable_variables,
        by_hand.layers[3].non_trainable_variables,
        strict=True,
    ):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-6)


def test_evaluation_changes_nothing(make_robust, make_classifier, make_batch, values_of):
    model = make_robust(make_classifier(dropout=0.5))
    before = values_of(model.classifier)
    model.evaluate(*make_batch(8), verbose=0)
    for old, new in zip(before, values_of(model.classifier), strict=True):
        np.testing.assert_array_equal(old, new)


# Seeds.

PGD = kr.attacks.pgd(BALL, steps=0)  # the start alone: nothing but the seed decides


def test_every_step_has_noise_of_its_own(make_robust, fit_once, make_classifier, make_batch):
    x, y = make_batch(8)
    model, same, other = (make_robust(make_classifier(), PGD, seed=seed) for seed in (1, 1, 2))
    first = model.craft(x, y)
    np.testing.assert_array_equal(first, same.craft(x, y))
    assert np.any(first != other.craft(x, y))
    fit_once(model, x, y)
    assert np.any(first != model.craft(x, y))


def test_evaluation_repeats_itself(make_robust, make_classifier, make_batch):
    model = make_robust(make_classifier(), kr.attacks.pgd(kr.LinfBall(0.5), steps=0))
    first, second = (model.evaluate(*make_batch(40), verbose=0, return_dict=True) for _ in range(2))
    assert first == second


def test_evaluation_attacks_with_the_same_noise_all_along(
    make_robust, fit_once, make_linear, make_batch
):
    """A learning rate of 0 leaves the model as it was; the number of steps must not matter."""
    batch = make_batch(8, (4, 1, 1))
    start = kr.attacks.pgd(kr.LinfBall(0.5), steps=0)
    still = keras.optimizers.SGD(0.0)
    model = make_robust(make_linear(np.eye(4)[:, :3]), start, optimizer=still)
    before = model.evaluate(*batch, verbose=0, return_dict=True)
    fit_once(model, *batch)
    assert model.evaluate(*batch, verbose=0, return_dict=True) == before


# Hooks.


class Hooked(kr.RobustModel):
    """Writes down what the hooks are given."""

    def craft(self, x, y, seed=None):
        self.seen = [float(self.classifier.layers[-1].bias[0])]
        return tf.zeros_like(x)

    def after_update(self, x, x_adv):
        self.seen += [float(self.classifier.layers[-1].bias[0]), float(tf.reduce_max(x_adv))]


def test_hooks_run_before_and_after_the_update(fit_once, make_linear, make_batch):
    model = Hooked(make_linear(np.eye(4)[:, :3]), FGSM, Adversarial())
    model.compile("sgd", run_eagerly=True)
    fit_once(model, *make_batch(7, (4, 1, 1)))  # not the same number of each class
    before, after, moved = model.seen
    assert before == 0 != after and moved == 0


# Precision.


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_images_are_not_rounded_before_the_attack(make_robust, make_classifier, make_batch, policy):
    """A radius of 1e-4 is less than half precision resolves near 1."""
    keras.config.set_dtype_policy(policy)
    x, y = make_batch(8)
    model = make_robust(make_classifier(), kr.attacks.fgsm(kr.LinfBall(1e-4)))
    x_adv = model.craft(tf.constant(x), tf.constant(y))
    assert x_adv.dtype == tf.float32
    distance = np.abs(x_adv.numpy() - x).max()
    assert 0.99e-4 < distance < 1.01e-4
    outputs = model(tf.constant(x))
    assert outputs["features"].dtype == keras.config.dtype_policy().compute_dtype
    assert outputs["logits"].dtype == tf.float32


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_images_reach_layers_in_single_precision_unrounded(make_batch, policy):
    """Such as a normalization that stays in float32."""
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((6, 6, 1))
    features = keras.layers.Flatten(dtype="float32")(inputs)
    logits = keras.layers.Dense(3, dtype="float32")(features)
    classifier = keras.Model(inputs, {"logits": logits, "features": features})
    model = kr.RobustModel(classifier, None, kr.losses.Clean())
    x, _ = make_batch(8)
    np.testing.assert_array_equal(model(x)["features"], x.reshape(8, 36))
