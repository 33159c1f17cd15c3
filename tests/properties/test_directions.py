"""Steepest directions: of unit length, and the fastest ascent of that length."""

from __future__ import annotations

import numpy as np
import property_draws as draw
import property_reference as reference
import pytest
import tensorflow as tf
from property_draws import BATCHES, PIXELS, hold, in_draws

import keras_robust as kr

BALLS = {
    "linf": kr.LinfBall(1.0),
    "l2": kr.L2Ball(1.0),
    "l1, one pixel": kr.L1Ball(1.0, density=1 / PIXELS),
    "l1, five pixels": kr.L1Ball(1.0, density=5 / PIXELS),
    "l1, all pixels": kr.L1Ball(1.0, density=1.0),
}
every_ball = pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS)
every_dtype = pytest.mark.parametrize("dtype", draw.DTYPES, ids=lambda dtype: dtype.name)


def test_every_ball_is_here():
    public = {getattr(kr, name) for name in kr.__all__ if name.endswith("Ball")}
    public -= {kr.L0Ball, kr.UnionBall}  # not norms: test_l0.py, threat_models/test_union_ball.py
    assert {type(ball) for ball in BALLS.values()} == public == set(reference.BALLS.values())


def directions(ball, dtype, batch):
    """Gradients, scaled to have 1 as their largest entry, and the direction of each."""
    random = batch.random
    shape = draw.SHAPES[random.integers(len(draw.SHAPES))]
    gradient = draw.gradients(random, batch.count, shape, dtype)
    step = ball.steepest(tf.constant(gradient, dtype))
    assert step.dtype == dtype and step.shape == gradient.shape
    flat = reference.flat(gradient)
    largest = np.abs(flat).max(axis=1, keepdims=True, initial=0)
    return flat / np.where(largest > 0, largest, 1), reference.flat(draw.exact(step.numpy()))


def best_gain(ball, gradient):
    """The largest inner product with a vector of unit length, which is the dual norm.

    In L1 that is the largest entry. A denser step is the best of those that go equally far on as
    many pixels, ties and the density's share of them: the mean of the largest ones.
    """
    if not isinstance(ball, kr.L1Ball):
        return np.linalg.norm(gradient, {kr.LinfBall: 1, kr.L2Ball: 2}[type(ball)], axis=1)
    size = -np.sort(-np.abs(gradient), axis=1)
    count = round(ball.density * PIXELS)
    kept = (size >= size[:, count - 1 : count]) & (size > 0)
    return np.where(kept, size, 0).sum(axis=1) / np.maximum(kept.sum(axis=1), 1)


@every_dtype
@every_ball
@in_draws(600)
def test_no_unit_step_gains_more(ball, dtype, draws):
    eps = 2.0 ** -draw.DIGITS[dtype]

    def check(batch):
        gradient, step = directions(ball, dtype, batch)
        moves = np.abs(gradient).max(axis=1, initial=0) > 0
        # An entry is rounded to half a unit of its last place, and a sum of 12 to a few of them.
        np.testing.assert_allclose(reference.norm(type(ball), step), moves, rtol=8 * eps)
        assert not step[~moves].any()
        gain = (gradient * step).sum(axis=1)
        np.testing.assert_allclose(gain, best_gain(ball, gradient), rtol=8 * eps, atol=1e-300)
        if isinstance(ball, kr.L1Ball) and ball.density * PIXELS > 1.5:
            return len(step)  # slower than the steepest, on purpose
        for power in (1, 5):
            other = batch.random.normal(size=gradient.shape) ** power
            other /= reference.norm(type(ball), other)[:, None] + (len(other) == 0)
            assert ((gradient * other).sum(axis=1) <= gain * (1 + 8 * eps)).all()
        return len(step)

    hold(draws, BATCHES, check)


@every_ball
@in_draws(2500)
def test_examples_do_not_mix(ball, draws):
    def check(batch):
        random = batch.random
        gradient = draw.gradients(random, batch.count, (PIXELS,), tf.float32)
        mates = gradient.copy()
        mates[::2] = draw.gradients(random, len(mates[::2]), (PIXELS,), tf.float32)
        both = [ball.steepest(tf.constant(g, tf.float32)).numpy() for g in (gradient, mates)]
        np.testing.assert_array_equal(both[0][1::2], both[1][1::2])
        return len(gradient)

    hold(draws, BATCHES, check)
