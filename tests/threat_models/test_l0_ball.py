"""The L0 ball: numbers by hand, and comparisons with all choices of pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.threat_models import l0_projection

SEED = tf.constant([3, 5])
SHAPE = (4, 2, 3, 2)  # 6 pixels of 2 channels


def arrays(seed, dtype="float64"):
    """Images in the range, some of their values on its ends, and points to bring back."""
    random = np.random.default_rng(seed)
    x = np.clip(random.uniform(-0.2, 1.2, SHAPE), 0, 1).astype(dtype)
    return x, (x + random.normal(size=SHAPE)).astype(dtype)


@pytest.mark.parametrize(("unit", "expected"), [(False, 3), (True, 5)])
def test_pixels_are_positions_or_values(unit, expected):
    """Of 2 x 3 positions with 2 channels three have changed, and in these five values."""
    x, delta = np.zeros(SHAPE), np.zeros(SHAPE)
    delta[:, 0, 0] = [0.5, -1e-30]
    delta[:, 0, 2] = [0.0, 1.0]
    delta[:, 1, 1] = [0.25, 0.25]
    ball = kr.L0Ball(3, per_channel=unit)
    np.testing.assert_array_equal(ball.distance(x + delta, x), [expected] * 4)


@pytest.mark.parametrize("shape", [(4, 12), (4, 3, 4)])
def test_in_other_ranks_each_value_is_a_pixel(shape):
    x = tf.zeros(shape)
    assert kr.L0Ball(99).distance(x + 1, x).numpy().tolist() == [12] * 4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("radius", [0, 1, 2, 5, 6, 100])
def test_projection_is_the_nearest_of_all_choices(radius, seed):
    """Every choice of pixels, clipped into the range: none is closer."""
    x, point = arrays(seed)
    moved = kr.L0Ball(radius).project(tf.constant(point), tf.constant(x)).numpy()
    assert ((moved != x).any(axis=3).sum(axis=(1, 2)) <= radius).all()
    flat, clean = (a.reshape(4, 6, 2) for a in (point, x))
    best = np.full(4, np.inf)
    for chosen in itertools.combinations(range(6), min(radius, 6)):
        kept = np.isin(np.arange(6), chosen)[None, :, None]
        other = np.where(kept, np.clip(flat, 0, 1), clean)
        best = np.minimum(best, ((flat - other) ** 2).sum(axis=(1, 2)))
    np.testing.assert_allclose(((point - moved) ** 2).sum(axis=(1, 2, 3)), best)


def test_projection_keeps_as_many_as_it_may_of_equal_ones():
    x = tf.zeros([2, 9])
    moved = kr.L0Ball(4).project(x + 0.5, x)
    assert (moved.numpy() > 0).sum(axis=1).tolist() == [4, 4]


def test_a_fraction_of_a_pixel_does_not_count():
    x = tf.zeros([1, 9])
    assert (kr.L0Ball(2.9).project(x + 0.5, x).numpy() > 0).sum() == 2
    assert kr.L0Ball(8).replace(radius=0.5).radius == 0
    with pytest.raises(ValueError, match=r"radius is 0.0314, less than one pixel; expected a nu"):
        kr.L0Ball(0.0314)


def test_counts_may_differ_from_image_to_image():
    """As minimum-norm attacks need it: each image has a number of pixels of its own."""
    delta = tf.constant(np.random.default_rng(0).normal(size=(3, 6, 2)))
    counts = tf.constant([0, 2, 6])
    moved = l0_projection.onto_ball_and_box(delta, counts, -9.0, 9.0)
    assert (moved.numpy() != 0).any(axis=2).sum(axis=1).tolist() == [0, 2, 6]
    np.testing.assert_array_equal(moved[2], delta[2])


@pytest.mark.parametrize("draw", ["sample", "sample_sphere"])
def test_samples_choose_every_pixel_alike(draw):
    """3 of 6 pixels: each in half of 4,000 images, within 5 standard errors."""
    x = tf.fill([4000, 2, 3, 2], 0.5)
    moved = getattr(kr.L0Ball(3), draw)(x, SEED).numpy()
    changed = (moved != 0.5).any(axis=3)
    assert (changed.sum(axis=(1, 2)) == 3).all()
    assert np.abs(changed.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(4000)
    values = moved[changed]
    assert abs(values.mean() - 0.5) < 5 * values.std() / np.sqrt(values.size)
    assert np.isin(values, (0, 1)).all() == (draw == "sample_sphere")


def test_the_steepest_direction_is_one_pixel_over_the_range():
    """The pixel (3, -2) has the largest sum, though another has the largest entry."""
    gradient = tf.constant([[[[0.0, 4.0], [3.0, -2.0], [1.0, 1.0]]]])
    ball = kr.L0Ball(1, bounds=(-1.0, 1.0))
    assert ball.steepest(gradient).numpy().tolist() == [[[[0, 0], [2, -2], [0, 0]]]]
    assert ball.dual_norm(gradient).numpy().tolist() == [10]
    values = kr.L0Ball(1, bounds=(-1.0, 1.0), per_channel=True)
    assert values.steepest(gradient).numpy().tolist() == [[[[0, 2], [0, 0], [0, 0]]]]


def test_a_step_onto_a_hyperplane_changes_as_few_pixels_as_can_be():
    """`0.5 + 2 d_1 - d_2 + d_3 = 0` from (0.1, 0.5, 0.4): downwards the first pixel covers 0.2,
    the second, upwards, 0.5: so it moves by all that is needed, 0.5, and is the only one.

    With a value of 0.65 it covers 0.5, and the third, which has 0.4, the rest.
    """
    x, normal = tf.constant([[0.1, 0.5, 0.4]] * 2), tf.constant([[2.0, -1.0, 1.0]] * 2)
    step = kr.L0Ball(1).project_onto_hyperplane(x, normal, tf.constant([0.5, 0.65]))
    np.testing.assert_allclose(step, [[0, 0.5, 0], [0, 0.5, -0.15]], atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_steps_onto_hyperplanes_against_all_choices(seed):
    """It reaches the plane, with as many pixels as the smallest set that can."""
    x, normal = arrays(seed)
    value = np.array([0.3, -1.0, 2.5, 99.0])
    ball = kr.L0Ball(1)
    step = ball.project_onto_hyperplane(*map(tf.constant, (x, normal, value))).numpy()
    assert (x + step >= -1e-12).all() and (x + step <= 1 + 1e-12).all()
    sign = -np.sign(value)[:, None, None, None] * np.sign(normal)
    room = np.where(sign > 0, 1 - x, x)
    covers = np.sort((room * np.abs(normal)).sum(axis=3).reshape(4, 6), axis=1)[:, ::-1]
    needed = (np.cumsum(covers, axis=1) < np.abs(value)[:, None]).sum(axis=1) + 1
    assert (ball.distance(x + step, x).numpy() == np.minimum(needed, 6)).all()
    left = (value + (normal * step).sum(axis=(1, 2, 3)))[:3]
    np.testing.assert_allclose(left, 0, atol=1e-12)


def test_a_mask_is_respected():
    """Only the second channel of the first row may change."""
    mask = np.zeros((2, 3, 2))
    mask[0, :, 1] = 1
    ball = kr.L0Ball(2, mask=mask)
    x, point = map(tf.constant, arrays(0))
    for moved in (
        ball.project(point, x),
        ball.sample(x, SEED),
        ball.sample_sphere(x, SEED),
        x + ball.steepest(point),
        x + ball.project_onto_hyperplane(x, point, tf.ones([4], tf.float64)),
    ):
        changed = (moved != x).numpy()
        assert changed.any(axis=(1, 2, 3)).all() and not (changed & (mask == 0)).any()
    assert np.isinf(ball.distance(point, x)).all()
    assert (ball.distance(ball.sample(x, SEED), x).numpy() == 2).all()


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision(dtype):
    x, point = (tf.constant(a, dtype) for a in arrays(0))
    moved = kr.L0Ball(3).project(point, x)
    assert moved.dtype == dtype
    assert (kr.L0Ball(3).distance(moved, x).numpy() == 3).all()
    assert kr.L0Ball(3).steepest(point).dtype == dtype


@pytest.mark.slow
def test_xla_gives_the_results_of_the_graph():
    x, point = map(tf.constant, arrays(0))

    def results(point, x, radius):
        ball = kr.replace(kr.L0Ball(2), radius=radius)
        return ball.project(point, x), ball.steepest(point)

    radius = tf.constant(3.0)
    for jit, plain in zip(
        tf.function(results, jit_compile=True)(point, x, radius),
        results(point, x, radius),
        strict=True,
    ):
        np.testing.assert_allclose(jit, plain)
