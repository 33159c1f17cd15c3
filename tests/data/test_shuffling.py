"""The order of training as a function of seed and step."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.data import pad_crop_flip
from keras_robust.data.shuffling import Batches, shuffled_rows

SIZE, BATCH = 23, 5  # 4 full batches in an epoch, 3 images left over
IMAGES = np.arange(SIZE * 16, dtype=np.uint64).reshape(SIZE, 4, 4, 1).astype(np.uint8)
LABELS = np.arange(SIZE)


def epoch_rows(epoch, seed=7):
    rows = [shuffled_rows(4 * epoch + step, BATCH, SIZE, seed).numpy() for step in range(4)]
    return np.concatenate(rows).tolist()


def test_rows_are_the_formula():
    """Image shuffle(shuffle(p, key1), key2) at position p, keys drawn from (seed, epoch)."""
    shuffle = tf.random.experimental.index_shuffle
    for step in range(12):
        epoch, first = step // 4, step % 4 * BATCH
        pair = tf.constant([7, epoch], tf.int64)
        key1, key2 = tf.unstack(
            tf.random.stateless_uniform([2, 2], pair, None, None, tf.int32, alg="philox")
        )
        expected = [
            int(shuffle(shuffle(p, key1, SIZE - 1), key2, SIZE - 1))
            for p in range(first, first + BATCH)
        ]
        assert shuffled_rows(step, BATCH, SIZE, seed=7).numpy().tolist() == expected


def test_the_order_does_not_change_with_the_release():
    """Fixed numbers: a run begun with one TensorFlow is resumed with the next."""
    first_rows = [848, 55025, 38184, 39883, 45714, 37721, 42084, 40821]
    assert shuffled_rows(0, 8, 60_000, 0).numpy().tolist() == first_rows
    far_rows = [51336, 46682, 43831, 36233]
    assert shuffled_rows(10**9, 4, 60_000, 2**40).numpy().tolist() == far_rows


def test_an_epoch_repeats_nothing_and_drops_other_images_each_time():
    left_over = []
    for epoch in range(5):
        rows = epoch_rows(epoch)
        assert len(set(rows)) == len(rows) == 20 and set(rows) < set(range(SIZE))
        left_over.append(frozenset(range(SIZE)) - set(rows))
    assert len(set(left_over)) > 1


def test_other_epoch_or_other_seed_other_order():
    """Also 256 apart, where a bare `index_shuffle` repeats itself."""
    pairs = [(e, seed) for e in (0, 1, 256, 512, 2**31) for seed in (0, 1, 256, -1, 2**40)]
    orders = {tuple(epoch_rows(epoch, seed)) for epoch, seed in pairs}
    assert len(orders) == len(pairs)


def test_over_many_epochs_every_image_takes_every_position():
    """1,000 epochs of one batch: 1000 / 10 = 100 expected in each of 10 x 10 cells.

    The chi-square statistic has 81 degrees of freedom (mean 81, standard deviation 12.7); with
    bare keys it is above 1,000.
    """
    rows = tf.data.Dataset.range(1000).map(lambda step: shuffled_rows(step, 10, 10, 0))
    counts = np.zeros([10, 10])
    for order in rows.as_numpy_iterator():
        counts[np.arange(10), order] += 1
    assert np.sum((counts - 100) ** 2 / 100) < 81 + 4 * 12.7


def test_one_batch_may_be_the_whole_set():
    assert sorted(shuffled_rows(3, SIZE, SIZE, 0).numpy()) == list(range(SIZE))


def test_a_batch_holds_the_rows_of_its_step():
    batches = Batches(IMAGES, LABELS, BATCH, seed=7)
    assert batches.steps_per_epoch == 4
    x, y = batches(9)
    rows = shuffled_rows(9, BATCH, SIZE, 7).numpy()
    assert x.dtype == tf.float32 and y.dtype == tf.int32
    np.testing.assert_array_equal(y, rows)
    np.testing.assert_array_equal(x, IMAGES[rows].astype(np.float32) / np.float32(255))


def test_augmentation_is_seeded_by_the_counter_of_samples():
    """Image i of step s has the seed (seed, s * batch_size + i)."""
    augment = pad_crop_flip(2)
    x, _ = Batches(IMAGES, LABELS, BATCH, 7, augment)(9)
    clean, _ = Batches(IMAGES, LABELS, BATCH, 7)(9)
    for i in range(BATCH):
        np.testing.assert_array_equal(
            x[i], augment(clean[i], tf.constant([7, 9 * BATCH + i], tf.int64))
        )


def test_a_function_augments_too():
    def dim(image, seed):
        return image * tf.cast(seed[1] - 45, tf.float32) / 10

    x, _ = Batches(np.full([SIZE, 4, 4, 1], 255, np.uint8), LABELS, BATCH, 7, dim)(9)
    np.testing.assert_allclose(x[:, 0, 0, 0], [0, 0.1, 0.2, 0.3, 0.4], rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected an integer >= 1"),
        ({"batch_size": 24}, "batch_size is 24; expected at most 23"),
        ({"seed": 0.5}, "seed is 0.5; expected an integer"),
        (
            {"augment": "flip"},
            r"augment is 'flip'; expected a function \(image, seed\) -> image, or None",
        ),
    ],
)
def test_invalid_settings(settings, text):
    with pytest.raises(ValueError, match=text):
        Batches(IMAGES, LABELS, **{"batch_size": BATCH, **settings})


@pytest.mark.parametrize(
    ("augment", "text"),
    [
        (
            lambda image, seed: image[1:],
            r"float32 of shape \(3, 4, 1\) for an image of float32 and shape \(4, 4, 1\)",
        ),
        (lambda image, seed: tf.cast(image, tf.float16), "returned float16 of shape"),
    ],
)
def test_augmentation_keeps_shape_and_dtype(augment, text):
    with pytest.raises(ValueError, match=text):
        Batches(IMAGES, LABELS, BATCH, 0, augment)(0)
