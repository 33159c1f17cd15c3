"""What ensembles take: batches that were crafted on each member, their losses, the members.

An attack may craft one batch on each member (`keras_robust.attacks.per_member`): a tuple of
batches. The classifier sees them as one stack, in a single forward pass; its outputs then have one
more axis in front, `[sources, batch, ...]`, where source `i` is what was crafted on member `i`.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.core.types import Images, Outputs


def stacked(images: Images | tuple[Images, ...] | None) -> Images | None:
    """Batches one after the other, `[sources * batch, ...]`; a single batch is itself."""
    return tf.concat(images, axis=0) if isinstance(images, tuple) else images


def by_source(outputs: Outputs | None, images: Images | tuple[Images, ...] | None) -> Any:
    """The outputs for `stacked(images)`, taken apart again where the images are several batches.

    Example:
        >>> images = (tf.zeros([5, 4]), tf.ones([5, 4]))
        >>> outputs = by_source({"logits": tf.zeros([10, 3])}, images)
        >>> outputs["logits"].shape.as_list()
        [2, 5, 3]
    """
    if outputs is None or not isinstance(images, tuple):
        return outputs
    return {
        name: tf.reshape(value, [len(images), tf.shape(images[0])[0], *value.shape[1:]])
        for name, value in outputs.items()
    }
