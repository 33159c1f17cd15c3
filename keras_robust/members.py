"""What ensembles take: batches that were crafted on each member, their losses, the members.

An attack may craft one batch on each member (`keras_robust.attacks.per_member`): a tuple of
batches. The classifier sees them as one stack, in a single forward pass; its outputs then have one
more axis in front, `[sources, batch, ...]`, where source `i` is what was crafted on member `i`.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust import losses
from keras_robust.types import Forward, Images, Labels, Logits, Outputs, contract_of, members_of


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


def cross_entropies(member_logits: Logits, y: Labels) -> tf.Tensor:
    """The cross-entropy of each member with the label.

    Args:
        member_logits: `[..., batch, members, classes]`.
        y: labels `[batch]`.

    Returns:
        `[..., batch, members]`.

    Example:
        >>> cross_entropies(tf.zeros([4, 3, 10]), tf.zeros([4], tf.int32)).shape.as_list()
        [4, 3]
    """
    labels = tf.broadcast_to(y[:, None], tf.shape(member_logits)[:-1])
    return losses.cross_entropy(member_logits, labels)


def each_member(owner: str, forward: Forward, x: Images) -> tuple[Forward, ...]:
    """Each member of an ensemble as a function of its own.

    Args:
        owner: who asks, for the message.
        forward: an ensemble, as `keras_robust.types.as_forward` makes it; where it has no attribute
            `members` it is run whole for each of them.
        x: images that it takes.

    Returns:
        Functions `images -> {"logits"}`, in the order of `"member_logits"`.

    Raises:
        ValueError: a model that is no ensemble.

    Example:
        >>> def forward(x):
        ...     return {"logits": x, "member_logits": tf.stack([x, -x], axis=1)}
        >>> _, second = each_member("The example", forward, tf.ones([1, 2]))
        >>> second(tf.ones([1, 2]))["logits"].numpy().tolist()
        [[-1.0, -1.0]]
    """
    members = members_of(forward)
    if members:
        return members
    outputs = forward(x)
    if "member_logits" not in outputs:
        raise ValueError(
            f"{owner} was called with a model of outputs {sorted(outputs)}; "
            "expected an ensemble, such as `keras_robust.models.ensemble([...])`."
        )

    def member(number: int) -> Forward:
        return lambda x: {"logits": forward(x)["member_logits"][:, number]}

    return tuple(map(member, range(outputs["member_logits"].shape[1])))


def check_ensemble(owner: str, classifier: Any) -> int:
    """Refuses a classifier that is no ensemble.

    Args:
        owner: who asks, for the message.
        classifier: anything.

    Returns:
        The number of members.

    Raises:
        TypeError: there are no logits of at least two members.
    """
    outputs = contract_of(classifier) or {}
    members = outputs["member_logits"].shape[1] if "member_logits" in outputs else 0
    if members < 2:
        received = f"a model with outputs {sorted(outputs)}" if outputs else repr(classifier)
        raise TypeError(
            f"{owner}: the classifier is {received}; expected an ensemble, such as "
            "`keras_robust.models.ensemble([classifier_1, classifier_2])`."
        )
    return members
