"""Free adversarial training."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.initialization import AtInput
from keras_robust.training import CatastrophicOverfitting
from tests.defenses.conftest import BIAS, RATE, WEIGHTS

BALL = kr.LinfBall(0.2)


def test_three_replays_on_paper(make_linear, make_batch):
    """Weights and images move by the gradient at the same images and weights, three times."""
    x, y = make_batch(6, (4, 1, 1))
    model = kr.defenses.free(make_linear(WEIGHTS, BIAS), BALL, replays=3, step_size=0.15)
    model.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
    start = BALL.sample(tf.constant(x), model._fold(model.step)).numpy()
    w, b, moved = WEIGHTS.copy(), BIAS.copy(), start.reshape(6, 4).astype("float64")
    clean, losses, correct = x.reshape(6, 4), [], []
    for _ in range(3):
        z = moved @ w + b
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        losses.append(-np.log(p[np.arange(6), y]).mean())
        correct.append((p.argmax(axis=1) == y).mean())
        error = p - np.eye(3)[y]
        in_weights = moved.T @ error / 6
        moved = np.clip(moved + 0.15 * np.sign(error @ w.T), clean - 0.2, clean + 0.2).clip(0, 1)
        w, b = w - RATE * in_weights, b - RATE * error.mean(axis=0)
    logs = model.train_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(np.vstack(model.classifier.get_weights()), [*w, b], atol=1e-5)
    assert logs["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert logs["robust_accuracy"] == pytest.approx(np.mean(correct))
    assert int(model.step) == int(model.optimizer.iterations) == 3


@pytest.mark.parametrize("awp", [None, pytest.param(kr.AWP(0.05), marks=pytest.mark.slow)])
def test_microbatches_keep_their_own_images(make_linear, make_batch, awp):
    """Without randomness two parts are the whole batch; AWP is that of each part."""
    x, y = make_batch(6, (4, 1, 1))
    ends = []
    for parts in (1, 2):
        model = kr.defenses.free(
            make_linear(WEIGHTS, BIAS), BALL, replays=3, microbatches=parts, weight_perturbation=awp
        )
        model.attack = kr.replace(model.attack, initialization=AtInput())
        model.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
        model.train_on_batch(x, y)
        ends.append(np.vstack(model.classifier.get_weights()))
    np.testing.assert_allclose(*ends, atol=1e-6 if awp is None else 0.05)
    assert np.abs(ends[0] - [*WEIGHTS, BIAS]).max() > 0.05


def test_settings(tiny_classifier, tiny_batch):
    model = kr.defenses.free(tiny_classifier, BALL, replays=8, clean_weight=0.5, steps=7, seed=5)
    assert model.attack == kr.attacks.pgd(BALL, 1, 0.2)
    assert model.validation_attack == kr.attacks.pgd(BALL, 7)
    assert model.robust_loss == kr.losses.Adversarial(0.5) and model.seed == 5
    assert model.get_config()["replays"] == 8 and model.rebuilt(seed=1).replays == 8
    # Outside of training it crafts as the attack does, such as for batch-norm statistics.
    x, y = map(tf.constant, tiny_batch)
    seed = tf.constant([1, 2])
    np.testing.assert_array_equal(model.craft(x, y, seed), model.attack(model, x, y, seed=seed))
    CatastrophicOverfitting(tiny_batch).set_model(model)  # its attack has a single step


@pytest.mark.slow
def test_replicas_agree_with_one_device(two_replicas, make_linear, make_batch):
    x, y = make_batch(8, (4, 1, 1))
    ends = []
    for strategy in (None, two_replicas):
        with (strategy or tf.distribute.get_strategy()).scope():
            model = kr.defenses.free(make_linear(WEIGHTS, BIAS), BALL, replays=3)
            model.attack = kr.replace(model.attack, initialization=AtInput())
            model.compile(keras.optimizers.SGD(RATE))
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
        ends.append(np.vstack(model.classifier.get_weights()))
    np.testing.assert_allclose(*ends, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"replays": 0}, "free: replays is 0"),
        ({"step_size": 0}, "step_size is 0"),
        ({"clean_weight": -1}, "clean_weight is -1"),
    ],
)
def test_refused(tiny_classifier, settings, match):
    with pytest.raises(ValueError, match=match):
        kr.defenses.free(tiny_classifier, BALL, **settings)


def test_udr_refuses_it(tiny_classifier):
    with pytest.raises(ValueError, match="the base 'free' trains a model of its own"):
        kr.defenses.udr(tiny_classifier, BALL, base="free")
