"""Gradients that transfer: numbers by hand for each of the parts, and all of them together."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import bim, mim, pgd
from keras_robust.attacks.crafting.step_rules import MomentumStep
from keras_robust.attacks.crafting.transferability import Transferability, get, shrunk

BALL = kr.LinfBall(0.1)
X = np.random.default_rng(0).uniform(0.2, 0.8, (3, 7, 7, 2)).astype("float32")
SEED = tf.constant([1, 2])


def gradients(function, steps=1, **settings):
    """The gradients of the first steps, at the clean images, of an objective of the images."""

    def objective(forward, x, y, targets=None):
        return lambda x_adv: function(forward(x_adv)["logits"])

    identity = lambda x: {"logits": x}  # noqa: E731
    y = tf.zeros([3], tf.int32)
    x = tf.constant(X)
    oracle = Transferability(**settings).oracle(BALL, objective, identity, x, y, SEED, None)
    state, found = oracle.init(x), []
    for _ in range(steps):
        _, gradient, state = oracle(x, state)
        found.append(gradient.numpy())
    return found


def square(x):
    return tf.reduce_sum(x**2, axis=[1, 2, 3])


def test_names():
    assert get(None) is None and get(Transferability(kernel=3)) == Transferability(kernel=3)
    assert get("di+ti+si+vt") == Transferability(diversity=0.5, kernel=7, scales=5, samples=20)
    with pytest.raises(
        ValueError, match="no transferability 'vmi'; expected one of di, ti, si, vt"
    ):
        pgd(BALL, transferability="vmi")
    with pytest.raises(ValueError, match="kernel is 4; expected an odd size"):
        Transferability(kernel=4)


def test_translations_smooth_the_gradient():
    """That of one pixel in the middle is the kernel: Gaussian, of sum 1, in its own channel."""
    (found,) = gradients(lambda x: x[:, 3, 3, 1], kernel=5)
    line = np.exp(-(np.linspace(-3, 3, 5) ** 2) / 2)
    expected = np.zeros((7, 7))
    expected[1:6, 1:6] = np.outer(line, line) / line.sum() ** 2
    for image in found:
        np.testing.assert_allclose(image[..., 1], expected, atol=1e-6)
        assert not image[..., 0].any()


def test_scales_are_averaged():
    """Of x^2 at x, x / 2 and x / 4: (2 x + 2 x / 4 + 2 x / 16) / 3."""
    (found,) = gradients(square, scales=3)
    np.testing.assert_allclose(found, 2 * X * (1 + 1 / 4 + 1 / 16) / 3, rtol=1e-5)


def test_variance_tuning_adds_what_the_neighbors_had_more():
    """None in the first step; none where the gradient is constant; of x^2 twice the mean draw."""
    first, second = gradients(square, 2, samples=4)
    np.testing.assert_allclose(first, 2 * X, rtol=1e-6)
    drift = second - first
    assert 0 < np.abs(drift).max() <= 2 * 1.5 * 0.1 + 1e-6
    assert np.abs(drift).std() < 0.1  # of a mean of 4: 0.3 / sqrt(3 * 4)
    linear = gradients(lambda x: tf.reduce_sum(3 * x, axis=[1, 2, 3]), 2, samples=2)
    np.testing.assert_allclose(linear, 3.0, rtol=1e-5)


def test_input_diversity_shrinks_and_pads():
    x = tf.ones([400, 10, 10, 1])
    moved = shrunk(x, SEED, Transferability(diversity=0.5, smallest=0.5), 0.0).numpy()[..., 0]
    changed = (moved != 1).any(axis=(1, 2))
    assert 0.35 < changed.mean() < 0.55  # half, of which a tenth keeps its size
    np.testing.assert_allclose(moved.max(axis=(1, 2)), 1, atol=1e-5)
    sides = np.sqrt(moved.sum(axis=(1, 2)))
    np.testing.assert_allclose(sides, np.round(sides), atol=1e-3)  # whole squares of ones
    assert sides.min() == pytest.approx(5, abs=1e-3) and len(np.unique(sides.round())) == 6
    same = shrunk(tf.constant(X), SEED, Transferability(diversity=1.0, smallest=1.0), 0.0)
    np.testing.assert_allclose(same, X, atol=1e-6)


def test_nesterov_looks_where_the_momentum_leads():
    """v = (0.75, -0.25), |v| sums to 1 over 2 pixels: x + 0.1 * 0.5 * 2 v; the step is MIM's."""
    ball, x = kr.LinfBall(0.5), tf.constant([[0.5, 0.5]])
    velocity = tf.constant([[0.75, -0.25]])
    rule = MomentumStep(0.1, 0.5, nesterov=True)
    np.testing.assert_allclose(rule.lookahead(ball, x, x, velocity), [[0.575, 0.475]], atol=1e-6)
    assert MomentumStep(0.1).lookahead(ball, x, x, velocity) is x
    assert mim(BALL, nesterov=True).step_rule.nesterov and mim(BALL).step_rule.nesterov is None


def test_names_and_randomness():
    assert pgd(BALL, 3, transferability="di+ti").name == "PGD-DI+TI-3"
    assert mim(BALL, 3, nesterov=True).name == "NIM-3"
    assert bim(BALL, transferability="di").is_random
    assert not bim(BALL, transferability="ti+si").is_random
    assert bim(BALL).get_config() == kr.replace(bim(BALL), transferability=None).get_config()


def test_expectation_over_transformation_averages_calls():
    """Of random gradients with mean 1 and deviation 1: the deviation falls with the root."""
    draws = iter(np.random.default_rng(0).normal(1, 1, 10_000))

    def noisy(x):
        return tf.reduce_sum(next(draws) * x, axis=[1, 2, 3])

    (found,) = gradients(noisy, eot_iter=100)
    np.testing.assert_allclose(found, 1.0, atol=0.4)
