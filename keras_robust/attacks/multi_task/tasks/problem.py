"""Tasks posed on a batch, as the crafting loop sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import tensorflow as tf

from keras_robust.core.types import Ball, Forward, Images, Labels, Logits


class Problem(NamedTuple):
    """Tasks on a batch. Points are perturbed, of which there may be fewer than images.

    Attributes:
        ball: the threat model of the points, around `center`.
        center: the points without a perturbation, `[points, ...]`.
        logits: `(copies [tasks, points, ...], seed) -> [tasks, points, classes]`; each task sees
            its own copy.
        clean: `() -> [tasks, points, classes]`, without a perturbation.
        labels: `[tasks, points]`.
        images: `points -> [batch, ...]`, the perturbed images.
        num_tasks: the number of tasks, a scalar tensor if it is that of a batch.
    """

    ball: Ball
    center: Images
    logits: Callable[[tf.Tensor, tf.Tensor], Logits]
    clean: Callable[[], Logits]
    labels: Labels
    images: Callable[[Images], Images]
    num_tasks: int | tf.Tensor


@runtime_checkable
class TaskKind(Protocol):
    """A kind of tasks, which `on` poses on a batch."""

    @property
    def success_criterion(self) -> str:
        """Whether the prediction is to differ from the `"label"` or the clean `"prediction"`."""

    @property
    def stochastic(self) -> bool:
        """Whether the tasks draw from the seed."""

    def on(self, forward: Forward, ball: Ball, x: Images, y: Labels) -> Problem:
        """The tasks on a batch."""


def repeat(values: tf.Tensor, count: int) -> tf.Tensor:
    """The same values for each of `count` tasks, `[tasks, ...]`."""
    return tf.stack([values] * count)


def stacked_logits(forward: Forward, images: Images) -> Logits:
    """The logits of images `[tasks, points, ...]` from one pass."""
    shape = tf.shape(images)
    flat = tf.reshape(images, tf.concat([[shape[0] * shape[1]], shape[2:]], axis=0))
    flat.set_shape([None, *images.shape[2:]])
    logits = forward(flat)["logits"]
    return tf.reshape(logits, [shape[0], shape[1], logits.shape[-1]])


def check_same_shape(tensors: list[tf.Tensor], owners: str, kind: str) -> list[tf.Tensor]:
    """Raises ValueError unless all tensors have one shape; returns them."""
    shapes = [part.shape for part in tensors]
    if any(not shape.is_compatible_with(shapes[0]) for shape in shapes):
        raise ValueError(
            f"{owners} have {kind} of shapes {', '.join(str(tuple(shape)) for shape in shapes)}; "
            "expected one shape for all tasks. (Resize what a transformation cuts.)"
        )
    return tensors
