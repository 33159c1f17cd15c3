"""Latents of clean and attacked images, and their projection to a plane."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.core.classifier import as_forward, classifier_of, features_of
from keras_robust.evaluation.batching import attacked
from keras_robust.losses import uncertainty


@dataclasses.dataclass(frozen=True, eq=False)
class Latents:
    """The latents of images: first all clean ones, then, in the same order, the attacked ones.

    Args:
        features: `[n, d]`.
        entropies: `[n]`, of the predictions, in nats.
        labels: `[n]`, the true classes.
        predictions: `[n]`, the classes predicted.
        adversarial: `[n]` bool, which are of attacked images.
    """

    features: np.ndarray
    entropies: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    adversarial: np.ndarray

    @property
    def fooling(self) -> np.ndarray:
        """`[n]` bool, which are of attacked images that the model takes for another class."""
        return self.adversarial & (self.predictions != self.labels)


def latents(
    model: Any, data: Any, attack: Attack, *, limit: int | None = 1000, seed: int = 0
) -> Latents:
    """The latents of clean images and of the same images attacked, with the predictions.

    Args:
        model: a robust model, a classifier, or a function `images -> {"logits", "features"}`; of an
            ensemble, the prediction is the members' mean.
        data: a `tf.data.Dataset` of batches `(images, labels)`, or a pair of arrays.
        attack: makes the attacked images; compiled once.
        limit: use only the first so many images; None for all.
        seed: of the attack.

    Returns:
        Latents of twice as many images.

    Raises:
        TypeError: the model returns no features, or `attack` is none.
        ValueError: no data.

    Example:
        >>> import keras_robust as kr
        >>> x = np.array([[0.9, 0.2], [0.6, 0.5]], "float32")
        >>> attack = kr.attacks.fgsm(kr.LinfBall(0.1))
        >>> found = latents(lambda x: {"logits": x, "features": x}, (x, [0, 0]), attack)
        >>> found.features.shape, found.fooling.tolist()
        ((4, 2), [False, False, False, True])
    """
    forward = as_forward(classifier_of(model))

    @tf.function(reduce_retracing=True, autograph=False)
    def look(x: Any) -> tuple[tf.Tensor, ...]:
        outputs = forward(x)
        log_p = uncertainty.mean_log_probability(outputs)
        return features_of(outputs), uncertainty.entropy(outputs), tf.argmax(log_p, axis=1)

    kinds: tuple[list, list] = ([], [])
    labels = []
    for x, x_adv, y in attacked(model, data, attack, limit, seed):
        for found, images in zip(kinds, (tf.constant(x), x_adv), strict=True):
            found.append([part.numpy() for part in look(images)])
        labels.append(y)
    features, entropies, predictions = (
        np.concatenate(parts) for parts in zip(*kinds[0], *kinds[1], strict=True)
    )
    once = np.concatenate(labels)
    adversarial = np.repeat([False, True], len(once))
    return Latents(features, entropies, np.tile(once, 2), predictions, adversarial)


def project(features: np.ndarray, *, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
    """Latents as points of a plane, by t-SNE: those that are close stay close.

    Clean and attacked latents belong into one call: the axes of two calls have nothing in common.
    Distances between clusters, and their sizes, mean little.

    Args:
        features: `[n, d]`, finite.
        perplexity: about how many neighbours of a point are kept close; less than `n`.
        seed: of the optimisation.

    Returns:
        `[n, 2]`.

    Raises:
        ValueError: features of another shape, not finite, or too few of them for the perplexity.

    Example:
        >>> z = np.random.default_rng(0).normal(size=(12, 5))
        >>> project(z, perplexity=4).shape
        (12, 2)

    Reference: van der Maaten and Hinton, "Visualizing Data using t-SNE" (2008).
    """
    from sklearn.manifold import TSNE  # slow to import, and needed here alone
    from threadpoolctl import threadpool_limits

    features = np.asarray(features, np.float32)
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(
            f"Features have shape {features.shape}, or are not finite; expected finite numbers "
            "[n, d]."
        )
    if not 0 < perplexity < len(features):
        raise ValueError(
            f"perplexity is {perplexity:g} for {len(features)} latents; expected more than 0 and "
            "fewer than there are latents. Pass more images, or a smaller perplexity."
        )
    # Started from principal components where there are two: it keeps more of the whole.
    start = "pca" if features.shape[1] > 1 else "random"
    tsne = TSNE(perplexity=perplexity, init=start, random_state=seed)
    # The order of a sum over threads would show in the points; and beside a training that keeps the
    # processors busy, threads that wait for each other take many times as long.
    with threadpool_limits(1):
        return tsne.fit_transform(features)
