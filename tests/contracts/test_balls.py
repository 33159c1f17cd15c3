"""What every ball promises; a new ball is a new row."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

BALLS = {
    "linf": kr.LinfBall(0.1),
    "linf, other bounds": kr.LinfBall(0.3, (-0.5, 1.5)),
    "l2": kr.L2Ball(0.7),
    "l2, other bounds": kr.L2Ball(0.7, (-0.5, 1.5)),
    "l1": kr.L1Ball(1.5),
    "l1, dense": kr.L1Ball(1.5, density=1.0),
    "l0": kr.L0Ball(3.0),
    "l0, per channel": kr.L0Ball(5.0, (-0.5, 1.5), per_channel=True),
    "patch": kr.threat_models.PatchBall(2.0),
}
SLOW = ("l0, per channel", "patch")
SHAPE = (6, 4, 4, 2)
DTYPES = [tf.float32, tf.float64]

every_ball = pytest.mark.parametrize(
    "ball",
    [pytest.param(b, id=n, marks=[pytest.mark.slow] * (n in SLOW)) for n, b in BALLS.items()],
)
NORMS = {name: ball for name, ball in BALLS.items() if ball.p}  # L0 is not homogeneous
every_norm = pytest.mark.parametrize("ball", NORMS.values(), ids=NORMS.keys())
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)


def center(ball, dtype=tf.float32):
    """Images over the whole range, with pixels on both of its ends."""
    low, high = ball.bounds
    values = np.random.default_rng(0).uniform(low, high, SHAPE)
    values[:, 0, 0], values[:, 1, 1] = low, high
    return tf.constant(values, dtype)


def strays(ball, x):
    """Points to bring back: near, far, beyond the bounds, on a single pixel, not moved at all."""
    random = np.random.default_rng(1)
    noise = tf.constant(random.normal(size=SHAPE), x.dtype)
    single = np.zeros(SHAPE)
    single[:, 2, 3, 1] = 1e6
    return {
        "inside": x + 1e-4 * noise,
        "outside": x + noise,
        "far": x + 1e8 * noise,
        "one pixel": x + tf.constant(single, x.dtype),
        "every pixel": x + 1e6,
        "clean": x,
        "low": tf.fill(SHAPE, tf.cast(ball.bounds[0] - 3, x.dtype)),
    }


def assert_inside(ball, x_adv, x):
    slack = 1 + 8 * np.finfo(x.dtype.as_numpy_dtype).eps * np.prod(SHAPE[1:])
    assert x_adv.dtype == x.dtype and x_adv.shape == x.shape
    assert np.isfinite(x_adv.numpy()).all()
    assert float(tf.reduce_max(ball.distance(x_adv, x))) <= ball.radius * slack
    low, high = (tf.cast(bound, x.dtype) for bound in ball.bounds)
    assert bool(tf.reduce_all((low <= x_adv) & (x_adv <= high)))


@every_dtype
@every_ball
def test_projection_ends_inside_and_stays(ball, dtype):
    x = center(ball, dtype)
    for name, point in strays(ball, x).items():
        once = ball.project(point, x)
        assert_inside(ball, once, x)
        tolerance = 30 * np.finfo(dtype.as_numpy_dtype).eps
        np.testing.assert_allclose(ball.project(once, x), once, atol=tolerance, err_msg=name)


@every_dtype
@every_ball
def test_points_inside_stay_where_they_are(ball, dtype):
    x = center(ball, dtype)
    inside = ball.sample(x, tf.constant([0, 1]))
    np.testing.assert_allclose(ball.project(inside, x), inside, rtol=1e-6)
    np.testing.assert_array_equal(ball.project(x, x), x)


@every_dtype
@every_ball
def test_samples_are_inside(ball, dtype):
    x = center(ball, dtype)
    for seed in range(5):
        assert_inside(ball, ball.sample(x, tf.constant([seed, 0])), x)


@every_ball
def test_points_of_the_sphere_are_at_the_radius(ball):
    """Away from the bounds; at the bounds clipping brings them closer."""
    unbounded, x = ball.replace(bounds=(-9.0, 9.0)), center(ball, tf.float64)
    for seed in range(3):
        points = unbounded.sample_sphere(x, tf.constant([seed, 0]))
        np.testing.assert_allclose(unbounded.distance(points, x), ball.radius, rtol=1e-6)
        assert_inside(ball, ball.sample_sphere(x, tf.constant([seed, 0])), x)


@every_norm
def test_p_is_the_order_of_the_norm(ball):
    x = np.random.default_rng(5).normal(size=SHAPE)
    flat = x.reshape(SHAPE[0], -1)
    dual = {1: np.inf, 2: 2, np.inf: 1}[ball.p]
    np.testing.assert_allclose(ball.distance(x, 0 * x), np.linalg.norm(flat, ball.p, axis=1))
    np.testing.assert_allclose(ball.dual_norm(x), np.linalg.norm(flat, dual, axis=1))


@every_norm
def test_steps_onto_a_hyperplane_are_as_long_as_the_dual_norm_says(ball):
    """Away from the bounds; `tests/threat_models/test_hyperplane_projection.py` has the rest."""
    unbounded, x = ball.replace(bounds=(-9.0, 9.0)), center(ball, tf.float64)
    normal = tf.constant(np.random.default_rng(6).normal(size=SHAPE))
    value = tf.constant(np.random.default_rng(7).normal(size=SHAPE[0]))
    step = unbounded.project_onto_hyperplane(x, normal, value)
    length = ball.distance(step, tf.zeros_like(step))
    np.testing.assert_allclose(length, tf.abs(value) / ball.dual_norm(normal))
    np.testing.assert_allclose(tf.reduce_sum(normal * step, [1, 2, 3]), -value)


@every_ball
def test_replace_changes_radius_or_bounds_alone(ball):
    assert isinstance(ball, kr.types.Ball)
    assert ball.replace() == ball
    other = ball.replace(radius=ball.radius / 2)
    assert (other.radius, other.bounds) == (ball.radius / 2, ball.bounds)
    assert other.replace(radius=ball.radius) == ball
    assert ball.replace(bounds=(-3.0, 3.0)) == kr.replace(ball, bounds=(-3.0, 3.0))


@every_ball
def test_radius_zero_is_identity(ball):
    point = kr.replace(ball, radius=0.0)
    x = center(ball)
    np.testing.assert_array_equal(point.sample(x, tf.constant([0, 0])), x)
    for stray in strays(ball, x).values():
        np.testing.assert_array_equal(point.project(stray, x), x)


@every_dtype
@every_ball
def test_steepest_has_unit_length(ball, dtype):
    unbounded = kr.replace(ball, bounds=(-9.0, 9.0))
    gradient = tf.constant(np.random.default_rng(2).normal(size=SHAPE), dtype)
    for scale in (1e-30, 1e-3, 1.0, 1e30):
        step = unbounded.steepest(scale * gradient)
        assert step.dtype == dtype and step.shape == SHAPE
        length = unbounded.distance(step, tf.zeros_like(step))
        np.testing.assert_allclose(length, 1, rtol=1e-5)


@every_ball
def test_no_unit_direction_is_steeper(ball):
    """No unit step gains more; a sparse L1 step, which trades gain for speed, is only uphill."""
    gradient = tf.constant(np.random.default_rng(2).normal(size=SHAPE), tf.float64)
    step = ball.steepest(gradient)
    gain = tf.reduce_sum(gradient * step, [1, 2, 3]).numpy()
    sparse = isinstance(ball, kr.L1Ball)
    size = np.sort(np.abs(gradient.numpy()).reshape(6, -1))[:, ::-1]
    count = int((step.numpy()[0] != 0).sum())
    best = {
        kr.LinfBall: size.sum(1),
        kr.L2Ball: np.sqrt((size**2).sum(1)),
        kr.L1Ball: size[:, :count].mean(1),
        kr.L0Ball: ball.dual_norm(gradient),
        kr.threat_models.PatchBall: ball.dual_norm(gradient),
    }[type(ball)]
    np.testing.assert_allclose(gain, best, rtol=1e-12)
    width = ball.bounds[1] - ball.bounds[0]
    unit = kr.replace(ball, radius=1.0, bounds=(-width, width))
    for seed in range(20 * (not sparse)):
        other = tf.constant(np.random.default_rng(seed).normal(size=SHAPE))
        other = unit.project(100 * other, tf.zeros_like(other))
        assert (tf.reduce_sum(gradient * other, [1, 2, 3]).numpy() <= gain).all()


@every_dtype
@every_ball
def test_no_gradient_no_step(ball, dtype):
    np.testing.assert_array_equal(ball.steepest(tf.zeros(SHAPE, dtype)), np.zeros(SHAPE))


@every_ball
def test_one_zero_gradient_leaves_the_others_alone(ball):
    gradient = np.random.default_rng(3).normal(size=SHAPE)
    gradient[2] = 0
    step = ball.steepest(tf.constant(gradient)).numpy()
    assert np.isfinite(step).all() and not step[2].any()
    rest = np.delete(gradient, 2, axis=0)
    np.testing.assert_array_equal(np.delete(step, 2, axis=0), ball.steepest(tf.constant(rest)))


@every_ball
def test_images_do_not_mix(ball):
    """A batch is projected and moved image by image."""
    x = center(ball)
    point = strays(ball, x)["outside"]
    for index in range(3):
        alone = slice(index, index + 1)
        np.testing.assert_allclose(
            ball.project(point, x)[alone], ball.project(point[alone], x[alone]), rtol=1e-6
        )
        np.testing.assert_allclose(
            ball.steepest(point)[alone], ball.steepest(point[alone]), rtol=1e-6
        )


@every_ball
def test_radius_may_be_a_tensor_in_a_graph(ball):
    x = center(ball)
    point = strays(ball, x)["outside"]

    @tf.function
    def both(radius):
        with_tensor = kr.replace(ball, radius=radius)
        return with_tensor.project(point, x), with_tensor.sample(x, tf.constant([0, 0]))

    for radius in (0.0, ball.radius / 2, ball.radius):
        expected = kr.replace(ball, radius=radius)
        projected, sampled = both(tf.constant(radius))
        np.testing.assert_allclose(projected, expected.project(point, x), atol=1e-6)
        np.testing.assert_allclose(sampled, expected.sample(x, tf.constant([0, 0])), atol=1e-6)
    assert both.experimental_get_tracing_count() == 1


@every_ball
def test_shapes_may_be_unknown_in_a_graph(ball):
    """As in a map over a data set whose images differ in size."""
    x = center(ball)
    point = strays(ball, x)["outside"]

    @tf.function(input_signature=[tf.TensorSpec([None] * 4), tf.TensorSpec([None] * 4)])
    def all_of_them(point, x):
        seed = tf.constant([0, 0])
        return ball.project(point, x), ball.steepest(point), ball.sample(x, seed)

    for known, unknown in zip(
        (ball.project(point, x), ball.steepest(point), ball.sample(x, tf.constant([0, 0]))),
        all_of_them(point, x),
        strict=True,
    ):
        np.testing.assert_allclose(unknown, known, atol=1e-6)


@every_ball
def test_an_empty_batch_is_no_error(ball):
    none = center(ball)[:0]
    assert ball.project(none, none).shape == ball.sample(none, tf.constant([0, 0])).shape
    assert ball.steepest(none).shape == none.shape
    assert ball.distance(none, none).shape == [0]


@every_ball
def test_config_round_trip(ball):
    assert type(ball).from_config(ball.get_config()) == ball
    stored = keras.saving.serialize_keras_object(ball)
    assert keras.saving.deserialize_keras_object(stored) == ball
