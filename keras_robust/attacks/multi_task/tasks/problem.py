"""Tasks posed on a batch, as the crafting loop sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.core.types import Forward, Images, Labels, Logits


class Problem(NamedTuple):
    """Tasks on a batch; what is perturbed are points, of which there may be fewer than images.

    Attributes:
        ball: where the points may be, around `centre`.
        centre: the points before any perturbation, `[points, ...]`.
        logits: `(copies [tasks, points, ...], seed) -> [tasks, points, classes]`; each task sees a
            copy of its own.
        clean: `() -> [tasks, points, classes]`, without a perturbation.
        labels: `[tasks, points]`.
        images: `points -> [batch, ...]`, the perturbed images.
        count: the number of tasks, a symbol where it is that of a batch.
    """

    ball: Any
    centre: Images
    logits: Callable[[tf.Tensor, tf.Tensor], Logits]
    clean: Callable[[], Logits]
    labels: Labels
    images: Callable[[Images], Images]
    count: Any


def repeated(values: tf.Tensor, count: int) -> tf.Tensor:
    """The same for each of so many tasks, `[tasks, ...]`."""
    return tf.stack([values] * count)


def stacked_logits(forward: Forward, images: Images) -> Logits:
    """The logits of `[tasks, points, ...]` in one pass."""
    shape = tf.shape(images)
    flat = tf.reshape(images, tf.concat([[shape[0] * shape[1]], shape[2:]], axis=0))
    flat.set_shape([None, *images.shape[2:]])
    logits = forward(flat)["logits"]
    return tf.reshape(logits, [shape[0], shape[1], logits.shape[-1]])


def of_one_shape(found: list[tf.Tensor], what: str, kind: str) -> list[tf.Tensor]:
    """Refuses tensors that are not of one shape."""
    shapes = [part.shape for part in found]
    if any(not shape.is_compatible_with(shapes[0]) for shape in shapes):
        raise ValueError(
            f"{what} have {kind} of shapes {', '.join(str(tuple(shape)) for shape in shapes)}; "
            "expected one shape for all tasks. (Resize what a transformation cuts.)"
        )
    return found
