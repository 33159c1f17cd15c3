"""Masked balls against formulas, and against plain balls of the pixels that may change."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.threat_models.masks import Mask, mask_of, pixels_of, without_masked
from keras_robust.threat_models.trust_region import closest_step_on_hyperplane

WIDE = (-100.0, 100.0)  # bounds that never bind
SEED = tf.constant([3, 5])
KINDS = [kr.LinfBall, kr.L2Ball, kr.L1Ball]
SHAPE = (4, 5, 2)
PART = np.zeros(SHAPE)
PART[1:3, 2:] = 1
FREE = np.flatnonzero(PART)

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def points(seed, count=3, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=(count, *SHAPE))


def free(x):
    """The pixels that may change, `[batch, 12]`."""
    return tf.constant(np.asarray(x).reshape(len(x), -1)[:, FREE])


def rest(x):
    return np.where(PART, 0, x)


# A ball with a mask of 0 and 1 is the ball of the pixels that may change.


@every_kind
@pytest.mark.parametrize("bounds", [WIDE, (0.0, 1.0)])
def test_it_is_the_ball_of_the_pixels_that_may_change(kind, bounds):
    plain, masked = kind(0.4, bounds), kind(0.4, bounds, mask=PART)
    x = tf.constant(np.clip(0.5 + points(0, scale=0.3), 0, 1))
    gradient = tf.constant(points(1))
    moved = masked.project(x + gradient, x)
    np.testing.assert_allclose(free(moved), plain.project(free(x + gradient), free(x)), rtol=1e-12)
    np.testing.assert_array_equal(rest(moved), rest(x))
    np.testing.assert_allclose(masked.distance(moved, x), plain.distance(free(moved), free(x)))
    steepest = masked.steepest(gradient)
    np.testing.assert_allclose(free(steepest), plain.steepest(free(gradient)), rtol=1e-12)
    assert not rest(steepest).any()
    np.testing.assert_allclose(masked.dual_norm(gradient), plain.dual_norm(free(gradient)))
    value = tf.constant([0.1, -0.2, 5.0], tf.float64)
    step = masked.project_onto_hyperplane(x, gradient, value)
    expected = plain.project_onto_hyperplane(free(x), free(gradient), value)
    np.testing.assert_allclose(free(step), expected, rtol=1e-9)
    assert not rest(step).any()


@every_kind
def test_a_mask_of_ones_changes_no_bit(kind):
    plain, masked = kind(0.4), kind(0.4, mask=np.ones([1, 1, 1]))
    x = tf.constant(np.clip(0.5 + points(0, scale=0.3), 0, 1), tf.float32)
    other = x + tf.constant(points(1), tf.float32)
    for method, args in {
        "project": (other, x),
        "sample": (x, SEED),
        "sample_sphere": (x, SEED),
        "steepest": (other,),
        "distance": (other, x),
        "dual_norm": (other,),
        "project_onto_hyperplane": (x, other, tf.constant([0.1, -0.2, 5.0])),
    }.items():
        found, expected = (getattr(ball, method)(*args) for ball in (masked, plain))
        np.testing.assert_array_equal(found, expected, err_msg=method)


@every_kind
def test_random_points(kind):
    """In the ball, and those of `sample_sphere` at the radius, with other pixels unchanged."""
    ball, x = kind(0.9, WIDE, mask=PART), tf.constant(points(0, 20))
    inside, on_sphere = ball.sample(x, SEED), ball.sample_sphere(x, SEED)
    for drawn in (inside, on_sphere):
        np.testing.assert_array_equal(rest(drawn), rest(x))
        assert np.all(np.any(free(drawn - x), axis=1))
    assert ball.distance(inside, x).numpy().max() <= 0.9 * (1 + 1e-12)
    np.testing.assert_allclose(ball.distance(on_sphere, x), 0.9, rtol=1e-9)


def test_the_sphere_of_one_pixel_is_reached_in_l1():
    """Noise as wide as the bounds seldom is as large as the radius, in a single pixel."""
    ball = kr.L1Ball(50.0, (-60.0, 60.0), mask=np.eye(4)[0])
    x = tf.zeros([50, 4], tf.float64)
    np.testing.assert_allclose(ball.distance(ball.sample_sphere(x, SEED), x), 50.0)


@pytest.mark.parametrize("kind", [kr.L1Ball, kr.L2Ball])
def test_lengths_of_uniform_points(kind):
    """Of d pixels that may change, P(length <= t r) = t^d; here d = 3 of 6, within 4 deviations."""
    ball = kind(3.0, WIDE, mask=[[1], [0], [1]] * np.array([[1, 1]]) * [[1, 1], [1, 1], [1, 0]])
    x = tf.zeros([20000, 3, 2], tf.float64)
    lengths = ball.distance(ball.sample(x, SEED), x).numpy()
    for fraction in (0.5, 0.8):
        deviation = math.sqrt(fraction**3 * (1 - fraction**3) / len(lengths))
        assert abs((lengths <= 3 * fraction).mean() - fraction**3) < 4 * deviation


@every_kind
def test_a_change_of_another_pixel_is_infinitely_far(kind):
    ball, x = kind(0.4, mask=PART), np.full((3, *SHAPE), 0.5)
    moved = x.copy()
    moved[1, 0, 0, 0] += 1e-9
    moved[2, 2, 3, 1] += 0.125
    np.testing.assert_allclose(ball.distance(moved, x), [0, math.inf, 0.125])
    moved[0, 0, 0, 0] = math.nan
    assert not ball.distance(moved, x)[0] <= 1e30


# Fractions of the radius, in Linf.


def test_fractions_by_hand():
    """Radius 0.4 with fractions 1, 0.5, 0: limits 0.4, 0.2, 0."""
    ball, x = kr.LinfBall(0.4, mask=[1, 0.5, 0]), tf.fill([1, 3], 0.5)
    far = x + tf.constant([[-3.0, 2.0, 2.0]])
    np.testing.assert_allclose(ball.project(far, x), [[0.1, 0.7, 0.5]], rtol=1e-6)
    np.testing.assert_array_equal(ball.steepest(far - x), [[-1, 0.5, 0]])
    np.testing.assert_allclose(
        ball.distance(x + tf.constant([[0.1, 0.1, 0.0]]), x), [0.2], rtol=1e-6
    )
    np.testing.assert_allclose(ball.dual_norm(tf.constant([[-3.0, 2.0, 9.0]])), [4.0])


def test_a_hyperplane_by_fractions():
    """2 d_1 - d_2 = -0.75 with d = t (-1, 0.5): t = 0.3, the value over the dual norm of 2.5."""
    ball = kr.LinfBall(1.0, mask=[1, 0.5, 0])
    x, normal = tf.fill([1, 3], 0.5), tf.constant([[2.0, -1.0, 7.0]])
    step = ball.project_onto_hyperplane(x, normal, tf.constant([0.75]))
    np.testing.assert_allclose(step, [[-0.3, 0.15, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(ball.distance(x + step, x), [0.3], rtol=1e-6)
    # Out of reach: every pixel that may change moves to its end.
    step = ball.project_onto_hyperplane(x, normal, tf.constant([9.0]))
    np.testing.assert_allclose(step, [[-0.5, 0.5, 0.0]])


def test_a_step_in_a_trust_region_by_fractions():
    """With d_1 = 0 the distance stays 0.4 in the first pixel, so 0.2 will do in the second."""
    ball = kr.LinfBall(1.0, mask=[1, 0.5])
    x, clean = tf.constant([[0.5, 0.5]]), tf.constant([[0.9, 0.1]])
    normal, need = tf.constant([[1.0, 0.0]]), tf.zeros([1])
    step = closest_step_on_hyperplane(ball, x, clean, normal, need, 1.0)
    np.testing.assert_allclose(step, [[0.0, -0.2]], atol=1e-3)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64, tf.float16, tf.bfloat16])
def test_small_fractions_are_rounded_inward(dtype):
    """The rounding of a pixel, 6e-8, is a hundredth of a radius of 0.03 * 2e-4."""
    fractions = np.random.default_rng(0).choice([0, 2e-4, 1e-2, 1.0], size=SHAPE)
    ball = kr.LinfBall(8 / 255, mask=fractions)
    x = tf.cast(np.random.default_rng(1).uniform(size=(50, *SHAPE)), dtype)
    for moved in (ball.project(x + 1, x), ball.sample(x, SEED), ball.sample_sphere(x, SEED)):
        assert moved.dtype == dtype
        assert ball.distance(moved, x).numpy().max() <= 8 / 255 * (1 + 1e-6)


def test_every_pixel_of_a_ball_is_drawn_uniformly():
    """The standard deviation of U(-r f, r f) is r f / sqrt(3)."""
    ball = kr.LinfBall(0.3, WIDE, mask=[1, 0.5, 0])
    drawn = ball.sample(tf.zeros([20000, 3], tf.float64), SEED).numpy()
    np.testing.assert_allclose(drawn.std(axis=0) * 3**0.5, [0.3, 0.15, 0], rtol=0.02)


# An array of radii.


@every_kind
def test_an_array_of_radii_is_a_radius_and_a_mask(kind):
    radii = np.float32(0.3) * PART.astype("float32")
    for given in (radii, tf.constant(radii)):
        ball = kind(given)
        assert ball == kind(float(np.float32(0.3)), mask=PART)
        assert hash(ball) == hash(kind(ball.radius, mask=PART.astype(bool).tolist()))
    assert isinstance(ball.radius, float) and ball.replace(radius=0.1) == kind(0.1, mask=PART)


def test_radii_of_several_sizes():
    ball = kr.LinfBall(np.array([0.25, 0.5, 0.0]))
    assert ball == kr.LinfBall(0.5, mask=[0.5, 1, 0])
    x = tf.fill([1, 3], 0.5)
    np.testing.assert_allclose(ball.project(x + 1, x), [[0.75, 1.0, 0.5]], rtol=1e-6)


# Configs, equality, text.


@pytest.mark.parametrize(
    "values", [PART, PART / 4, PART * 0.1, np.float32(0.1) * PART, np.ones([7, 9, 1])]
)
def test_config_round_trip(values):
    ball = kr.LinfBall(0.3, (0, 2), mask=values)
    stored = json.loads(json.dumps(keras.saving.serialize_keras_object(ball)))
    loaded = keras.saving.deserialize_keras_object(stored)
    assert loaded == ball and hash(loaded) == hash(ball) and repr(loaded) == repr(ball)
    np.testing.assert_array_equal(loaded.mask, values)
    attack = kr.attacks.pgd(ball, 2)
    assert (
        keras.saving.deserialize_keras_object(
            json.loads(json.dumps(keras.saving.serialize_keras_object(attack)))
        )
        == attack
    )


@pytest.mark.parametrize(
    "change",
    [
        {"data": "AAAA"},
        {"data": "*"},
        {"shape": [10**6, 10**6]},
        {"shape": [4, 5, -2]},
        {"shape": []},
        {"dtype": "float32"},
    ],
)
def test_a_damaged_config_is_refused(change):
    with pytest.raises(ValueError):
        Mask.from_config({**Mask(PART).get_config(), **change})


def test_other_masks_are_other_balls():
    ball, other = kr.L2Ball(0.3, mask=PART), kr.L2Ball(0.3, mask=1 - PART)
    assert ball != other != kr.L2Ball(0.3) and repr(ball) != repr(other)
    assert kr.L2Ball(0.3, mask=np.ones([2, 1])) != kr.L2Ball(0.3, mask=np.ones([1, 2]))


def test_text_is_short():
    """In errors, reports and checkpoint names; a fingerprint tells masks of one size apart."""
    text = repr(kr.LinfBall(0.3, mask=PART))
    start = "LinfBall(radius=0.3, bounds=(0.0, 1.0), mask=Mask(4x5x2, 12 of 40 allowed, "
    assert text.startswith(start) and len(text) == len(start) + 14


@every_kind
def test_a_ball_without_a_mask_is_stored_as_before(kind):
    """Recipes, cards and digests of older releases stay the same."""
    assert "mask" not in kind(0.3).get_config() and "mask" not in repr(kind(0.3))
    assert kind.from_config(kind(0.3).get_config()).mask is None


def test_the_mask_is_a_copy_that_cannot_be_written():
    given = PART.copy()
    ball = kr.L2Ball(0.3, mask=given)
    given[:] = 1
    np.testing.assert_array_equal(ball.mask, PART)
    np.asarray(ball.mask)[:] = 1  # a copy as well
    np.testing.assert_array_equal(ball.mask, PART)


# Graphs.


@every_kind
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_in_a_graph_with_the_radius_as_a_tensor(kind, jit_compile):
    ball = kind(0.4, mask=PART)
    x, other = (tf.constant(points(seed, scale=0.3)) for seed in (0, 1))

    @tf.function(jit_compile=jit_compile)
    def projected(radius, other, x):
        return kr.replace(ball, radius=radius).project(other, x)

    for radius in (0.0, 0.2):
        found = projected(tf.constant(radius, tf.float64), other, x)
        np.testing.assert_allclose(found, ball.replace(radius=radius).project(other, x), rtol=1e-12)
    assert projected.experimental_get_tracing_count() == 1


@every_kind
def test_in_a_graph_that_knows_no_shape(kind):
    ball, x = kind(0.4, mask=PART), tf.constant(np.clip(0.5 + points(0, scale=0.3), 0, 1))
    unknown = tf.TensorSpec([None, None, None, 2], tf.float64)

    @tf.function(input_signature=[unknown, unknown])
    def all_of_them(other, x):
        return (
            ball.project(other, x),
            ball.steepest(other),
            ball.sample(x, SEED),
            pixels_of(ball, x),
        )

    other = x + points(1)
    found = all_of_them(other, x)
    for one, expected in zip(
        found, (ball.project(other, x), ball.steepest(other), ball.sample(x, SEED), 12), strict=True
    ):
        np.testing.assert_allclose(one, expected, rtol=1e-12)


# What is refused.


@every_kind
@pytest.mark.parametrize(
    ("mask", "error", "text"),
    [
        (np.zeros([2, 2]), ValueError, "mask is 0 everywhere"),
        (np.array([0, 255]), ValueError, r"from 0 to 255; expected \[0, 1\].* by 255"),
        (np.array([-1, 1]), ValueError, r"from -1 to 1; expected \[0, 1\]"),
        (np.array([math.nan, 1]), ValueError, r"from nan to nan; expected \[0, 1\]"),
        (1.0, TypeError, "mask is 1.0; expected an array of numbers"),
        ("patch.png", TypeError, "mask is 'patch.png'; expected an array"),
        ([[1, 0], [1]], TypeError, r"mask is \[\[1, 0\], \[1\]\]; expected an array"),
        (np.zeros([0, 3]), TypeError, r"an array of shape \(0, 3\); expected"),
        (
            np.array(["a", "b"]),
            TypeError,
            r"an array of shape \(2,\); expected an array of numbers",
        ),
    ],
)
def test_masks_are_refused(kind, mask, error, text):
    with pytest.raises(error, match=f"{kind.__name__}: .*{text}"):
        kind(0.1, mask=mask)


@pytest.mark.parametrize("kind", [kr.L2Ball, kr.L1Ball])
def test_fractions_are_defined_in_linf_only(kind):
    with pytest.raises(ValueError, match=r"mask has values between 0 and 1; expected 0 and 1 only"):
        kind(0.1, mask=[0.5, 1])
    with pytest.raises(ValueError, match=r"radius is an array of shape \(2,\) with several values"):
        kind(np.array([0.1, 0.2]))


@every_kind
@pytest.mark.parametrize(
    ("radius", "text"),
    [
        (np.zeros([28, 28, 1]), r"an array of zeros of shape \(28, 28, 1\)"),
        (-PART, r"an array of shape \(4, 5, 2\) with values from -1 to 0; expected"),
        (PART * math.nan, r"with values from nan to nan"),
        (np.where(PART, math.inf, 0), r"with values from 0 to inf"),
        (np.zeros([0]), r"an array of shape \(0,\) without known numbers"),
    ],
)
def test_arrays_of_radii_are_refused(kind, radius, text):
    with pytest.raises(ValueError, match=text) as caught:
        kind(radius)
    assert len(str(caught.value)) < 200


@every_kind
def test_an_array_and_a_mask_are_refused(kind):
    with pytest.raises(ValueError, match=r"there is a mask as well; expected a single number"):
        kind(0.1 * PART, mask=PART)
    for ball in (kind(0.1), kind(0.1, mask=PART)):
        with pytest.raises(ValueError, match=r"an array of shape \(4, 5, 2\); expected a single"):
            ball.replace(radius=0.1 * PART)
        with pytest.raises(ValueError, match=r"an array of shape \(4, 5, 2\); expected a single"):
            kr.attacks.pgd(ball).at_radius(0.1 * PART)


def test_a_symbolic_array_of_radii_is_refused():
    @tf.function
    def inside(radius):
        return kr.LinfBall(radius).project(radius[None], radius[None])

    with pytest.raises(ValueError, match=r"an array of shape \(3,\) without known numbers"):
        inside(tf.fill([3], 0.1))


def test_a_linf_radius_beyond_the_range_is_refused():
    with pytest.raises(ValueError, match=r"radius is 8, more than the range .*8 / 255, perhaps"):
        kr.LinfBall(8 * PART)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((4, 5), r"shape \(4, 5\), but an image has \(4, 5, 2\).* `mask\[..., None\]`"),
        (
            (4, 5, 3),
            r"shape \(4, 5, 3\), but an image has \(4, 5, 2\); expected that shape, with 1",
        ),
        ((3, 4, 5, 2), r"shape \(3, 4, 5, 2\).* one mask for all images"),
        ((5, 4, 2), r"shape \(5, 4, 2\), but"),
    ],
)
@every_kind
def test_a_mask_of_another_shape_is_refused(kind, shape, text):
    ball, x = kind(0.1, mask=np.ones(shape)), tf.constant(points(0))
    for use in (
        lambda: ball.project(x, x),
        lambda: ball.sample(x, SEED),
        lambda: ball.sample_sphere(x, SEED),
        lambda: ball.distance(x, x),
    ):
        with pytest.raises(ValueError, match=text):
            use()


def test_balls_without_a_mask_are_left_alone():
    class Other:
        mask = "mine"

    values = tf.ones([2, 3])
    assert mask_of(Other()) is None and without_masked(Other(), values) is values
