"""Resumable streams, epochs that differ, evaluation batches in order."""

from __future__ import annotations

import functools
import gc
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust.data import evaluation_batches, pad_crop_flip, training_epochs, training_stream
from keras_robust.data.shuffling import shuffled_rows

SIZE, BATCH = 23, 5  # 4 full batches in an epoch, 3 images left over
IMAGES = np.random.RandomState(0).randint(0, 256, [SIZE, 6, 6, 1]).astype(np.uint8)
LABELS = np.arange(SIZE)
AUGMENT = pad_crop_flip(2)


def stream(**settings):
    return training_stream(IMAGES, LABELS, BATCH, **settings)


def epochs(**settings):
    return training_epochs(IMAGES, LABELS, BATCH, **settings)


def order(dataset):
    return [y.tolist() for _, y in dataset.as_numpy_iterator()]


@functools.cache
def rows(step, seed):
    return shuffled_rows(step, BATCH, SIZE, seed).numpy().tolist()


def formula(first, last, seed=0):
    return [rows(step, seed) for step in range(first, last)]


class Recorder(keras.Model):
    """Trains nothing; keeps the labels of every batch that `fit` brings."""

    def __init__(self, build=True):
        super().__init__()
        self.seen = []
        if build:
            self.build((None, 6, 6, 1))

    def call(self, x):
        return x

    def train_step(self, data):
        tf.py_function(lambda y: self.seen.append(y.numpy().tolist()), [data[1]], [])
        return {"seen": tf.size(data[1])}


def recorder(**settings):
    model = Recorder(**settings)
    model.compile(optimizer="sgd")
    return model


@pytest.mark.parametrize("seed", [0, 3])
def test_the_stream_is_the_formula(seed):
    assert order(stream(epochs=3, seed=seed)) == formula(0, 12, seed)


@functools.cache
def three_epochs(augment):
    return list(stream(epochs=3, augment=augment).as_numpy_iterator())


@pytest.mark.parametrize(
    ("augment", "start"),
    [*((None, start) for start in (1, 4, 7, 12)), (AUGMENT, 1), (AUGMENT, 7)],
)
def test_a_stream_that_starts_later_is_the_tail_bit_for_bit(start, augment):
    whole = three_epochs(augment)
    tail = list(stream(epochs=3, augment=augment, start_step=start).as_numpy_iterator())
    assert len(tail) == 12 - start
    for (x, y), (x_whole, y_whole) in zip(tail, whole[start:], strict=True):
        np.testing.assert_array_equal(x, x_whole)
        np.testing.assert_array_equal(y, y_whole)


def test_the_endless_stream_continues_where_the_finite_one_ends():
    assert order(stream().take(14)) == formula(0, 14)
    assert order(stream(start_step=10**9).take(2)) == formula(10**9, 10**9 + 2)
    assert stream().cardinality() == tf.data.INFINITE_CARDINALITY


def test_augmentation_is_the_same_in_every_run_and_differs_between_epochs_and_seeds():
    def images(epochs, **settings):
        dataset = stream(epochs=epochs, augment=AUGMENT, **settings)
        return np.stack([x for x, _ in dataset.as_numpy_iterator()])

    first = np.stack([x for x, _ in three_epochs(AUGMENT)])
    np.testing.assert_array_equal(images(3), first)  # though parallel calls end in any order
    assert not np.array_equal(images(1, seed=1), first[:4])
    versions = {}
    for x, y in three_epochs(AUGMENT):
        for image, label in zip(x, y, strict=True):
            versions.setdefault(int(label), []).append(image.tobytes())
    # An image comes at most once an epoch; 2 of 50 augmentations of it are rarely the same.
    assert all(len(set(seen)) > 1 for seen in versions.values() if len(seen) == 3)


def test_training_batches_have_full_static_shapes():
    for dataset in (stream(), epochs(), stream(augment=pad_crop_flip(2))):
        x, y = dataset.element_spec
        assert x == tf.TensorSpec([5, 6, 6, 1], tf.float32) and y == tf.TensorSpec([5], tf.int32)


@pytest.mark.slow
def test_each_pass_over_the_epochs_is_the_next_epoch_of_the_stream():
    train = epochs()
    gc.collect()  # the count of passes has to survive its maker
    assert len(train) == 4
    for epoch in range(3):
        assert order(train) == formula(4 * epoch, 4 * epoch + 4)
    assert order(epochs()) == formula(0, 4)


def test_an_incomplete_pass_does_not_count():
    train = epochs()
    for _ in range(3):
        iter(train)
        next(iter(train))
        assert order(train.take(3)) == formula(0, 3)
    assert order(train) == formula(0, 4)
    assert order(train.take(2)) == formula(4, 6)


def test_fit_brings_another_epoch_each_time_as_the_stream_does():
    model = recorder()
    history = model.fit(epochs(), epochs=3, verbose=0, shuffle=False)
    assert model.seen == formula(0, 12)
    assert history.params["steps"] == 4
    streamed = recorder()
    streamed.fit(stream(), epochs=3, steps_per_epoch=4, verbose=0, shuffle=False)
    assert streamed.seen == model.seen


def test_a_second_fit_continues_with_the_next_epoch():
    model, train = recorder(), epochs()
    model.fit(train, epochs=1, verbose=0, shuffle=False)
    model.fit(train, epochs=2, initial_epoch=1, verbose=0, shuffle=False)
    assert model.seen == formula(0, 8)


def test_a_resumed_fit_sees_what_the_uninterrupted_one_saw():
    """Interrupted after 6 of 12 steps: the rest of epoch 1, then epoch 2."""
    model = recorder()
    resumed = stream(start_step=6)
    model.fit(resumed, epochs=1, steps_per_epoch=2, verbose=0, shuffle=False)
    model.fit(stream(start_step=8), epochs=1, steps_per_epoch=4, verbose=0, shuffle=False)
    assert model.seen == formula(6, 12)


def test_the_batch_that_keras_takes_to_build_under_a_strategy_does_not_count():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        model = recorder()
        train = epochs()
    model.fit(train, epochs=2, verbose=0, shuffle=False)
    assert model.seen == formula(0, 8)


def test_evaluation_keeps_the_order_and_the_last_small_batch():
    dataset = evaluation_batches(IMAGES, LABELS, 10)
    batches = list(dataset.as_numpy_iterator())
    assert len(dataset) == 3 and [len(y) for _, y in batches] == [10, 10, 3]
    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    np.testing.assert_array_equal(y, LABELS)
    np.testing.assert_array_equal(x, IMAGES.astype(np.float32) / np.float32(255))
    assert order(dataset) == order(dataset)


@pytest.mark.parametrize("dataset", [stream(), epochs(), evaluation_batches(IMAGES, LABELS, BATCH)])
def test_options(dataset):
    options = dataset.options()
    assert options.deterministic and not options.autotune.enabled
    policy = options.experimental_distribute.auto_shard_policy
    assert policy == tf.data.experimental.AutoShardPolicy.DATA


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"start_step": -1}, "start_step is -1; expected an integer >= 0"),
        ({"epochs": 0}, "epochs is 0; expected an integer >= 1"),
        ({"epochs": 2, "start_step": 9}, "start_step is 9; expected at most 8, the steps of"),
    ],
)
def test_invalid_steps(settings, text):
    with pytest.raises(ValueError, match=text):
        stream(**settings)


def test_numbers_of_numpy_are_numbers():
    settings = {"seed": np.int64(0), "start_step": np.int32(3), "epochs": np.int64(1)}
    dataset = training_stream(IMAGES, LABELS, np.int64(5), **settings)
    assert order(dataset) == formula(3, 4)
    assert len(evaluation_batches(IMAGES, LABELS, np.int32(10))) == 3
    assert len(training_epochs(IMAGES, LABELS, np.int64(5), seed=np.int64(1))) == 4


def test_a_stream_may_start_at_its_end():
    assert order(stream(epochs=2, start_step=8)) == []


def test_two_readers_at_once_see_the_same_epoch():
    train = epochs()
    pairs = itertools.zip_longest(train.as_numpy_iterator(), train.as_numpy_iterator())
    assert all(a[1].tolist() == b[1].tolist() for a, b in pairs)


def test_evaluation_batches_of_size_zero():
    with pytest.raises(ValueError, match="batch_size is 0; expected an integer >= 1"):
        evaluation_batches(IMAGES, LABELS, 0)
