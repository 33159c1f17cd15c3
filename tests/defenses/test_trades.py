"""TRADES."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.defenses.trades import DecoupledTrades, Trades, TradesModel
from tests.defenses.conftest import BIAS, WEIGHTS

BALL = kr.LinfBall(0.1)


def test_one_step(one_step, of_label, kl):
    """CE(x) + 6 KL(p(x) || p(x_adv)), both predictions moving with the weights."""
    one_step(
        lambda classifier: kr.defenses.trades(classifier, BALL, beta=6.0, steps=3),
        lambda clean, moved, y: {
            "clean": -of_label(clean, y).mean(),
            "divergence": 6 * kl(clean, moved).mean(),
        },
    )


def test_the_attack_maximizes_the_divergence_of_the_loss(tiny_classifier, tiny_batch):
    """More steps of it make more KL from the clean prediction, and no label changes them."""
    x, y = tiny_batch
    clean = tiny_classifier(x)["logits"]
    reached = []
    for steps in (0, 1, 8):
        attack = kr.defenses.trades(tiny_classifier, BALL, steps=steps, step_size=0.02).attack
        x_adv = attack(tiny_classifier, x, y)
        np.testing.assert_array_equal(x_adv, attack(tiny_classifier, x, (y + 1) % 3))
        divergence = kr.losses.kl_divergence(clean, tiny_classifier(x_adv)["logits"])
        reached.append(float(tf.reduce_mean(divergence)))
    assert reached[0] < 1e-4 < reached[1] < reached[2]


def test_settings(tiny_classifier):
    """Crafted on the KL from a small Gaussian start; validated like the other defenses."""
    model = kr.defenses.trades(tiny_classifier, BALL, beta=1.0, steps=40, step_size=0.01, seed=5)
    assert model.attack == kr.attacks.pgd(BALL, 40, 0.01, loss="kl", initialization="gaussian")
    assert model.validation_attack == kr.attacks.pgd(BALL, 40, 0.01)
    assert model.robust_loss == Trades(1.0) and model.seed == 5


def test_without_beta_it_is_plain_training(tiny_classifier, tiny_batch):
    outputs = tiny_classifier(tiny_batch[0])
    terms = Trades(0.0)(tf.constant(tiny_batch[1]), {"logits": -outputs["logits"]}, outputs)
    assert not terms["divergence"].numpy().any()


def trades(classifier, **options):
    return kr.defenses.trades(classifier, BALL, beta=2.0, steps=3, **options)


def test_the_parts_of_the_divergence_have_its_gradient():
    """Theorem 1 of Cui et al.: in both logits, whatever the prediction."""
    random = np.random.default_rng(0)
    logits, other = (tf.constant(3 * random.normal(size=(5, 4))) for _ in range(2))
    y = tf.constant([0, 1, 2, 3, 0])
    found = []
    for loss in (Trades(2.0), DecoupledTrades(2.0, 2.0, class_wise=False, symmetric=False)):
        with tf.GradientTape() as tape:
            tape.watch([logits, other])
            terms = loss(y, {"logits": other}, {"logits": logits})
            total = tf.add_n([tf.reduce_sum(term) for term in terms.values()])
        found.append(tape.gradient(total, [logits, other]))
    for kl, parts in zip(*found, strict=True):
        np.testing.assert_allclose(parts, kl, rtol=1e-9, atol=1e-12)


def test_one_step_of_the_improved_divergence_with_a_helper(one_step, of_label, kl, make_linear):
    """CE(x) + 2 KL(stop p(x) || p(x_adv)) + 3/2 Var(z(x) - z(x_adv)) + 1/2 CE(x + 2 delta).

    The mean predictions of each class are equal at first; a variance of logits is that of their
    logarithms. The helper, which labels x + delta, has the weights of the classifier before the
    step; the logits at x + 2 delta are twice those at x + delta less those at x.
    """
    before = []

    def loss(clean, moved, y):
        before[:] = before or [clean, moved.argmax(axis=1)]  # at first, before the step
        beyond = 2 * moved - clean
        beyond -= np.log(np.exp(beyond).sum(axis=1, keepdims=True))
        return {
            "clean": -of_label(clean, y).mean(),
            "divergence": 2 * kl(before[0], moved).mean(),
            "mse": 1.5 * (clean - moved).var(axis=1).mean(),
            "helper": -0.5 * of_label(beyond, before[1]).mean(),
        }

    options = {"divergence": "ikl", "mse_weight": 3.0, "helper": make_linear(WEIGHTS, BIAS)}
    model = one_step(lambda classifier: trades(classifier, **options), loss)
    np.testing.assert_allclose(np.vstack(model.helper.get_weights()), [*WEIGHTS, BIAS])


def test_the_mean_predictions_of_each_class_are_the_weights(tiny_classifier, tiny_batch):
    """0.99 of the means before and 0.01 of those of the batch, of the classes that are in it."""
    y = tiny_batch[1][:5] % 2  # 0, 1, 0, 0, 1: there is no 2
    model = trades(tiny_classifier, divergence="ikl")
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    outputs = {"logits": tf.constant(np.random.default_rng(1).normal(size=(5, 3)), tf.float32)}
    model.after_gradients(tf.constant(y), {"clean": outputs})
    p = tf.nn.softmax(outputs["logits"]).numpy()
    expected = np.full([3, 3], 1 / 3)
    for label in (0, 1):
        expected[label] = 0.99 / 3 + 0.01 * p[y == label].mean(axis=0)
    np.testing.assert_allclose(model.class_probabilities, expected, rtol=1e-6)
    # An image is weighted by the row of its label: an eighth of all pairs with their weights.
    z, moved = np.array([[1.0, 2.0, 4.0]]), np.zeros([1, 3])
    terms = model.robust_loss(
        tf.constant([1]), {"logits": moved, "class_probabilities": expected}, {"logits": z}
    )
    pairs = (z[0][:, None] - z[0]) ** 2 * expected[1][:, None] * expected[1]
    assert float(terms["mse"][0]) == pytest.approx(2 * pairs.sum() / 4)


def test_a_helper_without_weight_is_trades(make_linear, make_batch):
    x, y = make_batch(6, (4, 1, 1))
    ends = []
    for options in ({}, {"helper": make_linear(WEIGHTS[::-1], BIAS), "helper_weight": 0.0}):
        model = trades(make_linear(WEIGHTS, BIAS), weight_perturbation=kr.AWP(0.05), **options)
        model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
        model.train_on_batch(x, y)
        ends.append(np.vstack(model.classifier.get_weights()))
    np.testing.assert_allclose(*ends, atol=1e-7)


def test_the_helper_is_a_frozen_copy_that_is_saved(make_classifier, tmp_path):
    helper = make_classifier(seed=5)
    wrapped = kr.defenses.standard(helper, BALL)  # the classifier inside of it counts
    model = trades(make_classifier(), helper=wrapped, helper_scale=3.0, divergence="ikl")
    assert isinstance(model, TradesModel) and helper.trainable_variables
    assert len(model.trainable_variables) == len(model.classifier.trainable_variables)
    model.class_probabilities.assign(np.eye(3))
    model.compile("sgd")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.helper_scale == 3.0
    np.testing.assert_array_equal(loaded.class_probabilities, np.eye(3))
    for found, value in zip(loaded.helper.get_weights(), helper.get_weights(), strict=True):
        np.testing.assert_array_equal(found, value)


@pytest.mark.slow
def test_replicas_agree_with_one_device(two_replicas, make_linear, make_batch):
    """The mean predictions and the weights; no step is taken, so that no noise differs."""
    x, y = make_batch(8, (4, 1, 1))
    ends = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            helper = make_linear(WEIGHTS[::-1], BIAS)
            model = trades(make_linear(WEIGHTS, BIAS), divergence="ikl", helper=helper)
            model.attack = kr.attacks.pgd(BALL, 0, 0.1, initialization="none")
            model.compile(keras.optimizers.SGD(0.5))
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        weights = np.vstack(model.classifier.get_weights())
        ends.append([weights, tf.convert_to_tensor(model.class_probabilities).numpy()])
    assert np.ptp(ends[0][1]) > 1e-3
    for one, two in zip(*ends, strict=True):
        np.testing.assert_allclose(two, one, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"divergence": "jsd"}, ValueError, "divergence is 'jsd'; expected one of 'kl', 'ikl'"),
        ({"mse_weight": 1.0}, ValueError, "mse_weight is 1.0, and the divergence is 'kl'"),
        ({"mse_weight": -1.0, "divergence": "ikl"}, ValueError, "mse_weight is -1.0"),
        ({"helper": "model.keras"}, TypeError, "helper is 'model.keras'; expected a model"),
    ],
)
def test_options_that_are_refused(tiny_classifier, options, error, match):
    with pytest.raises(error, match=match):
        trades(tiny_classifier, **options)


def test_a_helper_of_other_images_is_refused(tiny_classifier, make_linear):
    with pytest.raises(ValueError, match=r"helper maps images \(4, 1, 1\) to logits \(3,\)"):
        trades(tiny_classifier, helper=make_linear(WEIGHTS))
    with pytest.raises(ValueError, match="helper_weight|HelperExamples: weight is -1"):
        trades(tiny_classifier, helper=tiny_classifier, helper_weight=-1)
    with pytest.raises(ValueError, match="helper_scale is -1"):
        trades(tiny_classifier, helper=tiny_classifier, helper_scale=-1)


def test_udr_refuses_what_needs_a_model_of_its_own(tiny_classifier):
    with pytest.raises(ValueError, match=r"udr: with these options the base 'trades' trains a"):
        kr.defenses.udr(tiny_classifier, BALL, base="trades", divergence="ikl")


@pytest.mark.parametrize("beta", [-1, math.nan, math.inf, "6"])
def test_beta_is_refused(tiny_classifier, beta):
    with pytest.raises(ValueError, match=r"Trades: beta is .*finite number >= 0"):
        kr.defenses.trades(tiny_classifier, BALL, beta=beta)
