"""Supervised contrast: images of a class are drawn together in latent space, others pushed away.

Each image has two views, such as itself and its adversarial example. Every view is an anchor; the
other views of the batch are its positives, its negatives, or left out, as a selection says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_robust.core import collectives
from keras_robust.core.config import serializable
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Labels, Outputs, PerExample, RobustLoss
from keras_robust.core.validation import check_number
from keras_robust.losses.pairwise_distance import distances, unit

SIMILARITIES: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "cosine": lambda z, others: tf.matmul(unit(z), unit(others), transpose_b=True),
    "dot": lambda z, others: tf.matmul(z, others, transpose_b=True),
    "l1": lambda z, others: -distances("l1", unit(z), unit(others)),
    "l2": lambda z, others: -distances("l2", unit(z), unit(others)),
    "linf": lambda z, others: -distances("linf", unit(z), unit(others)),
}
SELECTIONS = ("global", "hard", "soft", "leaked")


class Views(NamedTuple):
    """Views of images, as anchors or as what anchors are compared with.

    Attributes:
        latents: `[views, d]`.
        labels: `[views]`.
        predictions: the class that the model takes each view for, `[views]`.
        images: the number of each view's image, `[views]`; the two views of an image share it.
        sides: 0 for first views and 1 for second ones, `[views]`.
    """

    latents: tf.Tensor
    labels: tf.Tensor
    predictions: tf.Tensor
    images: tf.Tensor
    sides: tf.Tensor


def select(selection: str, anchors: Views, others: Views) -> tuple[tf.Tensor, tf.Tensor]:
    """Which views are an anchor's positives, and which its negatives.

    Args:
        selection: `"global"`: all views of the class, against all of other classes. `"hard"`: of
            the others, those that are taken for the anchor's class. `"soft"`: those that are
            taken for what the anchor is taken for. `"leaked"`: as soft, and of the class, too,
            only what is taken for what the anchor is.
        anchors: the anchors.
        others: what they are compared with, themselves among it.

    Returns:
        Two boolean masks `[anchors, others]`. An anchor is neither to itself; the other view of
        its image is always a positive.

    Raises:
        ValueError: another selection.

    Reference: Bui et al., "Understanding and Achieving Efficient Robustness with Adversarial
    Supervised Contrastive Learning" (2021), Table 1.
    """
    if selection not in SELECTIONS:
        raise ValueError(f"selection is {selection!r}; expected one of {', '.join(SELECTIONS)}.")
    own = anchors.images[:, None] == others.images
    counterpart = own & (anchors.sides[:, None] != others.sides)
    same = anchors.labels[:, None] == others.labels
    alike = anchors.predictions[:, None] == others.predictions
    positives, negatives = same & ~own, ~same
    if selection == "hard":
        negatives &= anchors.labels[:, None] == others.predictions
    elif selection in ("soft", "leaked"):
        negatives &= alike
    if selection == "leaked":
        positives &= alike
    return positives | counterpart, negatives


def contrast(
    similarity: tf.Tensor, positives: tf.Tensor, negatives: tf.Tensor, temperature: float
) -> PerExample:
    """Minus the mean log-probability of the positives among positives and negatives.

    Args:
        similarity: `[anchors, others]`.
        positives: a mask of that shape.
        negatives: another.
        temperature: what similarities are divided by.

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
    chosen = tf.where(positives | negatives, logits, logits.dtype.min / 2)
    normaliser = tf.reduce_logsumexp(chosen, axis=1, keepdims=True)
    # What is not chosen may be far below the others, and must not reach the gradient.
    log_probability = tf.where(positives, logits - normaliser, 0.0)
    count = tf.reduce_sum(tf.cast(positives, logits.dtype), axis=1)
    return -tf.reduce_sum(log_probability, axis=1) / tf.maximum(count, 1.0)


@serializable
class Contrastive(RobustLoss):
    """Supervised contrast between the clean and the adversarial images of a batch.

    `weight * (L_i + L_i^a)` for each image i, over the whole batch: on several replicas, over that
    of all of them; with microbatches, over each part.

    Args:
        selection: which pairs count; see `select`.
        similarity: `"cosine"`, `"dot"` without normalising, or minus the `"l1"`, `"l2"` or
            `"linf"` distance of normalised latents.
        temperature: what similarities are divided by, > 0.
        weight: of the term.
        latent: which output of the classifier is compared, `"features"` or `"projection"`.

    Raises:
        ValueError: another selection or similarity, a temperature that is not > 0, a negative
            weight.

    Reference: Bui et al. (2021), Eq. 1 to 3.

    Differs: with `"leaked"` the other view of the anchor's image is a positive even where its
    prediction differs, as Eq. 1 has it; the released code drops it there.
    """

    term_names = ("contrastive",)
    # The mean numbers of positives and negatives of an anchor, its other view included.
    logged_statistics = ("positives", "negatives")
    batch_level = True

    selection: str = "leaked"
    similarity: str = "cosine"
    temperature: float = 0.07
    weight: float = 1.0
    latent: str = "features"

    def __post_init__(self) -> None:
        for name, known in (("selection", SELECTIONS), ("similarity", tuple(SIMILARITIES))):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"Contrastive: {name} is {getattr(self, name)!r}; expected one of "
                    f"{', '.join(known)}."
                )
        if not 0 < self.temperature < 1e30:
            raise ValueError(
                f"Contrastive: temperature is {self.temperature!r}; expected a finite number > 0."
            )
        check_number("Contrastive: weight", self.weight)

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted contrast of each image, its views added; how many pairs its views have."""
        anchors, others = self._views(y, adversarial, clean)
        masks = select(self.selection, anchors, others)
        similarity = SIMILARITIES[self.similarity](anchors.latents, others.latents)
        value = contrast(similarity, *masks, self.temperature)
        counts = (tf.reduce_sum(tf.cast(mask, value.dtype), axis=1) for mask in masks)
        return {
            "contrastive": self.weight * _by_image(value, tf.reduce_sum),
            **{
                name: _by_image(count, tf.reduce_mean)
                for name, count in zip(self.logged_statistics, counts, strict=True)
            },
        }

    def _views(self, y: Labels, adversarial: Outputs, clean: Outputs) -> tuple[Views, Views]:
        """This replica's views, and those of all replicas."""
        both = (clean, adversarial)
        latents = [upcast_half(outputs[self.latent]) for outputs in both]
        predictions = [
            tf.argmax(outputs["logits"], axis=1, output_type=y.dtype) for outputs in both
        ]
        images = collectives.numbers(tf.shape(y)[0])
        sides = [tf.fill(tf.shape(y), side) for side in (0, 1)]
        columns = [latents, [y, y], predictions, [images, images], sides]
        everywhere = [[collectives.gathered(part) for part in column] for column in columns]
        return (
            Views(*(tf.concat(column, axis=0) for column in columns)),
            Views(*(tf.concat(column, axis=0) for column in everywhere)),
        )


def _by_image(values: PerExample, reduce: Callable) -> PerExample:
    """Values of the first and the second views, `[2 * batch]`, as one for each image."""
    return reduce(tf.reshape(values, [2, -1]), axis=0)
