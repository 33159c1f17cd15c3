"""The order of training as a function of the seed and the step.

Step `s` of a training run belongs to epoch `e = s // steps_per_epoch` and holds the positions
`p = (s % steps_per_epoch) * batch_size + (0, ..., batch_size - 1)` of that epoch. The image at
position `p` is the image number `shuffle(shuffle(p, key1), key2)` of the training set, where
`shuffle` is `tf.random.experimental.index_shuffle` and the keys are drawn by Philox from
`(seed, e)`: a permutation without buffer or history. An epoch has `size // batch_size` full
batches; the few images that are dropped differ from epoch to epoch. With extra images,
`batch_size` counts the images of the training set alone; the extra ones have an order of their own,
by the same formula with the seed `-1 - seed`, and both are mixed within the batch.

`(seed, e)` itself would be a poor key. Up to 60,000 images (measured with TensorFlow 2.21)
`index_shuffle` reads the lowest 8 bits of each number, so that epoch 256 would repeat epoch 0,
seed 256 would equal seed 0, and neighboring keys give similar orders. With two rounds under drawn
keys, 20,000 epochs of 23 to 60,000 images gave 20,000 orders, and the positions of images and the
distances between them passed chi-square tests.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from keras_robust.core import random
from keras_robust.core.types import Images, Labels
from keras_robust.core.validation import check_integer
from keras_robust.data.augmentation import Augmentation
from keras_robust.data.extra import ExtraImages
from keras_robust.data.in_memory import as_tensors, to_unit


def shuffled_rows(step: int | tf.Tensor, batch_size: int, size: int, seed: int) -> tf.Tensor:
    """The rows of the training set in the batch of a global step.

    Args:
        step: the global step, an integer or a scalar integer tensor.
        batch_size: images per batch, at most `size`.
        size: images in the training set.
        seed: determines the order, any int64.

    Returns:
        Row numbers in [0, size), int64 `[batch_size]`.

    Example:
        >>> shuffled_rows(3, batch_size=4, size=10, seed=0).numpy().tolist()
        [9, 8, 1, 4]
    """
    step = tf.cast(step, tf.int64)
    steps_per_epoch = size // batch_size
    epoch, step_of_epoch = step // steps_per_epoch, step % steps_per_epoch
    positions = step_of_epoch * batch_size + tf.range(batch_size, dtype=tf.int64)
    pair = tf.stack([tf.constant(seed, tf.int64), epoch])
    keys = random.bits([2, 2], pair)
    once = tf.random.experimental.index_shuffle(positions, keys[0], size - 1)
    return tf.random.experimental.index_shuffle(once, keys[1], size - 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The batch of any step, as a pure function of the step: `batches(step) -> (images, labels)`.

    Image `i` of the batch of step `s` is augmented with the seed `(seed, s * batch_size + i)`.

    Args:
        images, labels, batch_size, seed, augment, extra: see `training_stream`.

    Raises:
        ValueError: an invalid shape, value or number.

    Example:
        >>> batches = Batches(tf.zeros([10, 8, 8, 1]), tf.range(10), batch_size=4)
        >>> images, labels = batches(3)
        >>> images.shape, labels.numpy().tolist()
        (TensorShape([4, 8, 8, 1]), [9, 8, 1, 4])
    """

    images: Images
    labels: Labels
    batch_size: int
    seed: int = 0
    augment: Augmentation | None = None
    extra: ExtraImages | None = None

    def __post_init__(self) -> None:
        images, labels = as_tensors(self.images, self.labels)
        check_integer("batch_size", self.batch_size, 1)
        check_integer("seed", self.seed, None)
        if self.extra is not None and self.extra.images.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"The extra images have shape {self.extra.images.shape[1:]}; expected "
                f"{images.shape[1:]}, that of the training images."
            )
        if self._own > len(images):
            raise ValueError(
                f"batch_size is {self.batch_size}; expected at most {len(images)}, the number of "
                "training images."
            )
        if self.augment is not None and not callable(self.augment):
            raise ValueError(
                f"augment is {self.augment!r}; expected a function (image, seed) -> image, or None."
            )
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches in an epoch."""
        return len(self.images) // self._own

    @property
    def _own(self) -> int:
        """How many images of a batch are those of the training set."""
        return self.batch_size - (0 if self.extra is None else self.extra.count(self.batch_size))

    def __call__(self, step: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The float32 images in [0, 1] and the int32 labels of a global step."""
        step = tf.cast(step, tf.int64)
        rows = shuffled_rows(step, self._own, len(self.images), self.seed)
        x, y = to_unit(tf.gather(self.images, rows)), tf.gather(self.labels, rows)
        if self.extra is not None:
            x, y = self._with_extra(x, y, step, self.extra)
        if self.augment is not None:
            x = self._augmented(x, step, self.augment)
        return x, y

    def _with_extra(
        self, x: tf.Tensor, y: tf.Tensor, step: tf.Tensor, extra: ExtraImages
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Adds extra images, in places of a batch that are drawn: replicas share it in parts."""
        seed = -1 - self.seed
        rows = shuffled_rows(step, self.batch_size - self._own, len(extra.images), seed)
        x = tf.concat([x, to_unit(tf.gather(extra.images, rows))], axis=0)
        y = tf.concat([y, tf.gather(extra.labels, rows)], axis=0)
        key = tf.stack([tf.constant(seed, tf.int64), step])
        order = random.permutation(self.batch_size, key)
        return tf.gather(x, order), tf.gather(y, order)

    def _augmented(self, images: tf.Tensor, step: tf.Tensor, augment: Augmentation) -> tf.Tensor:
        counters = step * self.batch_size + tf.range(self.batch_size, dtype=tf.int64)
        seeds = tf.stack([tf.zeros_like(counters) + self.seed, counters], axis=1)
        # Batches run in parallel, the images within a batch one after the other: with so little
        # work per image, twice as fast as a pipeline of single images.
        signature = tf.TensorSpec(images.shape[1:], tf.float32)
        return tf.map_fn(
            lambda pair: _augmented_one(augment, *pair),
            (images, seeds),
            fn_output_signature=signature,
        )


def _augmented_one(augment: Augmentation, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    result = tf.convert_to_tensor(augment(image, seed))
    if not result.shape.is_compatible_with(image.shape) or result.dtype != image.dtype:
        raise ValueError(
            f"augment returned {result.dtype.name} of shape {result.shape} for an image of "
            f"{image.dtype.name} and shape {image.shape}; expected the same dtype and shape."
        )
    return tf.ensure_shape(result, image.shape)
