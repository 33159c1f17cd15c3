"""Projections, uniform points, steepest directions against formulas and optimality conditions."""

from __future__ import annotations

import itertools
import math

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

WIDE = (-100.0, 100.0)  # bounds that never bind
SEED = tf.constant([3, 5])


def project(ball, point, center):
    return ball.project(tf.constant(point), tf.constant(center)).numpy()


def draw(ball, count, pixels, dtype=tf.float64):
    """Points drawn around zero, `[count, pixels]`."""
    return ball.sample(tf.zeros([count, pixels], dtype), SEED).numpy()


def near(value, expected, deviation):
    """Within 4 standard errors; the seed is fixed, so the answer does not change."""
    assert abs(value - expected) < 4 * deviation, (value, expected, deviation)


# Projections by hand.


def test_linf_projection():
    """Clip to x +- 0.25, then to [0, 1]; around 0.9 the far ends are 0.65 and 1."""
    ball = kr.LinfBall(0.25)
    center = np.array([[0.5, 0.5], [0.9, 0.9]])
    moved = project(ball, np.array([[0.9, 0.6], [-1.0, 2.0]]), center)
    np.testing.assert_allclose(moved, [[0.75, 0.6], [0.65, 1.0]], rtol=1e-15)


def test_l2_projection():
    """(3, 4) has length 5: onto radius 2 it is (6/5, 8/5); (0.3, 0.4), of length 0.5, stays."""
    ball = kr.L2Ball(2.0, WIDE)
    moved = project(ball, np.array([[3.0, 4.0], [0.3, 0.4]]), np.zeros([2, 2]))
    np.testing.assert_allclose(moved, [[1.2, 1.6], [0.3, 0.4]], rtol=1e-14)


def test_l2_projection_clips_after_scaling():
    """Around (0.9, 0.5), (3, 4) scaled to length 1 is (0.6, 0.8): (1.5, 1.3), clipped to (1, 1)."""
    moved = project(kr.L2Ball(1.0), np.array([[3.9, 4.5]]), np.array([[0.9, 0.5]]))
    np.testing.assert_allclose(moved, [[1.0, 1.0]], rtol=1e-15)


def test_l1_projection():
    """Soft thresholds t with sum max(|z| - t, 0) = 1.

    (2, 1.5): both stay, 3.5 - 2 t = 1, t = 1.25, (0.75, 0.25).
    (-3, 0.5): only the first, 3 - t = 1, t = 2, (-1, 0).
    (0.25, -0.5): inside already.
    """
    points = np.array([[2.0, 1.5], [-3.0, 0.5], [0.25, -0.5]])
    moved = project(kr.L1Ball(1.0, WIDE), points, np.zeros([3, 2]))
    np.testing.assert_allclose(moved, [[0.75, 0.25], [-1.0, 0.0], [0.25, -0.5]], atol=1e-15)


def test_projection_of_images_keeps_their_shape():
    center = np.full([2, 3, 4, 5], 0.5)
    point = center + np.random.default_rng(0).normal(size=center.shape)
    for ball in (kr.LinfBall(0.1), kr.L2Ball(0.1), kr.L1Ball(0.1)):
        flat = project(ball, point.reshape(2, -1), center.reshape(2, -1))
        np.testing.assert_array_equal(project(ball, point, center).reshape(2, -1), flat)


# Projections against what defines them: `p` is the nearest point of a convex set exactly where
# (z - p) . (q - p) <= 0 for every q of it, and the corners of the ball are enough.

CORNERS = {
    kr.LinfBall: np.array(list(itertools.product([-1.0, 1.0], repeat=4))),
    kr.L1Ball: np.concatenate([np.eye(4), -np.eye(4)]),
    kr.L2Ball: (lambda z: z / np.linalg.norm(z, axis=1, keepdims=True))(
        np.random.default_rng(0).normal(size=[500, 4])
    ),
}
pixels = arrays.arrays(
    np.float64, (1, 4), elements=st.floats(-5, 5, allow_nan=False, allow_subnormal=False)
)
radii = st.floats(0, 6)


@pytest.mark.parametrize("kind", CORNERS, ids=lambda kind: kind.__name__)
@hypothesis.given(point=pixels, radius=radii)
def test_projection_is_the_nearest_point(kind, point, radius):
    ball = kind(radius, WIDE)
    nearest = project(ball, point, np.zeros_like(point))
    assert ball.distance(nearest, np.zeros_like(point)).numpy()[0] <= radius * (1 + 1e-12)
    against = (point - nearest) @ (radius * CORNERS[kind] - nearest).T
    assert against.max() <= 1e-9


@pytest.mark.parametrize("kind", CORNERS, ids=lambda kind: kind.__name__)
@hypothesis.given(first=pixels, second=pixels, center=pixels, radius=radii)
def test_projection_brings_no_two_points_apart(kind, first, second, center, radius):
    """A projection onto a convex set expands no distance, and neither does clipping after it."""
    center = np.clip(center, 0, 1)
    ball = kind(min(radius, 1) if kind is kr.LinfBall else radius)  # a pixel's range is 1
    a, b = (project(ball, point, center) for point in (first, second))
    assert np.linalg.norm(a - b) <= np.linalg.norm(first - second) + 1e-12


# Sizes at the ends of the floats.


@pytest.mark.parametrize("kind", CORNERS, ids=lambda kind: kind.__name__)
def test_points_inside_come_back_as_they_are(kind):
    """Not as x + (x_adv - x): 0.1 + (0.3 - 0.1) is another float32 than 0.3."""
    moved = project(kind(1.0), np.float32([[0.3, 0.7]]), np.float32([[0.1, 0.9]]))
    np.testing.assert_array_equal(moved, np.float32([[0.3, 0.7]]))


@pytest.mark.parametrize("kind", CORNERS, ids=lambda kind: kind.__name__)
def test_points_from_very_far_end_on_the_sphere(kind):
    """The squares of 1e30 are infinite in float32, and 1e30 - 1 is 1e30."""
    moved = project(kind(1.0, WIDE), np.float32([[1e30, 0.0]]), np.float32([[0.0, 0.0]]))
    np.testing.assert_array_equal(moved, [[1, 0]])


def test_l2_projection_of_the_very_short():
    """1e-13 is inside 5e-13 and stays; 1e-25, whose square is 0 in float32, is outside 1e-30."""
    for point, radius in ((1e-13, 5e-13), (1e-25, 1e-30)):
        moved = project(kr.L2Ball(radius), np.float32([[point, 0.0]]), np.zeros([1, 2], "float32"))
        np.testing.assert_allclose(moved, [[min(point, radius), 0]], rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
@pytest.mark.parametrize("kind", CORNERS, ids=lambda kind: kind.__name__)
def test_half_precision(kind, dtype):
    """Radius 0 divides no zeros, and sums of 4096 squares and sizes are made in float32."""
    center = tf.zeros([1, 4096], dtype)
    np.testing.assert_array_equal(kind(0.0).project(center + 1, center), center)
    length = {kr.LinfBall: 1, kr.L2Ball: 64, kr.L1Ball: 4096}[kind]
    moved = kind(length / 4, WIDE).project(center + 1, center)
    np.testing.assert_array_equal(tf.cast(moved, tf.float32), tf.fill([1, 4096], 0.25))
    assert float(kind(1.0).distance(center + 1, center)[0]) == length
    for radius in (0.5, 1e30):
        drawn = kr.replace(kind(0.5), radius=tf.constant(radius)).sample(center, SEED)
        assert drawn.dtype == dtype and np.isfinite(tf.cast(drawn, tf.float32)).all()


@pytest.mark.parametrize("kind", CORNERS, ids=lambda kind: kind.__name__)
def test_bounds_beyond_the_largest_number(kind):
    """65535 is infinite in float16, where 65504 is the largest number."""
    ball = kr.replace(kind(0.0, (0, 65535)), radius=tf.constant(1e6))
    moved = ball.project(tf.fill([1, 2], tf.float16.max), tf.fill([1, 2], tf.float16.max))
    np.testing.assert_array_equal(moved, [[65504, 65504]])


# Uniform points.


def test_linf_sample_is_uniform():
    """A coordinate of U(-r, r) has mean 0 and variance r^2 / 3."""
    points = draw(kr.LinfBall(2.0, WIDE), 20000, 2)
    assert np.abs(points).max() <= 2
    near(points.mean(), 0, 2 / math.sqrt(3 * points.size))
    near((points**2).mean(), 4 / 3, math.sqrt(16 / 5 - 16 / 9) / math.sqrt(points.size))
    near((points[:, 0] * points[:, 1]).mean(), 0, 4 / 3 / math.sqrt(len(points)))


@pytest.mark.parametrize("kind", [kr.L1Ball, kr.L2Ball])
@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_lengths_of_uniform_points(kind, dimension):
    """The volume of a ball of radius t r is t^d of the whole, so P(length <= t r) = t^d."""
    ball = kind(3.0, WIDE)
    points = draw(ball, 20000, dimension)
    lengths = ball.distance(points, np.zeros_like(points)).numpy()
    assert lengths.max() <= 3 * (1 + 1e-12)
    for fraction in (0.3, 0.7, 0.9):
        expected = fraction**dimension
        deviation = math.sqrt(expected * (1 - expected) / len(points))
        near((lengths <= fraction * 3).mean(), expected, deviation)


def test_l2_sample_has_no_favourite_direction():
    """For a uniform point of a ball in d dimensions, E[x x'] = r^2 / (d + 2) I; here 4 / 5 I."""
    points = draw(kr.L2Ball(2.0, WIDE), 40000, 3)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=4 * math.sqrt(0.8 / 40000))
    np.testing.assert_allclose(points.T @ points / 40000, 0.8 * np.eye(3), atol=0.02)


def test_l1_sample_is_symmetric_and_spreads_like_a_simplex():
    """The sizes are d of the d + 1 coordinates of a simplex: mean r / (d + 1), square mean
    2 r^2 / ((d + 1)(d + 2)); with d = 3 and r = 2: 1/2 and 2/5. Signs are fair coins."""
    points = draw(kr.L1Ball(2.0, WIDE), 40000, 3)
    np.testing.assert_allclose(np.abs(points).mean(axis=0), 0.5, atol=0.01)
    np.testing.assert_allclose(points.T @ points / 40000, 0.4 * np.eye(3), atol=0.015)
    np.testing.assert_allclose((points > 0).mean(axis=0), 0.5, atol=0.01)


@pytest.mark.parametrize("ball", [kr.LinfBall(0.5), kr.L2Ball(0.5), kr.L1Ball(0.5)])
def test_samples_are_clipped_into_the_bounds(ball):
    """Around black, a fair half of the pixels would be negative: they become 0."""
    points = draw(ball, 4000, 4)
    assert points.min() == 0
    near((points == 0).mean(), 0.5, 0.5 / math.sqrt(points.size))


@pytest.mark.parametrize("ball", [kr.LinfBall(0.5), kr.L2Ball(0.5), kr.L1Ball(0.5)])
def test_samples_follow_the_seed(ball):
    center = tf.fill([4, 3], 0.5)
    first = ball.sample(center, SEED).numpy()
    np.testing.assert_array_equal(first, ball.sample(center, SEED))
    assert not np.allclose(first, ball.sample(center, SEED + 1))
    assert len(np.unique(first.round(6), axis=0)) == 4  # every image has noise of its own


# Steepest directions and distances.


def test_steepest_by_hand():
    gradient = tf.constant([[3.0, -4.0, 0.0, 0.0]])
    np.testing.assert_array_equal(kr.LinfBall(1.0).steepest(gradient), [[1, -1, 0, 0]])
    np.testing.assert_allclose(kr.L2Ball(1.0).steepest(gradient), [[0.6, -0.8, 0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(kr.L1Ball(1.0, density=0.25).steepest(gradient), [[0, -1, 0, 0]])
    np.testing.assert_array_equal(
        kr.L1Ball(1.0, density=0.5).steepest(gradient), [[0.5, -0.5, 0, 0]]
    )


def test_steepest_l1_moves_its_fraction_of_the_pixels():
    """ceil(0.05 * 30) = 2 pixels, ceil(0.34 * 30) = 11, all 30; never fewer than one."""
    gradient = tf.constant(np.random.default_rng(0).normal(size=[1, 30]))
    for density, count in ((0.05, 2), (0.34, 11), (1.0, 30), (1e-9, 1)):
        step = kr.L1Ball(1.0, density=density).steepest(gradient).numpy()
        assert (step != 0).sum() == count
        largest = np.argsort(-np.abs(gradient.numpy()))[0, :count]
        np.testing.assert_array_equal(np.sort(np.nonzero(step)[1]), np.sort(largest))
        np.testing.assert_allclose(np.abs(step[step != 0]), 1 / count)


def test_steepest_l1_takes_ties_together():
    np.testing.assert_allclose(
        kr.L1Ball(1.0, density=0.25).steepest(tf.constant([[2.0, -2.0, 1.0, 0.0]])),
        [[0.5, -0.5, 0, 0]],
    )


@pytest.mark.parametrize("tiny", [1e-30, 1e-37])
def test_steepest_l2_of_tiny_gradients(tiny):
    """Their squares underflow in float32, yet (3, 4) tiny still points to (0.6, 0.8)."""
    direction = kr.L2Ball(1.0).steepest(tf.constant([[3 * tiny, 4 * tiny]]))
    np.testing.assert_allclose(direction, [[0.6, 0.8]], rtol=1e-5)


def test_distances_by_hand():
    moved, clean = tf.constant([[0.5, 0.0], [1.0, 1.0]]), tf.constant([[0.2, 0.4], [1.0, 1.0]])
    np.testing.assert_allclose(kr.LinfBall(1.0).distance(moved, clean), [0.4, 0.0], rtol=1e-6)
    np.testing.assert_allclose(kr.L2Ball(1.0).distance(moved, clean), [0.5, 0.0], rtol=1e-6)
    np.testing.assert_allclose(kr.L1Ball(1.0).distance(moved, clean), [0.7, 0.0], rtol=1e-6)


# What is refused.


@pytest.mark.parametrize("kind", [kr.LinfBall, kr.L2Ball, kr.L1Ball])
@pytest.mark.parametrize(
    ("radius", "error"),
    [
        (-0.1, ValueError),
        (math.inf, ValueError),
        (math.nan, ValueError),
        (True, ValueError),
        (np.float32(-1), ValueError),
        (None, TypeError),
        ("0.1", TypeError),
        ([0.1], TypeError),
        (np.array(-0.1), ValueError),
        (np.array([0.1, -0.2]), ValueError),
        (tf.constant(-0.1), ValueError),
        (tf.constant(math.nan), ValueError),
        (tf.constant([0.1, math.nan]), ValueError),
    ],
)
def test_radius_is_refused(kind, radius, error):
    with pytest.raises(error, match=rf"{kind.__name__}: radius is .*expected a .*number"):
        kind(radius)


@pytest.mark.parametrize("kind", [kr.LinfBall, kr.L2Ball, kr.L1Ball])
@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.0, 0.0), (0.0, math.nan), (0.0,), None, 1.0])
def test_bounds_are_refused(kind, bounds):
    with pytest.raises(ValueError, match=rf"{kind.__name__}: bounds are .*low < high"):
        kind(0.1, bounds)


@pytest.mark.parametrize("density", [0, -0.1, 1.1, math.nan])
def test_density_is_refused(density):
    with pytest.raises(ValueError, match=r"L1Ball: density is .*\(0, 1\]"):
        kr.L1Ball(0.1, density=density)


@pytest.mark.parametrize("radius", [0, 0.0, 1, np.float32(0.5), np.float64(0.5)])
def test_numbers_that_are_radii(radius):
    center = tf.fill([1, 3], 0.5)
    assert float(kr.LinfBall(radius).project(center + 5, center)[0, 0]) == min(0.5 + radius, 1)


def test_a_radius_in_grey_levels_is_refused():
    """8 instead of 8 / 255; a radius of the whole range is allowed, to see accuracy fall to 0."""
    with pytest.raises(ValueError, match=r"radius is 8, more than the range .*8 / 255, perhaps"):
        kr.LinfBall(8)
    assert kr.LinfBall(1.0).radius == 1.0
    assert kr.LinfBall(8, bounds=(0.0, 255.0)).radius == 8
