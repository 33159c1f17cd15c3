"""Extra or generated images in a set proportion of each training batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.core.types import Images, Labels
from keras_robust.core.validation import check_number
from keras_robust.data.in_memory import as_tensors, to_unit

_TEACHER_BATCH = 256


@dataclasses.dataclass(frozen=True, eq=False)
class ExtraImages:
    """Images that fill a part of each training batch; see `extra_images`."""

    images: Images
    labels: Labels
    proportion: float = 0.5

    def __post_init__(self) -> None:
        check_number("extra_images: proportion", self.proportion, above=0, below=1)
        images, labels = as_tensors(self.images, self.labels)
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)

    def count(self, batch_size: int) -> int:
        """How many images of a batch are extra ones.

        Raises:
            ValueError: none or all of them, or more than there are.
        """
        count = round(self.proportion * batch_size)
        if not 0 < count < batch_size:
            raise ValueError(
                f"extra_images: proportion is {self.proportion:g}, {count} images of a batch of "
                f"{batch_size}; expected at least one of both kinds."
            )
        if count > len(self.images):
            raise ValueError(
                f"extra_images: there are {len(self.images)} images; expected at least {count}, "
                f"the part of a batch of {batch_size}."
            )
        return count


def extra_images(
    images: Images,
    labels: Labels | None = None,
    proportion: float = 0.5,
    teacher: Callable[[Images], Any] | None = None,
) -> ExtraImages:
    """Images that fill a part of each training batch: more data, or those of a generative model.

    They are drawn in an order of their own, without replacement until all were drawn; an epoch
    remains one pass over the images of the training set.

    Args:
        images: `[size, h, w, c]`, uint8 (divided by 255) or floating in [0, 1].
        labels: `[size]`; None for the predictions of the teacher.
        proportion: the fraction of a batch that is extra, in (0, 1); rounded to images.
        teacher: a classifier that returns `{"logits"}`, for images without labels.

    Returns:
        A value for `extra=` of `load`, `training_stream` and `training_epochs`.

    Raises:
        ValueError: labels and a teacher, or neither; an invalid shape, value or number.

    Example:
        >>> more = extra_images(tf.ones([6, 8, 8, 1]), tf.range(6), proportion=0.25)
        >>> more.count(batch_size=8)
        2

    Reference: Carmon et al., "Unlabeled Data Improves Adversarial Robustness" (2019), section 4;
    Gowal et al., "Improving Robustness using Generated Data" (2021), section 4.
    """
    if (labels is None) == (teacher is None):
        given = "neither" if labels is None else "both"
        raise ValueError(f"extra_images: expected labels or a teacher; received {given}.")
    if teacher is not None:
        labels = _predicted(teacher, images)
    return ExtraImages(images, labels, proportion)


def _predicted(teacher: Callable[[Images], Any], images: Images) -> np.ndarray:
    """The teacher's predictions, `[size]`."""
    x, _ = as_tensors(images, np.zeros(len(images), np.int32))
    found = [
        tf.argmax(teacher(to_unit(x[begin : begin + _TEACHER_BATCH]))["logits"], axis=1)
        for begin in range(0, len(x), _TEACHER_BATCH)
    ]
    return tf.concat(found, axis=0).numpy()
