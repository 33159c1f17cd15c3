"""Intra-class and inter-class divergence of the latent space, and their ratio R-DIV."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.core.classifier import as_forward, classifier_of, features_of
from keras_robust.core.graphs import compiled
from keras_robust.core.labels import class_numbers
from keras_robust.core.types import Labels
from keras_robust.core.validation import check_integer
from keras_robust.evaluation.representation.embeddings import Latents
from keras_robust.evaluation.results.display import pairs_html
from keras_robust.evaluation.running.batching import Data, Model, attacked
from keras_robust.losses.pairwise_distance import unit

_NAMES = ("intra", "inter", "clean_intra", "clean_inter", "own")


@dataclasses.dataclass(frozen=True)
class Divergence:
    """Mean cosine distances between the latents of a model, each in [0, 2].

    Args:
        intra: from a clean image to the clean and attacked images of its class, `d_a^+`.
        inter: from a clean image to the clean and attacked images of other classes, `d_a^-`.
        clean_intra: from a clean image to the clean images of its class.
        clean_inter: from a clean image to the clean images of other classes.
        own: from a clean image to its own attacked version, which the others leave out.
        samples: number of images.
    """

    intra: float
    inter: float
    clean_intra: float
    clean_inter: float
    own: float
    samples: int

    _repr_html_ = pairs_html

    @property
    def ratio(self) -> float:
        """R-DIV, `intra / inter`: the lower, the more robust; NaN if all latents are equal."""
        return _ratio(self.intra, self.inter)

    @property
    def clean_ratio(self) -> float:
        """The same on clean images only, `clean_intra / clean_inter`."""
        return _ratio(self.clean_intra, self.clean_inter)


def divergence(
    model: Model, data: Data, attack: Attack, *, limit: int | None = None, seed: int = 0
) -> Divergence:
    """Intra-class and inter-class divergence of the latents, whose ratio is R-DIV.

    The anchors are the clean images. An anchor `x_i` is compared with the clean and the attacked
    versions of all other images `x_j` of its mini-batch, `j != i`: with those of its class for
    `intra`, with those of other classes for `inter`. Each is the mean over anchors of the mean over
    the images an anchor is compared with; anchors without any such image are left out.

    Shuffle data that is sorted by class, as batches must contain several classes. The value depends
    little on the batch size; arrays are split into batches of 128, the paper's size.

    Differs: the paper averages the means of mini-batches; here all anchors have equal weight. The
    two agree for batches of equal size.

    Args:
        model, data, limit, seed: as for `keras_robust.evaluation.latents`.
        attack: crafts the attacked images.

    Returns:
        The divergences, with `ratio` and `clean_ratio`.

    Raises:
        TypeError: the model returns no features, or `attack` is not an `Attack`.
        ValueError: no data, features that are not finite, or no batch in which an image has
            another image of its class, or of another class.

    Example:
        >>> import keras_robust as kr
        >>> x = np.array([[0.9, 0.2], [0.8, 0.1], [0.1, 0.8], [0.3, 0.9]], "float32")
        >>> attack = kr.attacks.fgsm(kr.LinfBall(0.1))
        >>> identity = lambda x: {"logits": x, "features": x}
        >>> found = divergence(identity, (x, [0, 0, 1, 1]), attack)
        >>> print(f"{found.clean_ratio:.3f} {found.ratio:.3f}")
        0.019 0.031

    Reference: Bui et al., "Understanding and Achieving Efficient Robustness with Adversarial
    Supervised Contrastive Learning" (2021), section 2 and appendix B.
    """
    forward = as_forward(classifier_of(model))
    features = compiled(lambda images: features_of(forward(images)))
    return over_batches(
        (features(tf.constant(x)), features(x_adv), y)
        for x, x_adv, y in attacked(model, data, attack, limit, seed)
    )


def divergence_of(latents: Latents, batch_size: int = 128) -> Divergence:
    """The divergences of given latents, as `divergence` without running the attack again.

    Args:
        latents: result of `keras_robust.evaluation.latents`.
        batch_size: number of images that are compared with each other.

    Returns:
        The divergences.

    Raises:
        ValueError: a batch size below 1, or as for `divergence`.

    Example:
        >>> import keras_robust as kr
        >>> x = np.array([[0.9, 0.2], [0.8, 0.1], [0.1, 0.8], [0.3, 0.9]], "float32")
        >>> attack = kr.attacks.fgsm(kr.LinfBall(0.1))
        >>> identity = lambda x: {"logits": x, "features": x}
        >>> found = kr.evaluation.latents(identity, (x, [0, 0, 1, 1]), attack)
        >>> print(f"{divergence_of(found).ratio:.3f}")
        0.031
    """
    check_integer("batch_size", batch_size, 1)
    clean, adversarial = ~latents.adversarial, latents.adversarial
    columns = (latents.features[clean], latents.features[adversarial], latents.labels[clean])
    return over_batches(
        tuple(column[begin : begin + batch_size] for column in columns)
        for begin in range(0, len(columns[0]), batch_size)
    )


def over_batches(batches: Iterable[tuple[tf.Tensor, tf.Tensor, Labels]]) -> Divergence:
    """The divergences of batches of clean features, attacked features and labels."""

    @compiled
    def measure(clean: tf.Tensor, adversarial: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        sums = [*_sums(clean, y, adversarial), *_sums(clean, y, None), _own(clean, adversarial)]
        return tf.cast(tf.stack(sums), tf.float64)

    totals, samples = np.zeros((len(_NAMES), 2)), 0
    for clean, adversarial, y in batches:
        part = measure(*map(tf.constant, (clean, adversarial, y))).numpy()
        if not np.isfinite(part).all():
            raise ValueError(
                f"The features of some of the images {samples} to {samples + len(y) - 1} are not "
                "finite; expected finite features. Look for NaN in the model's weights."
            )
        totals, samples = totals + part, samples + len(y)
    _check(totals, samples)
    means = totals[:, 0] / totals[:, 1]
    return Divergence(**dict(zip(_NAMES, map(float, means), strict=True)), samples=samples)


def class_divergence(
    features: tf.Tensor, labels: Labels, adversarial: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Intra-class and inter-class divergence of the latents of one batch.

    Cosine distances, `1 - cos`, from each clean latent to the clean and adversarial latents of the
    other images of its class, and of other classes; a zero vector has distance 1 from everything.
    Averaged as in `divergence`.

    Args:
        features: `[batch, d]` float, of the clean images, which are the anchors.
        labels: class numbers `[batch]`, or in another form that `fit` takes.
        adversarial: `[batch, d]` float, of the attacked images; None leaves them out.

    Returns:
        Two scalars; NaN where no anchor has another image of its class, or of another class.

    Example:
        >>> z = tf.constant([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
        >>> intra, inter = class_divergence(z, tf.constant([0, 0, 1]))
        >>> print(f"{intra:.2f} {inter:.2f}")
        0.40 0.60

    Reference: Bui et al. (2021), section 2, (i) and (ii).
    """
    intra, inter = _sums(features, class_numbers("Labels", labels, features), adversarial)
    return intra[0] / intra[1], inter[0] / inter[1]


def _sums(
    features: tf.Tensor, labels: Labels, adversarial: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sum over anchors and number of anchors, for the same class and for other classes."""
    anchors = unit(features)
    views = [anchors] if adversarial is None else [anchors, unit(adversarial)]
    # An anchor is compared with both views of an image or with none, so the mean over views can
    # be taken first, and one matrix [batch, batch] is in memory.
    cosines = tf.add_n([tf.matmul(anchors, view, transpose_b=True) for view in views]) / len(views)
    distance = tf.maximum(1.0 - cosines, 0.0)  # rounding may leave a cosine above 1
    same = tf.equal(labels[:, None], labels[None, :])
    itself = tf.eye(tf.shape(labels)[0], dtype=tf.bool)
    return (
        _over_anchors(distance, same & ~itself),
        _over_anchors(distance, ~same),
    )


def _over_anchors(distance: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    chosen = tf.cast(chosen, distance.dtype)
    partners = tf.reduce_sum(chosen, axis=1)
    means = tf.math.divide_no_nan(tf.reduce_sum(distance * chosen, axis=1), partners)
    counted = tf.cast(partners > 0, distance.dtype)
    return tf.stack([tf.reduce_sum(means), tf.reduce_sum(counted)])


def _own(features: tf.Tensor, adversarial: tf.Tensor) -> tf.Tensor:
    cosine = tf.reduce_sum(unit(features) * unit(adversarial), axis=1)
    distance = tf.maximum(1.0 - cosine, 0.0)
    return tf.stack([tf.reduce_sum(distance), tf.reduce_sum(tf.ones_like(distance))])


def _check(totals: np.ndarray, samples: int) -> None:
    for row, which in ((0, "of the same class"), (1, "of a different class")):
        if totals[row, 1] == 0:
            raise ValueError(
                f"None of {samples} images has another image {which} in its batch; expected at "
                "least one. Use larger batches, and shuffle data that is sorted by class."
            )


def _ratio(intra: float, inter: float) -> float:
    return intra / inter if inter else math.nan
