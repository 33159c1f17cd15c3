"""Projections: into the ball, the identity inside it, idempotent, and the nearest point."""

from __future__ import annotations

import numpy as np
import property_draws as draw
import property_reference as reference
import pytest
import tensorflow as tf
from property_draws import BATCHES, hold, in_draws

import keras_robust as kr

every_ball = pytest.mark.parametrize("kind", reference.BALLS.values(), ids=reference.BALLS)
every_dtype = pytest.mark.parametrize("dtype", draw.DTYPES, ids=lambda dtype: dtype.name)


class Projected:
    """A batch, its points and their projections; infinite bounds isolate the ball."""

    def __init__(self, kind, dtype, batch, bounded):
        random = batch.random
        bounds = draw.BOUNDS[random.integers(len(draw.BOUNDS))]
        shape = draw.SHAPES[random.integers(len(draw.SHAPES))]
        self.dtype, self.kind = dtype, kind
        self.radius = batch.radius * (bounds[1] - bounds[0])
        self.x = draw.images(random, batch.count, shape, bounds, dtype)
        if not bounded and random.random() < 0.5:
            self.x = np.zeros_like(self.x)
        self.z = draw.points(random, self.x, self.radius, dtype)
        self.ball = kr.replace(
            kind(0.0, bounds if bounded else (-np.inf, np.inf)),
            radius=tf.constant(self.radius, reference.wide(dtype)),
        )
        self.radius = float(self.ball.radius)  # as it is in the dtype of the computation
        self.out = self.project(self.z)

    def project(self, z):
        out = self.ball.project(tf.constant(z, self.dtype), tf.constant(self.x, self.dtype))
        assert out.dtype == self.dtype and out.shape == self.x.shape
        return draw.exact(out.numpy())

    def slack(self, z):
        """The error of a projection, which expands no error of its argument: that of `z - x`
        (exact around 0), that of the length, and the rounding of pixels; as a Euclidean length."""
        delta = reference.flat(z) - reference.flat(self.x)
        unit = float(np.finfo(reference.wide(self.dtype).as_numpy_dtype).eps)
        delta_error = unit * reference.norm(kr.L2Ball, delta * (reference.flat(self.x) != 0))
        pixels = reference.pixel_error(self.x, self.out, self.dtype)
        length = self.radius * reference.length_slack(self.kind, self.dtype)
        return delta_error + length + 2 * reference.norm(kr.L2Ball, pixels)


@every_dtype
@every_ball
@in_draws(1000)
def test_it_ends_inside_the_ball_and_the_bounds(kind, dtype, draws):
    def check(batch):
        case = Projected(kind, dtype, batch, bounded=True)
        reference.assert_inside(case.ball, case.radius, case.out, case.x, dtype)
        return len(case.x)

    hold(draws, BATCHES, check)


@every_dtype
@every_ball
@in_draws(1000)
def test_points_inside_are_not_touched(kind, dtype, draws):
    """Not by a bit, where they are inside by more than the rounding of a length."""

    def check(batch):
        case = Projected(kind, dtype, batch, bounded=True)
        low, high = draw.ends(case.ball.bounds, dtype)
        z = np.clip(case.z, low, high)
        length = reference.norm(kind, reference.flat(z) - reference.flat(case.x))
        sure = case.radius * (1 - reference.length_slack(kind, dtype))
        sure = sure - reference.norm(kind, reference.pixel_slack(case.x, z, dtype))
        inside = length <= sure
        z, out = reference.flat(z)[inside], reference.flat(case.project(z))[inside]
        z = np.where(np.abs(z) < draw.TINY[reference.wide(dtype)], 0, z)  # subnormal: may be 0
        out = np.where(np.abs(out) < draw.TINY[reference.wide(dtype)], 0, out)
        np.testing.assert_array_equal(out, z)
        return int(inside.sum())

    hold(draws, BATCHES, check)


@every_dtype
@every_ball
@in_draws(1000)
def test_twice_is_once(kind, dtype, draws):
    def check(batch):
        case = Projected(kind, dtype, batch, bounded=True)
        again = reference.flat(case.project(case.out)) - reference.flat(case.out)
        assert (reference.norm(kr.L2Ball, again) <= case.slack(case.out)).all()
        return len(case.x)

    hold(draws, BATCHES, check)


@every_dtype
@every_ball
@in_draws(1000)
def test_it_is_the_nearest_point(kind, dtype, draws):
    """Where the bounds do not bind: that of a solver of its own, so no point is nearer."""

    def check(batch):
        case = Projected(kind, dtype, batch, bounded=False)
        x, z, out = map(reference.flat, (case.x, case.z, case.out))
        expected = x + reference.nearest(kind, z - x, case.radius)
        off = reference.norm(kr.L2Ball, out - expected)
        assert (off <= case.slack(case.z)).all(), (off / case.slack(case.z)).max()
        return len(x)

    hold(draws, BATCHES, check)


@every_ball
@in_draws(4000)
def test_no_other_point_of_the_ball_is_nearer(kind, draws):
    """Straight from the definition, without any solver: against random points of the ball."""

    def check(batch):
        case = Projected(kind, tf.float64, batch, bounded=False)
        x, z, out = map(reference.flat, (case.x, case.z, case.out))
        distance = reference.norm(kr.L2Ball, z - out)
        for _ in range(8):
            other = batch.random.normal(size=x.shape) ** 3
            length = reference.norm(kind, other)[:, None] + (len(x) == 0)
            other = x + case.radius * other / length * batch.random.random((len(x), 1)) ** 0.1
            slack = case.slack(case.z) + 1e-15 * distance
            assert (distance <= reference.norm(kr.L2Ball, z - other) + slack).all()
        return len(x)

    hold(draws, BATCHES, check)
