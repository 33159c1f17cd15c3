"""A union of balls: its geometry is that of the ball that allows most."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

WIDE = (-100.0, 100.0)  # bounds that never bind
LINF, L2 = kr.LinfBall(1.0, WIDE), kr.L2Ball(2.0, WIDE)
BALL = kr.UnionBall((LINF, L2))
# Of nine pixels: all at 1 are at Linf radius 1 and L2 length 3; one at 2 is at L2 length 2.
FLAT, SPIKE = np.ones([1, 9]), 2.0 * np.eye(9)[:1]
ZERO = tf.zeros([1, 9], tf.float64)
SEED = tf.constant([3, 5])


def test_a_perturbation_is_inside_if_one_ball_allows_it():
    """Distances in radii: flat 1 and 3/2, the spike 2 and 1; the smaller one counts."""
    delta = tf.constant(np.concatenate([FLAT, SPIKE, FLAT + SPIKE]))
    distances = BALL.distances(delta, tf.zeros_like(delta))
    np.testing.assert_allclose(distances, [[1, 2, 3], [1.5, 1, np.sqrt(8 + 9) / 2]])
    np.testing.assert_allclose(
        BALL.distance(delta, tf.zeros_like(delta)), [1, 1, np.sqrt(8 + 9) / 2]
    )


def test_the_closest_projection_is_taken():
    """3 * SPIKE = 6 is 4 from the L2 ball and 5 from the Linf ball; 2 * FLAT is 3 from Linf, 4 from
    L2. A point inside of either stays."""
    for point, expected in ((3 * SPIKE, SPIKE), (2 * FLAT, FLAT), (SPIKE, SPIKE), (FLAT, FLAT)):
        np.testing.assert_allclose(BALL.project(tf.constant(point), ZERO), expected)


def test_the_steepest_direction_gains_most():
    """`g . d` is `|g|_1` in Linf and `2 |g|_2` in L2: 9 > 6 for a flat gradient, 1 < 2 for one
    pixel. The larger one is the dual norm."""
    for gradient, direction, gain in ((FLAT, FLAT, 9.0), (SPIKE / 2, SPIKE, 2.0)):
        np.testing.assert_allclose(BALL.steepest(tf.constant(gradient)), direction)
        np.testing.assert_allclose(BALL.dual_norm(tf.constant(gradient)), [gain])
    assert not np.any(BALL.steepest(ZERO))


def test_a_hyperplane_is_reached_by_the_ball_in_which_it_is_nearer():
    """`9 + sum d = 0`: 9 pixels by 1 are one radius of Linf; `1 + d_0 = 0` is half a radius of
    L2 and a whole one of Linf."""
    for normal, value in ((FLAT, 9.0), (SPIKE / 2, 1.0)):
        away = tf.constant([value], tf.float64)
        step = BALL.project_onto_hyperplane(ZERO, tf.constant(normal), away)
        np.testing.assert_allclose(np.sum(normal * step), -value)
        expected = value / BALL.dual_norm(tf.constant(normal))
        np.testing.assert_allclose(BALL.distance(step, ZERO), expected)


def test_random_points_are_of_every_ball():
    x = tf.zeros([400, 9], tf.float64)
    for points in (BALL.sample(x, SEED), BALL.sample_sphere(x, SEED)):
        linf, l2 = BALL.distances(points, x).numpy()
        assert np.minimum(linf, l2).max() <= 1 + 1e-9
        outside_l2, outside_linf = np.mean(l2 > 1), np.mean(linf > 1)
        assert 0.05 < outside_l2 < 0.6 and 0 < outside_linf < 0.6


def test_the_radius_multiplies_all_radii():
    half = BALL.replace(radius=0.5)
    assert [ball.radius for ball in half.scaled] == [0.5, 1.0]
    np.testing.assert_allclose(half.project(tf.constant(3 * SPIKE), ZERO), SPIKE / 2)
    assert BALL.scaled == BALL.balls and BALL.bounds == WIDE
    assert BALL.replace(bounds=(0.0, 2.0)).bounds == (0.0, 2.0)
    pixels = kr.UnionBall((kr.LinfBall(0.25), kr.L2Ball(1.0)), radius=20.0)
    assert [ball.radius for ball in pixels.scaled] == [1.0, 20.0]  # a pixel has no more room


def test_a_mask_is_that_of_all_balls():
    mask = [1.0] + [0.0] * 8
    ball = kr.UnionBall((kr.LinfBall(1.0, WIDE, mask=mask), kr.L2Ball(2.0, WIDE, mask=mask)))
    assert ball.mask == ball.balls[0].mask
    np.testing.assert_allclose(ball.project(tf.constant(5 * FLAT), ZERO), SPIKE)


def test_a_config_holds_it():
    stored = keras.saving.serialize_keras_object(BALL)
    assert keras.saving.deserialize_keras_object(stored) == BALL
    assert isinstance(BALL, kr.types.Ball)


@pytest.mark.parametrize(
    ("balls", "message"),
    [
        ((LINF,), "expected at least two"),
        (LINF, "expected at least two"),
        ((LINF, kr.L2Ball(1.0)), "different bounds"),
        ((LINF, kr.L2Ball(1.0, WIDE, mask=[1.0, 0.0])), "different mask"),
        ((LINF, kr.L2Ball(0.0, WIDE)), "radius of a ball is 0.0; expected a finite number > 0"),
        ((LINF, BALL), "is a union itself"),
    ],
)
def test_what_is_no_union(balls, message):
    with pytest.raises(ValueError, match=message):
        kr.UnionBall(balls)


def test_what_is_no_ball():
    with pytest.raises(TypeError, match="expected a threat model"):
        kr.UnionBall((LINF, 0.5))
