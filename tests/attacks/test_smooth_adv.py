"""SmoothAdv: its objective and gradient against formulas, and what it composes with."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import multi_targeted, per_member, pgd, smooth_adv, transfer
from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.attacks.smooth_adv import under_noise
from keras_robust.core.classifier import as_forward, each_member

BALL = kr.L2Ball(0.3)
WEIGHTS = np.array([[2.0, -1.0, 0.5], [0.0, 1.5, -1.0], [-0.5, 0.0, 1.0], [1.0, 0.3, -2.0]])
Y = np.array([0, 2])


def linear(x):
    return {"logits": x @ WEIGHTS.astype(x.dtype.as_numpy_dtype), "features": x}


def softmax(z):
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((2, 4))


def test_the_gradient_is_that_of_the_paper(images):
    """-log (1/m) sum_i p_y(x + d_i) has the gradient -sum_i grad p_y(x + d_i) / sum_i p_y."""
    attack = smooth_adv(pgd(BALL, 1), sigma=0.5, samples=6)
    x = tf.constant(images)
    noise = attack.noise(x, as_seed(3))
    value = kr.objectives.LabelLoss()(under_noise(linear, noise), x, tf.constant(Y))
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = value(x)
    p = softmax((images[:, None] + noise.numpy()) @ WEIGHTS)
    of_label = p[np.arange(2), :, Y]
    np.testing.assert_allclose(loss, -np.log(of_label.mean(axis=1)), rtol=1e-10)
    own = np.take(WEIGHTS.T, Y, axis=0)[:, None] - p @ WEIGHTS.T  # of log p_y, [image, sample, 4]
    expected = -(of_label[..., None] * own).sum(axis=1) / of_label.sum(axis=1)[:, None]
    np.testing.assert_allclose(tape.gradient(loss, x), expected, rtol=1e-8)


def test_a_step_follows_it(images):
    """One step of the whole radius from the image, along the gradient by finite differences."""
    ball = kr.L2Ball(0.01, bounds=(-9.0, 9.0))
    attack = smooth_adv(pgd(ball, 1, 0.01, initialization="none"), sigma=0.5, samples=5)
    noise = attack.noise(tf.constant(images), as_seed(7)).numpy()

    def loss(x):
        return -np.log(softmax((x[:, None] + noise) @ WEIGHTS)[np.arange(2), :, Y].mean(axis=1))

    slope = np.stack([loss(images + e) - loss(images - e) for e in 1e-5 * np.eye(4)], axis=1)
    slope /= np.linalg.norm(slope, axis=1, keepdims=True)
    found = attack(linear, images, Y, seed=7)
    np.testing.assert_allclose(found - images, 0.01 * slope, atol=1e-9)


def test_all_outputs_are_means(make_classifier):
    members = [make_classifier(seed=seed, dropout=0) for seed in range(2)]
    forward = as_forward(kr.models.ensemble(members))
    x = tf.random.stateless_uniform([3, 6, 6, 1], [1, 2])
    noise = 0.3 * tf.random.stateless_normal([3, 4, 6, 6, 1], [3, 4])
    found = under_noise(forward, noise)(x)
    each = [forward(x + noise[:, i]) for i in range(4)]
    for name in ("logits", "member_logits"):
        mean = np.mean([softmax(outputs[name].numpy()) for outputs in each], axis=0)
        np.testing.assert_allclose(tf.exp(found[name]), mean, rtol=1e-5)
    mean = np.mean([outputs["features"].numpy() for outputs in each], axis=0)
    np.testing.assert_allclose(found["features"], mean, rtol=1e-5, atol=1e-6)
    both = each_member("The test", under_noise(forward, noise), x)
    for number, member in enumerate(both):
        np.testing.assert_allclose(
            member(x)["logits"], found["member_logits"][:, number], rtol=1e-5, atol=1e-6
        )


def test_it_follows_the_slope_that_is_left_under_noise():
    """On a slope with ripples PGD stays in a trough; under noise the ripples cancel."""

    def rippled(x):
        z = 4 * x[:, 0] + 0.3 * tf.sin(60 * x[:, 0])
        return {"logits": tf.stack([z, tf.ones_like(z)], axis=1)}

    x, y = tf.constant([[np.pi / 60 * 11]], tf.float32), tf.constant([0])  # steepest upward
    attack = pgd(kr.L2Ball(0.3), 8, 0.04, initialization="none")
    smooth = kr.models.smoothed(rippled, 0.25)
    moved, probability = [], []
    for crafted in (attack, smooth_adv(attack, sigma=0.25, samples=500)):
        x_adv = crafted(rippled, x, y, seed=1)
        moved.append(float((x_adv - x)[0, 0]))
        probability.append(smooth.certify(x_adv, 2000).lower_bounds[0])
    assert abs(moved[0]) < 0.06 and moved[1] == pytest.approx(-0.3, abs=0.03)
    assert probability[1] < probability[0] - 0.2


def test_it_composes(tiny_classifier, tiny_batch):
    x, y = tiny_batch
    attack = smooth_adv(multi_targeted(pgd(BALL, 1, targeted=True)), 0.2, 2)
    assert attack(tiny_classifier, x, y).shape == x.shape and attack.inner.steps == 1
    ensemble = kr.models.ensemble([tiny_classifier, kr.models.mlp(x.shape[1:], 3)])
    first, second = per_member(smooth_adv(pgd(BALL, 1), 0.2, 2))(ensemble, x, y)
    assert np.any(first != second)
    moved = transfer(smooth_adv(pgd(BALL, 1), 0.2, 2), tiny_classifier)
    assert moved(ensemble, x, y).shape == x.shape
    smaller = smooth_adv(pgd(BALL, 4), 0.2, 2).at_radius(0.15)
    assert smaller == smooth_adv(pgd(kr.L2Ball(0.15), 4), 0.2, 2)
    half = smooth_adv(pgd(BALL, 1), 0.2, 2)(linear, tf.fill([2, 4], tf.constant(0.5, "half")), Y)
    assert half.dtype == tf.float16


def test_what_is_refused():
    with pytest.raises(TypeError, match="SmoothAdv: the attack is L2Ball"):
        smooth_adv(BALL)
    with pytest.raises(ValueError, match="SmoothAdv: sigma is 0; expected a finite number > 0"):
        smooth_adv(pgd(BALL), sigma=0)
    with pytest.raises(ValueError, match="SmoothAdv: samples is 0; expected an integer >= 1"):
        smooth_adv(pgd(BALL), samples=0)
    with pytest.raises(ValueError, match=r"one batch per member; .*per_member\(smooth_adv"):
        smooth_adv(per_member(pgd(BALL)))
    with pytest.raises(ValueError, match=r"on another model.*transfer\(smooth_adv"):
        smooth_adv(transfer(pgd(BALL), linear))
