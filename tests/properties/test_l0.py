"""The L0 ball: results inside, points inside untouched, and the nearest point, on random batches.

L0 is not a norm, so that it is not a row of the other properties.
"""

from __future__ import annotations

import itertools

import numpy as np
import property_attacks as attacks
import property_draws as draw
import property_reference as reference
import pytest
import tensorflow as tf
from property_draws import BATCHES, hold, in_draws

import keras_robust as kr

every_dtype = pytest.mark.parametrize("dtype", draw.DTYPES, ids=lambda dtype: dtype.name)


class Case:
    """Images, points and a ball of a batch; pixels are the first two axes of three."""

    def __init__(self, batch, dtype):
        random = batch.random
        bounds = draw.BOUNDS[random.integers(len(draw.BOUNDS))]
        shape = draw.SHAPES[random.integers(len(draw.SHAPES))]
        x = draw.images(random, batch.count, shape, bounds, dtype)
        z = draw.points(random, x, batch.radius * (bounds[1] - bounds[0]), dtype)
        self.values = shape[-1] if len(shape) == 3 else 1
        self.count = int(random.integers(0, draw.PIXELS + 1))
        radius = tf.constant(self.count + random.random() * 0.9, reference.wide(dtype))
        self.ball = kr.replace(kr.L0Ball(1, bounds), radius=radius)
        self.x, self.z = tf.constant(x, dtype), tf.constant(z, dtype)
        self.low, self.high = draw.ends(bounds, dtype)

    def changed(self, x_adv):
        """How many pixels differ, in NumPy; subnormal numbers count as 0."""
        tiny = draw.TINY[reference.wide(self.x.dtype)]
        after, before = (draw.exact(a.numpy()) for a in (x_adv, self.x))
        differs = np.where(np.abs(after) < tiny, 0, after) != np.where(
            np.abs(before) < tiny, 0, before
        )
        pixels = draw.PIXELS // self.values
        return differs.reshape(len(differs), pixels, self.values).any(axis=2).sum(axis=1)

    def assert_inside(self, x_adv):
        assert x_adv.dtype == self.x.dtype and x_adv.shape == self.x.shape
        values = draw.exact(x_adv.numpy())
        assert np.isfinite(values).all()
        assert (values >= self.low).all() and (values <= self.high).all()
        assert (self.changed(x_adv) <= self.count).all()


@every_dtype
@in_draws(1000)
def test_results_are_inside(dtype, draws):
    def check(batch):
        case = Case(batch, dtype)
        seed = tf.constant([batch.seed, 7], tf.int64)
        moved = case.ball.project(case.z, case.x)
        sampled = case.ball.sample(case.x, seed)
        for x_adv in (moved, sampled, case.ball.sample_sphere(case.x, seed)):
            case.assert_inside(x_adv)
        distance = case.ball.distance(moved, case.x).numpy()
        np.testing.assert_array_equal(case.ball.project(moved, case.x), moved)
        return len(distance)

    hold(draws, BATCHES, check)


@every_dtype
@in_draws(500)
def test_no_other_choice_of_pixels_is_nearer(dtype, draws):
    """Against all choices, each clipped into the bounds; with the rounding of the dtype."""

    def check(batch):
        case = Case(batch, dtype)
        moved = reference.flat(case.ball.project(case.z, case.x).numpy())
        x, z = reference.flat(case.x.numpy()), reference.flat(case.z.numpy())
        scale = np.abs(z - x).max(axis=1, keepdims=True, initial=0)
        scale = np.where(scale > 0, scale, 1)
        pixels = draw.PIXELS // case.values
        inside, best = np.clip(z, case.low, case.high), np.full(len(x), np.inf)
        if pixels > 6:  # too many choices: one pixel is one value, and the largest gains are best
            gain = ((z - x) / scale) ** 2 - ((z - inside) / scale) ** 2
            cut = -np.sort(-gain, axis=1)
            best = (((z - x) / scale) ** 2).sum(axis=1) - cut[:, : case.count].sum(axis=1)
        else:
            for chosen in itertools.combinations(range(pixels), min(case.count, pixels)):
                kept = np.repeat(np.isin(np.arange(pixels), chosen), case.values)
                other = np.where(kept, inside, x)
                best = np.minimum(best, (((z - other) / scale) ** 2).sum(axis=1))
        found = (((z - moved) / scale) ** 2).sum(axis=1)
        eps = float(np.finfo(reference.wide(dtype).as_numpy_dtype).eps)
        rounding = draw.PIXELS * 2.0 ** -draw.DIGITS[dtype] * np.abs(moved / scale).max(initial=0)
        assert (found <= best + 1e3 * eps + 4 * rounding).all()
        return len(x)

    hold(draws, BATCHES, check)


@every_dtype
@in_draws(500)
def test_the_steepest_direction_is_one_pixel_and_gains_the_dual_norm(dtype, draws):
    def check(batch):
        random = batch.random
        gradient = draw.gradients(random, batch.count, (2, 3, 2), dtype)
        ball = kr.L0Ball(1, (-1.0, 1.0))
        step = draw.exact(ball.steepest(tf.constant(gradient, dtype)).numpy())
        pixels = np.abs(gradient).sum(axis=3).reshape(len(gradient), 6)
        moves = pixels.max(axis=1, initial=0) > 0
        assert ((step != 0).any(axis=3).sum(axis=(1, 2)) == moves).all()
        gain = (gradient * step).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(gain, 2 * pixels.max(axis=1, initial=0), rtol=1e-5)
        return len(gradient)

    hold(draws, BATCHES, check)


IN_L0_ALONE = [name for name, row in attacks.TABLE.items() if row.norms == ("l0",)]


@pytest.mark.parametrize("name", IN_L0_ALONE)
@in_draws(400)
def test_attacks_stay_inside_whatever_the_model(name, draws):
    """Huge, tiny, constant, saturated logits; NaN gradients; any number of pixels."""
    row, shape, dtype = attacks.TABLE[name], (2, 3, 2), tf.float32
    model = attacks.Classifier((0.0, 1.0), dtype)
    compiled = row.build(kr.L0Ball(3)).compiled(model)

    def check(batch):
        random = batch.random
        model.change(random)
        x = tf.constant(draw.images(random, draw.ROWS, shape, (0.0, 1.0), dtype), dtype)
        y = random.integers(0, attacks.CLASSES, draw.ROWS)
        extra = {"targets": (y + 1) % attacks.CLASSES} if row.targeted else {}
        radius = int(random.integers(0, 8))
        x_adv = compiled(x, y, batch.seed, radius, **extra)
        values = draw.exact(x_adv.numpy())
        assert np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all()
        assert (kr.L0Ball(1).distance(x_adv, x).numpy() <= radius).all()
        return len(values)

    hold(draws, BATCHES, check)
