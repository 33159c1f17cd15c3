"""Supervised contrastive loss on latents, with a selection of positives and negatives.

Each image has two views, such as the clean and the adversarial image. Every view is an anchor; the
other views of the batch are its positives, its negatives, or left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_robust.core import collectives
from keras_robust.core.config import serializable
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Labels, Outputs, PerExample, RobustLoss
from keras_robust.core.validation import check_choice, check_number
from keras_robust.losses.pairwise_distance import distances, unit

SIMILARITIES: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "cosine": lambda z, others: tf.matmul(unit(z), unit(others), transpose_b=True),
    "dot": lambda z, others: tf.matmul(z, others, transpose_b=True),
    "l1": lambda z, others: -distances("l1", unit(z), unit(others)),
    "l2": lambda z, others: -distances("l2", unit(z), unit(others)),
    "linf": lambda z, others: -distances("linf", unit(z), unit(others)),
}
SELECTIONS = ("global", "hard", "soft", "leaked", "instance")


class Views(NamedTuple):
    """Views of images: anchors, or the views that they are compared with.

    Attributes:
        latents: `[views, d]`.
        labels: `[views]`.
        predictions: the predicted class of each view, `[views]`.
        images: index of the image of each view, `[views]`.
        sides: 0 for first views and 1 for second ones, `[views]`.
    """

    latents: tf.Tensor
    labels: tf.Tensor
    predictions: tf.Tensor
    images: tf.Tensor
    sides: tf.Tensor


def select(selection: str, anchors: Views, others: Views) -> tuple[tf.Tensor, tf.Tensor]:
    """Selects the positives and the negatives of each anchor.

    Args:
        selection: `"global"`: positives are all views of the anchor's class, negatives all views of
            other classes. `"hard"`: only negatives predicted as the anchor's class. `"soft"`: only
            negatives with the anchor's prediction. `"leaked"`: only negatives and positives with
            the anchor's prediction. `"instance"`: without labels, InfoNCE; the other view of the
            image is the only positive, and all other images are negatives.
        anchors: the anchors.
        others: the views that they are compared with, which include the anchors.

    Returns:
        Two boolean masks `[anchors, others]`. An anchor is neither its own positive nor negative;
        the other view of its image is always a positive.

    Raises:
        ValueError: another selection.

    Reference: Bui et al., "Understanding and Achieving Efficient Robustness with Adversarial
    Supervised Contrastive Learning" (2021), Table 1; instances: Chen et al., "A Simple Framework
    for Contrastive Learning of Visual Representations" (2020), Eq. 1.
    """
    check_choice("selection", selection, SELECTIONS)
    own = anchors.images[:, None] == others.images
    counterpart = own & (anchors.sides[:, None] != others.sides)
    same_class = anchors.labels[:, None] == others.labels
    same_prediction = anchors.predictions[:, None] == others.predictions
    if selection == "instance":
        return counterpart, ~own
    positives, negatives = same_class & ~own, ~same_class
    if selection == "hard":
        negatives &= anchors.labels[:, None] == others.predictions
    elif selection in ("soft", "leaked"):
        negatives &= same_prediction
    if selection == "leaked":
        positives &= same_prediction
    return positives | counterpart, negatives


def contrast(
    similarity: tf.Tensor, positives: tf.Tensor, negatives: tf.Tensor, temperature: float
) -> PerExample:
    """Minus the mean log-probability of the positives among positives and negatives.

    Args:
        similarity: `[anchors, others]`.
        positives: boolean mask `[anchors, others]`.
        negatives: boolean mask `[anchors, others]`.
        temperature: divisor of the similarities.

    Returns:
        `[anchors]`; 0 for an anchor without positives.

    Example:
        >>> similarity = tf.constant([[0.0, 1.0, 1.0]])
        >>> first, last = tf.constant([[False, True, False]]), tf.constant([[False, False, True]])
        >>> round(float(contrast(similarity, first, last, 0.5)[0]), 4)  # log 2
        0.6931

    Reference: Khosla et al., "Supervised Contrastive Learning" (2020), Eq. 2.
    """
    logits = upcast_half(similarity) / temperature
    selected = tf.where(positives | negatives, logits, logits.dtype.min / 2)
    normalizer = tf.reduce_logsumexp(selected, axis=1, keepdims=True)
    # Logits that are not selected may be far below the others, and must not reach the gradient.
    log_probability = tf.where(positives, logits - normalizer, 0.0)
    count = tf.reduce_sum(tf.cast(positives, logits.dtype), axis=1)
    return -tf.reduce_sum(log_probability, axis=1) / tf.maximum(count, 1.0)


@serializable
class Contrastive(RobustLoss):
    """Supervised contrastive loss of the clean and adversarial views of a batch.

    `weight * (L_i + L_i^a)` for each image i. The batch is that of all replicas, or a microbatch.

    Args:
        selection: selection of positives and negatives; see `select`.
        similarity: `"cosine"`, `"dot"` (not normalized), or minus the `"l1"`, `"l2"` or `"linf"`
            distance of normalized latents.
        temperature: divisor of the similarities, > 0.
        weight: weight of the term.
        latent: the classifier's output that is compared, such as `"features"`.

    Raises:
        ValueError: another selection or similarity, temperature not > 0, a negative weight.

    Reference: Bui et al. (2021), Eq. 1 to 3.

    Differs: with `"leaked"` the other view of the anchor's image is a positive even if its
    prediction differs, as in Eq. 1; the released code drops it.
    """

    term_names = ("contrastive",)
    # The mean numbers of positives and negatives of an anchor, its other view included; and of
    # those among them that are second views, adversarial in training.
    logged_statistics = (
        *("positives", "negatives"),
        *("adversarial_positives", "adversarial_negatives"),
    )
    batch_level = True

    selection: str = "leaked"
    similarity: str = "cosine"
    temperature: float = 0.07
    weight: float = 1.0
    latent: str = "features"

    def __post_init__(self) -> None:
        check_choice("Contrastive: selection", self.selection, SELECTIONS)
        check_choice("Contrastive: similarity", self.similarity, SIMILARITIES)
        check_number("Contrastive: temperature", self.temperature, above=0)
        check_number("Contrastive: weight", self.weight)

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted term, summed over both views, and mean numbers of pairs; each `[batch]`."""
        anchors, others = self._views(y, adversarial, clean)
        masks = select(self.selection, anchors, others)
        similarity = SIMILARITIES[self.similarity](anchors.latents, others.latents)
        value = contrast(similarity, *masks, self.temperature)
        second = [mask & (others.sides == 1) for mask in masks]
        counts = (tf.reduce_sum(tf.cast(mask, value.dtype), axis=1) for mask in (*masks, *second))
        return {
            "contrastive": self.weight * _by_image(value, tf.reduce_sum),
            **{
                name: _by_image(count, tf.reduce_mean)
                for name, count in zip(self.logged_statistics, counts, strict=True)
            },
        }

    def _views(self, y: Labels, adversarial: Outputs, clean: Outputs) -> tuple[Views, Views]:
        """The views of this replica, and of all replicas."""
        both = (clean, adversarial)
        latents = [upcast_half(outputs[self.latent]) for outputs in both]
        predictions = [
            tf.argmax(outputs["logits"], axis=1, output_type=y.dtype) for outputs in both
        ]
        images = collectives.example_indices(tf.shape(y)[0])
        sides = [tf.fill(tf.shape(y), side) for side in (0, 1)]
        columns = [latents, [y, y], predictions, [images, images], sides]
        everywhere = [[collectives.all_gather(part) for part in column] for column in columns]
        return (
            Views(*(tf.concat(column, axis=0) for column in columns)),
            Views(*(tf.concat(column, axis=0) for column in everywhere)),
        )


def _by_image(values: PerExample, reduce: Callable) -> PerExample:
    """Reduces values of first and second views, `[2 * batch]`, to one per image."""
    return reduce(tf.reshape(values, [2, -1]), axis=0)
