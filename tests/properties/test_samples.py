"""Samples of balls and starts: inside, a function of the seed, and uniform."""

from __future__ import annotations

import math

import numpy as np
import property_draws as draw
import property_reference as reference
import pytest
import tensorflow as tf
from property_draws import BATCHES, hold, in_draws

import keras_robust as kr
from keras_robust.attacks.crafting import initialization

STARTS = {
    "uniform": initialization.Uniform(),
    "gaussian": initialization.Gaussian(),
    "gaussian, wide": initialization.Gaussian(1e6),
    "random step": initialization.RandomStep(0.5),
    "random step, whole": initialization.RandomStep(1.0),
    "clean": initialization.AtInput(),
    "rim": initialization.OnSphere(),
}
every_start = pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
every_ball = pytest.mark.parametrize("kind", reference.BALLS.values(), ids=reference.BALLS)
every_dtype = pytest.mark.parametrize("dtype", draw.DTYPES, ids=lambda dtype: dtype.name)


def test_every_start_is_here():
    public = {getattr(initialization, name) for name in initialization.__all__}
    assert {type(start) for start in STARTS.values()} == public


@every_dtype
@every_ball
@every_start
@in_draws(200)
def test_starts_are_inside_and_follow_the_seed(start, kind, dtype, draws):
    def check(batch):
        random = batch.random
        bounds = draw.BOUNDS[random.integers(len(draw.BOUNDS))]
        shape = draw.SHAPES[random.integers(len(draw.SHAPES))]
        x = draw.images(random, batch.count, shape, bounds, dtype)
        ball = kr.replace(
            kind(0.0, bounds),
            radius=tf.constant(batch.radius * (bounds[1] - bounds[0]), reference.wide(dtype)),
        )
        seed, centre = tf.constant([batch.seed, 7], tf.int64), tf.constant(x, dtype)
        first = start(ball, centre, seed)
        assert first.dtype == dtype and first.shape == x.shape
        first = draw.exact(first.numpy())
        reference.assert_inside(ball, float(ball.radius), first, x, dtype)
        np.testing.assert_array_equal(first, draw.exact(start(ball, centre, seed).numpy()))
        return len(x)

    hold(draws, BATCHES, check)


@every_dtype
@every_ball
def test_samples_fill_the_ball(kind, dtype):
    """10,000 points around 0 in 3 dimensions: P(length <= t r) = t^3, every octant alike, and a
    coordinate has mean square r^2 / 3 (Linf), r^2 / 5 (L2), r^2 / 10 (L1).

    Within five standard errors, and the rounding of a point to its dtype.
    """
    count, radius, eps = 10_000, 2.0, 2.0 ** -draw.DIGITS[dtype]
    ball = kind(radius, (-9.0, 9.0))
    points = ball.sample(tf.zeros([count, 3], dtype), tf.constant([5, 6])).numpy()
    points = draw.exact(points)
    length = np.linalg.norm(points, reference.ORDER[kind], axis=1)
    for share in (0.25, 0.5, 0.75, 0.9):
        expected = share**3
        error = 5 * math.sqrt(expected * (1 - expected) / count) + 6 * eps * share**2
        assert abs((length <= share * radius).mean() - expected) < error, share
    octants = np.bincount((points > 0) @ [1, 2, 4], minlength=8) / count
    assert np.abs(octants - 1 / 8).max() < 5 * math.sqrt(7 / 64 / count)
    square = {kr.LinfBall: 1 / 3, kr.L2Ball: 1 / 5, kr.L1Ball: 1 / 10}[kind] * radius**2
    measured = (points**2).mean(axis=0)
    error = 5 * (points**2).std(axis=0) / math.sqrt(count) + 2 * eps * square
    assert (np.abs(measured - square) < error).all()
