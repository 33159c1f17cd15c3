"""SPSA: its estimates on paper, and an attack that no gradient could make."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import spsa
from keras_robust.attacks.black_box.spsa import SpsaEstimator

SEED = tf.constant([3, 4])
BALL = kr.LinfBall(1.0)
SLOPE = np.array([[2.0, -1.0, 0.5]])
MIDDLE = tf.constant([[0.5, 0.5, 0.5], [0.4, 0.5, 0.6]], tf.float64)


def rising(x):
    return tf.reduce_sum(x * SLOPE, axis=1)


def directions(count, shape):
    """The directions that are drawn for a seed, [count, *shape]."""
    seeds = [tf.random.experimental.stateless_fold_in(SEED, number) for number in range(count)]
    draws = [tf.random.stateless_uniform(shape, seed, 0, 2, tf.int32) for seed in seeds]
    return 2.0 * np.stack(draws) - 1


def test_the_estimate_is_the_mean_slope_along_the_directions():
    """Of a linear function the slope along v is w v, whatever the distance."""
    oracle = SpsaEstimator(rising, BALL, 5, 0.01, SEED)
    value, gradient, drawn = oracle(MIDDLE, oracle.init(MIDDLE))
    v = directions(5, (2, 3))
    slope = np.sum(v * SLOPE, axis=2, keepdims=True)
    np.testing.assert_allclose(gradient, (slope * v).mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(value, rising(MIDDLE))
    assert int(drawn) == 5


def test_the_next_step_draws_other_directions():
    oracle = SpsaEstimator(rising, BALL, 2, 0.01, SEED)
    _, first, state = oracle(MIDDLE, oracle.init(MIDDLE))
    _, second, _ = oracle(MIDDLE, state)
    assert np.any(first != second)
    _, again, _ = oracle(MIDDLE, oracle.init(MIDDLE))
    np.testing.assert_array_equal(first, again)


def test_many_directions_come_to_the_gradient():
    """The deviation of entry i is |w without w_i| / sqrt(n): at most 2.1 / 30."""
    oracle = SpsaEstimator(rising, BALL, 900, 0.01, SEED)
    _, gradient, _ = tf.function(oracle.__call__)(MIDDLE, oracle.init(MIDDLE))
    np.testing.assert_allclose(gradient, np.repeat(SLOPE, 2, axis=0), atol=4 * 2.1 / 30)


def test_pixels_at_the_end_of_the_range_are_asked_about_inside_it():
    seen = []

    def watched(x):
        seen.append(x.numpy())
        return rising(x)

    corner = tf.constant([[0.0, 1.0, 0.5]], tf.float64)
    _, gradient, _ = SpsaEstimator(watched, BALL, 200, 0.01, SEED)(corner, tf.constant(0))
    assert np.min(seen) == 0 and np.max(seen) == 1
    # Such a pixel moves half as far, and so its estimate is half of its slope.
    np.testing.assert_allclose(gradient, SLOPE * [[0.5, 0.5, 1]], atol=4 * 2.1 / 200**0.5)


def test_values_that_are_no_numbers_are_no_slope():
    oracle = SpsaEstimator(lambda x: rising(x) * np.nan, BALL, 2, 0.01, SEED)
    np.testing.assert_array_equal(oracle(MIDDLE, tf.constant(0))[1], tf.zeros_like(MIDDLE))


@pytest.mark.parametrize(("ball", "ends"), [(kr.LinfBall(0.1), 0.6), (kr.L2Ball(0.1), None)])
def test_a_model_without_a_gradient_falls(ball, ends):
    """Pixels rounded to hundredths; the worst change is the ball's steepest direction."""

    def coarse(x):
        x = tf.round(x * 100) / 100
        return {"logits": tf.stack([0 * x[:, 0], rising(x) - 0.8], axis=1)}

    x, y = tf.constant([[0.5, 0.5, 0.5]], tf.float64), tf.constant([0])
    with pytest.raises(ValueError, match="no gradient to follow"):
        kr.attacks.pgd(ball)(coarse, x, y)
    x_adv = spsa(ball, 20, n_directions=64, delta=0.05).compiled(coarse)(x, y, seed=1)
    best = x + ball.radius * ball.steepest(tf.constant(SLOPE))
    assert rising(x_adv) >= rising(x) + 0.9 * (rising(best) - rising(x))
    if ends:
        np.testing.assert_allclose(x_adv[0, :2], [ends, 1 - ends], atol=1e-9)


def test_queries_are_what_is_asked():
    passes = []

    def counted(x):
        passes.append(len(x))
        return {"logits": x}

    attack = spsa(kr.LinfBall(0.1), 3, n_directions=4)
    attack(counted, tf.fill([2, 2], 0.5), tf.constant([0, 1]))
    assert passes == [2] * attack.queries == [2] * 24


def test_bad_settings_are_refused():
    for settings, match in (
        ({"n_directions": 0}, "n_directions is 0"),
        ({"n_directions": True}, "n_directions is True"),
        ({"delta": 0.0}, "delta is 0.0"),
        ({"steps": -1}, "steps is -1"),
        ({"loss": "kl"}, "KL divergence has no gradient"),
        ({"step_size": 0}, "step_size is 0"),
    ):
        with pytest.raises(ValueError, match=match):
            spsa(kr.LinfBall(0.1), **settings)
    with pytest.raises(TypeError, match="expected a threat model"):
        spsa(0.1)
