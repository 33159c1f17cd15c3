"""Training on images that a mixing made of two, with a label of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.core.types import Images, Labels, RobustLoss
from keras_robust.training.distribution import Batch, microbatch

# (images, labels, seed) -> images, labels, other labels, and the weights of the first labels.
Mixing = Callable[[Images, Labels, tf.Tensor], tuple[Images, Labels, Labels, tf.Tensor]]


class OtherLabels(NamedTuple):
    """The second labels of mixed images.

    Attributes:
        labels: `[batch]`.
        share: the weight of the first label, `[batch]`; that of the second is `1 - share`.
    """

    labels: Labels
    share: tf.Tensor


def check_mixing(mixing: Any, loss: RobustLoss) -> None:
    """Raises unless a mixing is None, or a function whose images the loss can train on.

    Raises:
        TypeError: not a function.
        ValueError: a loss that needs one label of an image.
    """
    if mixing is None:
        return
    if isinstance(mixing, type) or not callable(mixing):
        raise TypeError(
            f"mixing is {mixing!r}; expected None or a function, such as "
            "`keras_robust.data.cutmix()`."
        )
    name = type(loss).__name__
    if loss.batch_level:
        raise ValueError(
            f"The loss {name} compares the images of a batch by their labels, and "
            "a mixed image has two; expected mixing=None."
        )
    if "bounds" in loss.required_outputs:
        raise ValueError(
            f"The loss {name} bounds the margins of one label, and a mixed image has two; expected "
            "mixing=None."
        )


def mixed(mixing: Mixing, batch: Batch, seed: tf.Tensor) -> tuple[Batch, OtherLabels]:
    """A batch of mixed images with their first labels, and the second labels.

    Raises:
        ValueError: the batch has sample weights.
    """
    x, y, weight = batch
    if weight is not None:
        raise ValueError(
            "The data has sample weights (or `class_weight` was given), and `mixing` makes one "
            "image of two with different weights; expected one of both."
        )
    x, y, other, share = mixing(x, y, seed)
    return (x, y, None), OtherLabels(other, share)


def part_of(others: OtherLabels | None, part: int, count: int) -> OtherLabels | None:
    """The second labels of a microbatch."""
    if others is None:
        return None
    share, labels, _ = microbatch((others.share, others.labels, None), part, count)
    return OtherLabels(labels, share)
