"""tf.data pipelines over images in memory; `shuffling` defines the order of training."""

from __future__ import annotations

import os

import tensorflow as tf

from keras_robust.core.types import Images, Labels
from keras_robust.core.validation import check_integer
from keras_robust.data.augmentation import Augmentation
from keras_robust.data.extra import ExtraImages
from keras_robust.data.in_memory import as_tensors, to_unit
from keras_robust.data.shuffling import Batches

# Automatic tuning is off (see `_with_options`), so the parallelism is explicit.
_PARALLEL_CALLS = min(8, os.cpu_count() or 1)
_PREFETCHED_BATCHES = 2


def training_stream(
    images: Images,
    labels: Labels,
    batch_size: int,
    *,
    seed: int = 0,
    start_step: int = 0,
    epochs: int | None = None,
    augment: Augmentation | None = None,
    extra: ExtraImages | None = None,
) -> tf.data.Dataset:
    """The batches of a training run, from any step on.

    Every batch is a function of `seed` and of its global step, augmentation included (`shuffling`
    has the formula). So a stream that starts at step `s` equals, bit for bit, a stream from step 0
    without its first `s` batches, and a run that stopped after `s` steps resumes with
    `start_step=s`. Use it with `fit(..., steps_per_epoch=len(images) // batch_size)`, which
    reads one endless stream through all epochs.

    Args:
        images: `[size, h, w, c]`, uint8 (divided by 255) or floating in [0, 1].
        labels: `[size]`, non-negative integers.
        batch_size: images per batch; the rest of an epoch is dropped.
        seed: determines the order and the augmentation.
        start_step: the global step of the first batch.
        epochs: length of the whole run, counted from step 0; None for an endless stream.
        augment: a function `(image, seed) -> image`, such as `pad_crop_flip()`.
        extra: further images in a part of each batch, such as `extra_images(x, y, 0.7)`; an epoch
            is one pass over `images`.

    Returns:
        A dataset of `(images float32 [batch_size, h, w, c], labels int32 [batch_size])`.

    Raises:
        ValueError: an invalid shape, value or number.

    Example:
        >>> images, labels = tf.zeros([10, 8, 8, 1]), tf.range(10)
        >>> run = training_stream(images, labels, 4, epochs=2)
        >>> [y.tolist() for _, y in run.as_numpy_iterator()]
        [[4, 7, 1, 9], [6, 0, 3, 8], [2, 7, 6, 0], [9, 8, 1, 4]]
        >>> resumed = training_stream(images, labels, 4, start_step=3, epochs=2)
        >>> [y.tolist() for _, y in resumed.as_numpy_iterator()]
        [[9, 8, 1, 4]]
    """
    batches = Batches(images, labels, batch_size, seed, augment, extra)
    check_integer("start_step", start_step, 0)
    if epochs is None:
        # Not a very long `range`: Keras takes a known length as the length of an epoch.
        steps = tf.data.Dataset.counter(start=start_step)
    else:
        check_integer("epochs", epochs, 1)
        total = epochs * batches.steps_per_epoch
        if start_step > total:
            raise ValueError(
                f"start_step is {start_step}; expected at most {total}, the steps of the run "
                f"(epochs={epochs} of {batches.steps_per_epoch} steps)."
            )
        steps = tf.data.Dataset.range(start_step, total)
    dataset = steps.map(batches, num_parallel_calls=_PARALLEL_CALLS)
    return _with_options(dataset.prefetch(_PREFETCHED_BATCHES))


def training_epochs(
    images: Images,
    labels: Labels,
    batch_size: int,
    *,
    seed: int = 0,
    augment: Augmentation | None = None,
    extra: ExtraImages | None = None,
) -> tf.data.Dataset:
    """The training stream, one epoch each time the dataset is read through.

    For a plain `model.fit(train, epochs=n)`: the length is known, and the k-th complete pass over
    this dataset gives the k-th epoch of `training_stream`. An incomplete pass does not count: the
    next one starts the same epoch again.

    A strategy with several replicas reads a few batches ahead of the training. In epochs as short
    as that (seen with 4 steps, not with 8), an iterator that Keras does not use may count as a
    pass, so that an epoch of the stream is skipped. `training_stream` has no such limit.

    Args:
        images, labels, batch_size, seed, augment, extra: see `training_stream`.

    Returns:
        A dataset of `(images float32 [batch_size, h, w, c], labels int32 [batch_size])`.

    Raises:
        ValueError: an invalid shape, value or number.

    Example:
        >>> train = training_epochs(tf.zeros([10, 8, 8, 1]), tf.range(10), 4)
        >>> [y.tolist() for _, y in train.as_numpy_iterator()]
        [[4, 7, 1, 9], [6, 0, 3, 8]]
        >>> [y.tolist() for _, y in train.as_numpy_iterator()]
        [[2, 7, 6, 0], [9, 8, 1, 4]]
    """
    batches = Batches(images, labels, batch_size, seed, augment, extra)
    length = batches.steps_per_epoch
    # Each iterator restarts the pipeline, so the epoch is counted in a variable outside it. A pass
    # counts when its last batch is delivered, not when it starts: Keras creates iterators that it
    # does not exhaust (one more after each epoch, one to build the model under a distribution
    # strategy), and these must not skip an epoch. The counter comes after the prefetching, in a map
    # without parallel calls, so that it follows what the reader has consumed.
    with tf.device("CPU:0"):
        passes = tf.Variable(0, dtype=tf.int64, trainable=False, name="completed_passes")

    def steps_of_this_pass(_: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.range(passes * length, (passes + 1) * length)

    def count(step: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        passes.assign_add(tf.cast(step % length == length - 1, tf.int64))
        return batch

    dataset = tf.data.Dataset.from_tensors(0).flat_map(steps_of_this_pass)
    dataset = dataset.map(lambda step: (step, batches(step)), num_parallel_calls=_PARALLEL_CALLS)
    dataset = dataset.prefetch(_PREFETCHED_BATCHES).map(count)
    return _with_options(dataset.apply(tf.data.experimental.assert_cardinality(length)))


def evaluation_batches(images: Images, labels: Labels, batch_size: int) -> tf.data.Dataset:
    """All images in their own order; the last batch may be smaller.

    Args:
        images, labels, batch_size: see `training_stream`.

    Returns:
        A dataset of `(images float32 [batch, h, w, c], labels int32 [batch])`.

    Raises:
        ValueError: an invalid shape, value or number.

    Example:
        >>> data = evaluation_batches(tf.zeros([10, 8, 8, 1]), tf.range(10), 4)
        >>> [y.tolist() for _, y in data.as_numpy_iterator()]
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    """
    check_integer("batch_size", batch_size, 1)
    dataset = tf.data.Dataset.from_tensor_slices(as_tensors(images, labels)).batch(batch_size)
    dataset = dataset.map(lambda x, y: (to_unit(x), y), num_parallel_calls=_PARALLEL_CALLS)
    return _with_options(dataset.prefetch(_PREFETCHED_BATCHES))


def _with_options(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # With tuning on, closing an iterator waits for the tuner's next wake-up: an epoch of t seconds
    # may then take up to 2 t.
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)
