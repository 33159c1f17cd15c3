"""Transformations of images at the ends of their strength, and their gradients."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.multi_task import transforms

every = pytest.mark.parametrize("transform", transforms.ALL, ids=lambda t: t.name)


def images(height=6, width=5, channels=2, dtype="float64", seed=0):
    return tf.constant(
        np.random.default_rng(seed).uniform(size=(3, height, width, channels)), dtype
    )


def apply(transform, x, p):
    return transform(x, p).numpy()


def test_the_seven_of_the_tables_in_their_order():
    names = "identity, horizontal flip, vertical flip, center crop, gamma, brightness, rotation"
    assert ", ".join(transform.name for transform in transforms.ALL) == names


@every
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_shape_dtype_and_range_are_kept(transform, dtype):
    x = images(dtype=dtype)
    for p in (0.0, 0.3, 1.0):
        found = transform(x, p)
        assert (found.shape, found.dtype) == (x.shape, x.dtype)
        assert found.numpy().min() >= 0 and found.numpy().max() <= 1
        exact = apply(transform, tf.cast(x, tf.float64), p)
        np.testing.assert_allclose(tf.cast(found, tf.float64), exact, atol=0.01)


@every
def test_a_compiled_one_takes_any_strength_and_size_without_a_new_trace(transform):
    signature = [tf.TensorSpec([None, None, None, 2]), tf.TensorSpec([])]
    compiled = tf.function(transform, input_signature=signature, autograph=False)
    for size, p in [((6, 5), 0.0), ((6, 5), 0.7), ((4, 9), 1.0)]:
        x = images(*size, dtype="float32")
        np.testing.assert_array_equal(compiled(x, p), transform(x, p))
    assert compiled.experimental_get_tracing_count() == 1


@every
@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_the_gradient_is_that_of_the_value(transform, p):
    """Along a direction d, the slope is (f(x + h d) - f(x - h d)) / 2h."""
    x = images() * 0.7 + 0.1  # nothing is clipped
    weights, along = images(seed=1), images(seed=2) - 0.5
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(weights * transform(x, p))
    slope = tf.reduce_sum(tape.gradient(total, x) * along)
    h = 1e-6
    far, near = (tf.reduce_sum(weights * transform(x + s * h * along, p)) for s in (1, -1))
    np.testing.assert_allclose(slope, (far - near) / (2 * h), rtol=1e-6)


@every
@pytest.mark.parametrize("value", [0.0, 1e-30, 1.0])
def test_the_gradient_is_finite_at_the_ends_of_the_range(transform, value):
    for p in (0.0, 1.0):
        x = tf.fill([1, 4, 4, 1], value)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(transform(x, p))
        assert np.isfinite(tape.gradient(total, x)).all()


@every
def test_it_is_saved_and_rebuilt(transform):
    config = keras.saving.serialize_keras_object(transform)
    assert keras.saving.deserialize_keras_object(config) == transform


@every
def test_other_shapes_and_dtypes_are_refused(transform):
    with pytest.raises(ValueError, match=r"float32 of shape \(4, 4\); expected floats \[batch, h"):
        transform(tf.zeros([4, 4]), 1.0)
    with pytest.raises(ValueError, match="Images are int32"):
        transform(tf.zeros([1, 4, 4, 1], tf.int32), 1.0)


@pytest.mark.parametrize("transform", transforms.ALL[1:], ids=lambda t: t.name)
def test_a_strength_outside_of_its_range_is_refused(transform):
    with pytest.raises(ValueError, match=r"strength p is 1.1; expected a number in \[0, 1\]"):
        transform(images(), 1.1)


@every
def test_the_neutral_strength_is_the_identity(transform):
    """No flip below 0.5; the whole image; the power 0.7 + 0.6 / 2 = 1; the factor 1; no angle."""
    rest = {"gamma": 0.5, "rotation": 0.5}.get(transform.name, 0.0)
    np.testing.assert_allclose(transform(images(), rest), images(), rtol=1e-12)


def test_flips():
    x = images().numpy()
    for p, flipped in [(0.49, False), (0.5, True), (1.0, True)]:
        right, down = (apply(transforms.ALL[n], x, p) for n in (1, 2))
        np.testing.assert_array_equal(right, x[:, :, ::-1] if flipped else x)
        np.testing.assert_array_equal(down, x[:, ::-1] if flipped else x)


@pytest.mark.parametrize(
    ("side", "p", "kept", "first"),
    [
        (32, 1.0, 19, 6),  # int(19.2); 13 / 2 = 6.5, of which the even neighbour is 6
        (28, 1.0, 16, 6),  # int(16.8)
        (10, 1.0, 6, 2),  # 6.0 exactly, which no rounding may make 5
        (10, 0.5, 8, 1),
        (9, 1.0, 5, 2),
        (1, 1.0, 1, 0),  # at least a pixel
    ],
)
def test_the_crop_is_that_of_a_cut_and_a_resize(side, p, kept, first):
    x = images(side, side, dtype="float32")
    cut = x[:, first : first + kept, first : first + kept]
    expected = tf.image.resize(cut, [side, side], "bilinear")
    np.testing.assert_allclose(apply(transforms.CenterCrop(), x, p), expected, atol=5e-6)


def test_the_crop_of_a_line():
    """Of 0, 1, 2, 3, 4 (fifths) three are kept, 1 to 3: pixels at (i + 0.5) 3 / 5 - 0.5 of them."""
    x = tf.range(5, dtype=tf.float64)[None, :, None, None] / 5
    at = np.clip((np.arange(5) + 0.5) * 3 / 5 - 0.5, 0, 2) + 1
    np.testing.assert_allclose(transforms.CenterCrop()(x, 1.0)[0, :, 0, 0], at / 5)


def test_gamma():
    x = images().numpy()
    for p, power in [(0.0, 0.7), (1.0, 1.3), (0.25, 0.85)]:
        np.testing.assert_allclose(transforms.Gamma()(x, p), x**power, rtol=1e-12)


def test_gamma_in_the_dark():
    """Up to 1e-4 a line through 0 that meets the power there: slope 1e-4 ** (0.7 - 1)."""
    x = tf.constant([0.0, 5e-5, 1e-4], tf.float64)[None, None, :, None]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = transforms.Gamma()(x, 0.0)
    slope = 1e-4**-0.3
    np.testing.assert_allclose(y.numpy().ravel(), [0.0, 5e-5 * slope, 1e-4**0.7], rtol=1e-12)
    np.testing.assert_allclose(tape.gradient(y, x).numpy().ravel()[:2], slope, rtol=1e-12)


def test_brightness():
    x = images().numpy()
    for p, factor in [(1.0, 1.3), (0.5, 1.15)]:
        np.testing.assert_allclose(
            transforms.Brightness()(x, p), np.minimum(x * factor, 1), rtol=1e-12
        )


@pytest.mark.parametrize("size", [(5, 5), (6, 6)])
def test_quarter_turns(size):
    x = images(*size).numpy()
    for p, quarters in [(1.0, 1), (0.0, -1)]:
        turned = np.rot90(x, quarters, axes=(1, 2))
        np.testing.assert_array_equal(transforms.Rotation(90)(x, p), turned)
    upside_down = x[:, ::-1, ::-1]
    np.testing.assert_array_equal(transforms.Rotation(180)(x, 1.0), upside_down)


def test_ten_degrees_pixel_by_pixel():
    """Where each pixel comes from, by complex numbers: turned back by 10 degrees about the middle.

    Rows grow downwards, so that counter-clockwise is a turn by -10 degrees of column + i row.
    """
    x = images(8, 7).numpy()
    found = apply(transforms.Rotation(), x, 1.0)
    outside = 0
    for row in range(8):
        for column in range(7):
            there = complex(column - 3, row - 3.5) * np.exp(1j * np.radians(10))
            i, j = round(there.imag + 3.5), round(there.real + 3)
            inside = 0 <= i < 8 and 0 <= j < 7
            outside += not inside
            expected = x[:, i, j] if inside else 0
            np.testing.assert_array_equal(found[:, row, column], np.broadcast_to(expected, (3, 2)))
    assert 0 < outside < 20


def test_each_takes_a_strength_called_p():
    for transform in transforms.ALL:
        assert list(inspect.signature(transform).parameters) == ["x", "p"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: transforms.CenterCrop(0.0), r"smallest is 0.0; expected a number in \(0, 1\]"),
        (lambda: transforms.CenterCrop(1.1), "smallest is 1.1"),
        (lambda: transforms.Gamma(low=0.0), "low is 0.0; expected a finite number > 0"),
        (lambda: transforms.Gamma(high=float("nan")), "high is nan"),
        (lambda: transforms.Brightness(-0.1), "high is -0.1; expected a finite number >= 0"),
        (lambda: transforms.Rotation(float("inf")), "degrees is inf; expected a finite number"),
    ],
)
def test_invalid_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("bounds", [(0.0, 255.0), (-1.0, 1.0)])
@pytest.mark.parametrize("transform", transforms.ALL, ids=lambda transform: transform.name)
def test_a_task_reads_the_bounds_of_the_ball(transform, bounds):
    """The transformed image is that of the image in [0, 1], in the units of the bounds."""
    low, high = bounds
    x = tf.random.stateless_uniform([2, 5, 5, 1], [1, 2])
    seen = []

    def forward(images):
        seen.append(images)
        return {"logits": tf.reshape(images, [len(images), -1])[:, :3]}

    task = kr.tasks.Transformations((transform,))
    problem = task.on(
        forward, kr.LinfBall(0.01, bounds), low + (high - low) * x, tf.zeros(2, tf.int32)
    )
    problem.logits((low + (high - low) * x)[None], tf.constant([1, 2]))
    expected = low + (high - low) * transform(x, 1.0)
    got = tf.reshape(seen[-1], x.shape)
    np.testing.assert_allclose(got, expected, atol=1e-5 * (high - low))
