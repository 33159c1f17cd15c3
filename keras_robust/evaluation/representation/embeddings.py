"""Latents of clean and attacked images, and their projection to a plane by t-SNE."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.core.classifier import as_forward, classifier_of, features_of
from keras_robust.core.graphs import compiled
from keras_robust.core.types import Images
from keras_robust.core.validation import check_number
from keras_robust.evaluation.running.batching import Data, Model, attacked
from keras_robust.losses import uncertainty


@dataclasses.dataclass(frozen=True, eq=False)
class Latents:
    """Latents of images: all clean images, then their attacked versions in the same order.

    Args:
        features: `[n, d]`.
        entropies: `[n]`, entropies of the predictions, in nats.
        labels: `[n]`, true classes.
        predictions: `[n]`, predicted classes.
        adversarial: `[n]` bool, which rows belong to attacked images.
    """

    features: np.ndarray
    entropies: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    adversarial: np.ndarray

    @property
    def fooling(self) -> np.ndarray:
        """`[n]` bool, which rows belong to attacked images that are misclassified."""
        return self.adversarial & (self.predictions != self.labels)


def latents(
    model: Model, data: Data, attack: Attack, *, limit: int | None = 1000, seed: int = 0
) -> Latents:
    """Latents and predictions of clean images and of their attacked versions.

    Args:
        model: a robust model, a classifier, or a function `images -> {"logits", "features"}`; an
            ensemble predicts by the members' mean probability.
        data: batches of images and labels as `fit` takes them, or a pair of arrays.
        attack: crafts the attacked images.
        limit: use only the first `limit` images; None for all.
        seed: seed of the attack.

    Returns:
        Two rows per image.

    Raises:
        TypeError: the model returns no features, or `attack` is not an `Attack`.
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

    @compiled
    def embed(x: Images) -> tuple[tf.Tensor, ...]:
        outputs = forward(x)
        log_p = uncertainty.mean_log_probability(outputs)
        return features_of(outputs), uncertainty.entropy(outputs), tf.argmax(log_p, axis=1)

    clean_and_attacked: tuple[list, list] = ([], [])
    labels = []
    for x, x_adv, y in attacked(model, data, attack, limit, seed):
        for found, images in zip(clean_and_attacked, (tf.constant(x), x_adv), strict=True):
            found.append([part.numpy() for part in embed(images)])
        labels.append(y)
    features, entropies, predictions = (
        np.concatenate(parts)
        for parts in zip(*clean_and_attacked[0], *clean_and_attacked[1], strict=True)
    )
    once = np.concatenate(labels)
    adversarial = np.repeat([False, True], len(once))
    return Latents(features, entropies, np.tile(once, 2), predictions, adversarial)


def project(features: npt.ArrayLike, *, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
    """Projects latents to a plane by t-SNE, which keeps neighbors close.

    Project clean and attacked latents in one call: the axes of two calls are unrelated. Distances
    between clusters, and their sizes, mean little.

    Args:
        features: `[n, d]`, finite.
        perplexity: approximate number of neighbors kept close, in (0, n).
        seed: seed of the optimization.

    Returns:
        `[n, 2]`.

    Raises:
        ValueError: features of another shape, not finite, or too few for the perplexity.

    Example:
        >>> z = np.random.default_rng(0).normal(size=(12, 5))
        >>> project(z, perplexity=4).shape
        (12, 2)

    Reference: van der Maaten and Hinton, "Visualizing Data using t-SNE" (2008).
    """
    from sklearn.manifold import TSNE  # slow to import
    from threadpoolctl import threadpool_limits

    features = np.asarray(features, np.float32)
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(
            f"features have shape {features.shape} or are not finite; expected finite numbers "
            "[n, d]."
        )
    hint = f" for {len(features)} latents; pass more images, or a smaller perplexity"
    check_number("perplexity", perplexity, above=0, below=len(features), hint=hint)
    # From principal components if there are two, which keeps more of the global structure.
    start = "pca" if features.shape[1] > 1 else "random"
    tsne = TSNE(perplexity=perplexity, init=start, random_state=seed)
    # The order of a sum over threads would change the points; and when other programs keep the
    # processors busy, threads that wait for each other are many times slower.
    with threadpool_limits(1):
        return tsne.fit_transform(features)
