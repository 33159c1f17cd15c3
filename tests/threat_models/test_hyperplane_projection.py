"""Steps onto hyperplanes: by hand, and as the shortest there are."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

BALLS = {"linf": kr.LinfBall(0.1), "l2": kr.L2Ball(0.1), "l1": kr.L1Ball(0.1)}
every_ball = pytest.mark.parametrize("kind", BALLS)


def step(kind, x, normal, value):
    x, normal, value = (np.asarray(a, "float64") for a in (x, normal, value))
    return (
        BALLS[kind]
        .project_onto_hyperplane(tf.constant(x), tf.constant(normal), tf.constant(value))
        .numpy()
    )


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("linf", 2.0, [-0.2, -0.1, 0.2]),
        ("l2", 2.66, [-0.3, -0.1, 0.24]),
        ("l1", 2.9, [-0.5, 0.0, 0.1]),
    ],
)
def test_by_hand(kind, value, expected):
    """5 d_1 + 2 d_2 - 4 d_3 has to be minus the value; d_2 has room for 0.1, the others for 0.5.

    Linf: 9 t + 2 * 0.1 = 2. L2: 41 t + 2 * 0.1 = 2.66, so t = 0.06, where 2 t is more than 0.1.
    L1: 5 * 0.5 of the first, and 4 * 0.1 of the third. A value of the other sign turns the signs,
    and rooms with them: x is then reflected.
    """
    x, normal = np.array([0.5, 0.1, 0.5]), np.array([5.0, 2.0, -4.0])
    found = step(kind, [x, 1 - x], [normal, normal], [value, -value])
    np.testing.assert_allclose(found, [expected, np.negative(expected)], atol=1e-12)


@every_ball
def test_a_plane_out_of_reach(kind):
    """All pixels go as far as they can: to 0 or to 1, but for one that makes no difference."""
    found = step(kind, [[0.1, 0.9, 0.1, 0.3]], [[1.0, -1.0, 3.0, 0.0]], [7.0])
    np.testing.assert_allclose(found, [[-0.1, 0.1, -0.1, 0.0]], atol=1e-15)


@every_ball
def test_without_a_normal_or_a_distance_nothing_moves(kind):
    found = step(kind, np.full([2, 3], 0.5), [[0.0, 0.0, 0.0], [1.0, -2.0, 3.0]], [2.0, 0.0])
    np.testing.assert_array_equal(found, np.zeros([2, 3]))


@every_ball
def test_far_from_the_bounds_the_dual_norm_tells_the_distance(kind):
    """Linf: |v| / |w|_1; L2: |v| / |w|_2; L1: |v| / |w|_inf."""
    random = np.random.default_rng(0)
    normal, value = random.normal(size=(9, 5)), random.uniform(-0.1, 0.1, 9)
    order = {"linf": 1, "l2": 2, "l1": np.inf}[kind]
    expected = np.abs(value) / np.linalg.norm(normal, order, axis=1)
    found = step(kind, np.full([9, 5], 0.5), normal, value)
    np.testing.assert_allclose(BALLS[kind].distance(found, np.zeros_like(found)), expected)
    dual = BALLS[kind].dual_norm(tf.constant(normal))
    np.testing.assert_allclose(dual, np.linalg.norm(normal, order, axis=1))


@every_ball
def test_no_shorter_step_is_as_good(kind):
    """Any other step within the bounds that brings as much is at least as long."""
    random = np.random.default_rng(1)
    x, normal = random.random((1, 3)), random.normal(size=(1, 3))
    value = np.array([0.4])
    best = step(kind, x, normal, value)
    assert abs(value + normal[0] @ best[0]) < 1e-12
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 61)] * 3), -1).reshape(-1, 3) - x
    enough = grid[value + grid @ normal[0] <= 0]
    shortest = BALLS[kind].distance(enough, np.zeros_like(enough)).numpy().min()
    found = BALLS[kind].distance(best, np.zeros_like(best)).numpy()[0]
    assert found <= shortest <= found + 0.06


@every_ball
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_the_plane_does_not_matter(kind, scale):
    """Squares of 1e30 are infinite in float32, and those of 1e-30 are 0."""
    x = tf.constant([[0.5, 0.2, 0.9]])
    normal, value = tf.constant([[1.0, -2.0, 0.5]]), tf.constant([0.7])
    plain = BALLS[kind].project_onto_hyperplane(x, normal, value)
    scaled = BALLS[kind].project_onto_hyperplane(x, scale * normal, scale * value)
    np.testing.assert_allclose(scaled, plain, rtol=1e-5)


def test_images_of_any_shape_and_half_precision():
    """The step is that of the flat images, in float32."""
    x = np.random.default_rng(2).random((4, 2, 3, 1)).astype("float16")
    normal = np.random.default_rng(3).normal(size=x.shape).astype("float16")
    value = tf.constant([0.1, -0.2, 0.3, 0.0], tf.float16)
    for ball in BALLS.values():
        found = ball.project_onto_hyperplane(tf.constant(x), tf.constant(normal), value)
        flat = ball.project_onto_hyperplane(
            tf.constant(x.reshape(4, -1), tf.float32),
            tf.constant(normal.reshape(4, -1), tf.float32),
            tf.cast(value, tf.float32),
        )
        assert found.shape == x.shape and found.dtype == tf.float32
        np.testing.assert_array_equal(tf.reshape(found, [4, -1]), flat)
