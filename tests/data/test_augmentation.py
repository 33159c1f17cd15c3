"""Augmentation of known images by known seeds."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from keras_robust.data import (
    PadCropFlip,
    ShiftFlip,
    chain,
    pad_crop_flip,
    random_erasing,
    shift_flip,
)

IMAGE = np.random.RandomState(0).uniform(size=[6, 8, 3]).astype(np.float32)
SEEDS = [tf.constant([5, counter], tf.int64) for counter in range(60)]


def apply(augment, image=IMAGE):
    function = tf.function(augment)
    return [function(tf.constant(image), seed).numpy() for seed in SEEDS]


def draws(seed):
    """The two streams of a seed: one for the position, one for the flip."""
    position, coin = tf.unstack(tf.random.split(seed))
    return position, bool(tf.random.stateless_uniform([], coin) < 0.5)


@pytest.mark.parametrize(("mode", "numpy_mode"), [("zero", "constant"), ("reflect", "reflect")])
def test_pad_crop_flip_is_the_drawn_crop_of_the_padded_image(mode, numpy_mode):
    padded = np.pad(IMAGE, [(2, 2), (2, 2), (0, 0)], mode=numpy_mode)
    for seed, result in zip(SEEDS, apply(pad_crop_flip(2, mode)), strict=True):
        position, mirrored = draws(seed)
        top, left = tf.random.stateless_uniform([2], position, 0, 5, tf.int32).numpy()
        expected = padded[top : top + 6, left : left + 8]
        np.testing.assert_array_equal(result, expected[:, ::-1] if mirrored else expected)


def test_every_crop_and_no_other_occurs():
    """One bright pixel in the middle: its position identifies the crop, 3 x 3 with padding 1."""
    image = np.zeros([3, 3, 1], np.float32)
    image[1, 1] = 1
    places = {tuple(np.argwhere(x)[0][:2]) for x in apply(pad_crop_flip(1, flip=False), image)}
    assert places == {(row, column) for row in range(3) for column in range(3)}


def test_half_of_the_images_are_mirrored():
    results = apply(pad_crop_flip(0))
    mirrored = [np.array_equal(result, IMAGE[:, ::-1]) for result in results]
    same = [np.array_equal(result, IMAGE) for result in results]
    assert 20 <= sum(mirrored) <= 40 and sum(mirrored) + sum(same) == len(SEEDS)


@pytest.mark.parametrize("augment", [pad_crop_flip(0, flip=False), shift_flip(0.0, flip=False)])
def test_no_padding_shift_or_flip_changes_nothing(augment):
    for result in apply(augment):
        np.testing.assert_array_equal(result, IMAGE)


def test_shift_flip_is_scipys_linear_shift_with_the_nearest_border():
    for seed, result in zip(SEEDS, apply(shift_flip(0.3)), strict=True):
        position, mirrored = draws(seed)
        offsets = tf.random.stateless_uniform([2], position, -0.3, 0.3).numpy() * [6, 8]
        expected = scipy.ndimage.shift(IMAGE, [*offsets, 0], order=1, mode="nearest")
        expected = expected[:, ::-1] if mirrored else expected
        np.testing.assert_allclose(result, expected, atol=1e-6)
        assert IMAGE.min() <= result.min() and result.max() <= IMAGE.max()


def test_shifts_reach_both_ways_and_no_further():
    """On the ramp x the inner pixels become x - offset, which shows the offset."""
    ramp = np.tile(np.arange(10, dtype=np.float32)[:, None, None] / 16, [1, 10, 1])
    offsets = np.array([(ramp - x)[5, 5, 0] * 16 for x in apply(shift_flip(flip=False), ramp)])
    assert -1 <= offsets.min() < -0.8 and 0.8 < offsets.max() <= 1


@pytest.mark.parametrize("augment", [pad_crop_flip(), shift_flip()])
def test_same_seed_same_image_eager_or_compiled(augment):
    compiled = apply(augment)
    for seed, result in zip(SEEDS[:5], compiled, strict=False):
        np.testing.assert_array_equal(augment(tf.constant(IMAGE), seed).numpy(), result)
    assert len({result.tobytes() for result in compiled}) > 20


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: pad_crop_flip(-1), "padding is -1; expected an integer >= 0"),
        (lambda: pad_crop_flip(1.5), "padding is 1.5"),
        (lambda: pad_crop_flip(True), "padding is True"),
        (lambda: pad_crop_flip(mode="edge"), "mode is 'edge'; expected one of 'zero', 'reflect'"),
        (
            lambda: shift_flip(1.0),
            r"fraction is 1.0; expected a number in \[0, 1\) of the image's size",
        ),
        (lambda: shift_flip(-0.1), "fraction is -0.1"),
        (
            lambda: pad_crop_flip(6, "reflect")(tf.constant(IMAGE), SEEDS[0]),
            "expected padding <= 5",
        ),
    ],
)
def test_invalid_settings(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_numbers_of_numpy_are_numbers():
    assert pad_crop_flip(np.int64(0), flip=False)(tf.constant(IMAGE), SEEDS[0]).shape == IMAGE.shape
    assert shift_flip(np.float32(0.5)).fraction == 0.5
    with pytest.raises(ValueError, match="padding is np.int64"):
        pad_crop_flip(np.int64(-1))


def test_factories_make_serializable_objects():
    assert pad_crop_flip(2, "reflect", False) == PadCropFlip(2, "reflect", False)
    augment = shift_flip(0.2, flip=False)
    assert ShiftFlip.from_config(augment.get_config()) == augment == ShiftFlip(0.2, False)


def erased(image):
    """Which pixels of a black image were filled, `[h, w]`."""
    return (image != 0).any(axis=-1)


def test_what_is_erased_is_one_rectangle_of_its_area_and_ratio():
    """Of 0.1 to 0.3 of 40 x 30 pixels, at ratios of 1/2 to 2; sides are rounded."""
    image = np.zeros([40, 30, 2], np.float32)
    ratios = []
    for result in apply(random_erasing(1.0, 0.1, 0.3, 0.5), image):
        mask = erased(result)
        rows, columns = np.where(mask.any(axis=1))[0], np.where(mask.any(axis=0))[0]
        height, width = len(rows), len(columns)
        assert mask.sum() == height * width  # all of the rectangle
        assert rows[-1] - rows[0] + 1 == height and columns[-1] - columns[0] + 1 == width
        for side, other in ((height, width), (width, height)):
            assert (side - 0.5) * (other - 0.5) <= 0.3 * 1200 and (side - 0.5) / (other + 0.5) <= 2
        assert (height + 0.5) * (width + 0.5) >= 0.1 * 1200
        ratios.append(np.log(height / width))
        assert result.min() >= 0 and result.max() < 1
    assert abs(np.mean(ratios)) < 3 * np.log(2) * 2 / np.sqrt(12 * len(SEEDS)) + 0.05


def test_places_reach_every_border():
    masks = [
        erased(x) for x in apply(random_erasing(1.0, 0.2, 0.3), np.zeros([6, 8, 1], "float32"))
    ]
    union = np.any(masks, axis=0)
    borders = (union[0], union[-1], union[:, 0], union[:, -1])
    assert all(border.any() for border in borders) and not np.all(masks, axis=0).any()


@pytest.mark.parametrize(
    ("probability", "least", "most"), [(0.0, 0, 0), (0.5, 18, 42), (1.0, 60, 60)]
)
def test_a_fraction_of_the_images_is_erased(probability, least, most):
    changed = [np.any(x != IMAGE) for x in apply(random_erasing(probability))]
    assert least <= sum(changed) <= most


def test_a_chain_applies_each_with_a_seed_of_its_own():
    first, second = pad_crop_flip(2), random_erasing(1.0)
    for seed, result in zip(SEEDS[:5], apply(chain(first, second)), strict=False):
        one, two = tf.unstack(tf.random.split(seed))
        np.testing.assert_array_equal(result, second(first(tf.constant(IMAGE), one), two))


def test_what_they_refuse():
    for options, text in [
        ({"probability": 1.5}, "probability is 1.5"),
        ({"least": 0.0}, "least is 0.0; .*a fraction of the image's area"),
        ({"least": 0.5, "most": 0.4}, "most is 0.4"),
        ({"aspect": 1.0}, "aspect is 1.0"),
    ]:
        with pytest.raises(ValueError, match=text):
            random_erasing(**options)
    for nothing in ((), (None,)):
        with pytest.raises(ValueError, match="chain received .*expected functions"):
            chain(*nothing)
