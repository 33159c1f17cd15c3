"""The positives and negatives that contrastive training selects on given images."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.core.classifier import as_forward, classifier_of
from keras_robust.core.graphs import compiled
from keras_robust.evaluation.running.batching import Data, Model, attacked
from keras_robust.losses.contrastive import Views, select


@dataclasses.dataclass(frozen=True, eq=False)
class ContrastPairs:
    """Views of a batch, clean images and then their attacked versions, and the pairs among them.

    Args:
        images: `[views, ...]`.
        labels: `[views]`, true classes.
        predictions: `[views]`, predicted classes.
        adversarial: `[views]` bool, which views are attacked images.
        positives: `[anchors, views]` bool; every view is an anchor.
        negatives: `[anchors, views]` bool.
    """

    images: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    adversarial: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    def counts(self) -> dict[str, float]:
        """The mean numbers of natural and adversarial positives and negatives of an anchor."""
        return {
            f"{kind}_{name}": float(mask[:, side].sum(axis=1).mean())
            for name, mask in (("positives", self.positives), ("negatives", self.negatives))
            for kind, side in (("natural", ~self.adversarial), ("adversarial", self.adversarial))
        }


def contrast_pairs(
    model: Model,
    data: Data,
    attack: Attack,
    selection: str = "leaked",
    *,
    limit: int = 128,
    seed: int = 0,
) -> ContrastPairs:
    """Selects positives and negatives among clean and attacked images, as ASCL does in training.

    Args:
        model, data, seed: as for `keras_robust.evaluation.evaluate`.
        attack: crafts the attacked images.
        selection: `"global"`, `"hard"`, `"soft"` or `"leaked"`: see `keras_robust.losses.select`.
        limit: the number of images, the first ones, which are compared with each other.

    Returns:
        The views and the pairs.

    Raises:
        TypeError: `attack` is not an `Attack`.
        ValueError: another selection, or no data.

    Example:
        >>> import keras_robust as kr
        >>> data = np.array([[0.9, 0.2], [0.2, 0.9]], "float32"), [0, 1]
        >>> attack = kr.attacks.fgsm(kr.LinfBall(0.1))
        >>> contrast_pairs(lambda x: {"logits": x}, data, attack, "global").counts()
        ... # doctest: +NORMALIZE_WHITESPACE
        {'natural_positives': 0.5, 'adversarial_positives': 0.5,
         'natural_negatives': 1.0, 'adversarial_negatives': 1.0}

    Reference: Bui et al., "Understanding and Achieving Efficient Robustness with Adversarial
    Supervised Contrastive Learning" (2021), Table 1 and Figures 4b and 9.
    """
    forward = as_forward(classifier_of(model))
    predict = compiled(lambda x: tf.argmax(forward(x)["logits"], axis=1, output_type=tf.int32))
    clean, moved, labels = [], [], []
    for x, x_adv, y in attacked(model, data, attack, limit, seed):
        clean.append(np.asarray(x))
        moved.append(np.asarray(x_adv))
        labels.append(np.asarray(y, np.int32))
    images = np.concatenate([*clean, *moved])
    once = np.concatenate(labels)
    predictions = np.concatenate([predict(tf.constant(part)).numpy() for part in (*clean, *moved)])
    sides = np.repeat([0, 1], len(once)).astype(np.int32)
    numbers = np.tile(np.arange(len(once), dtype=np.int32), 2)
    both = np.tile(once, 2)
    views = Views(*map(tf.constant, (np.zeros((len(both), 1)), both, predictions, numbers, sides)))
    positives, negatives = (mask.numpy() for mask in select(selection, views, views))
    return ContrastPairs(images, both, predictions, sides == 1, positives, negatives)
