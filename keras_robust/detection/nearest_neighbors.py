"""The distance of features to their nearest neighbors among clean training images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.core.classifier import features_of
from keras_robust.core.types import Outputs, PerExample
from keras_robust.core.validation import check_integer
from keras_robust.detection.fitted import FittedToOutputs, subset

_TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class NearestNeighbors(FittedToOutputs):
    """Distance of the normalized features to the k-th nearest of a bank of clean images.

    Memory and cost of an image: `bank d` numbers and multiplications, for `d` features.

    Args:
        model, threshold, false_alarm_rate, samples, scored_by, statistics: see `FittedDetector`.
        k: which neighbor, from 1.
        bank: the largest number of training images to keep, drawn with a fixed seed.

    Raises:
        ValueError: `k` or `bank` is not an integer >= 1, or fewer than `k` images are kept.

    Example:
        >>> def model(x):
        ...     features = tf.reshape(x, [-1, 4])
        ...     return {"logits": features[:, :2], "features": features}
        >>> x = np.random.default_rng(0).uniform(size=(64, 2, 2, 1)).astype(np.float32)
        >>> detector = NearestNeighbors(model, k=3, bank=40).fit((x,))
        >>> detector.fitted["bank"].shape
        (40, 4)

    Reference: Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors" (2022),
    section 3.
    """

    NAME = "nearest_neighbors"
    TITLE = "distance to the k-th nearest training image"

    k: int = dataclasses.field(default=5, kw_only=True)
    bank: int = dataclasses.field(default=1000, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bank(self.NAME, self.k, self.bank)

    def observe(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """The normalized features, `[batch, d]`."""
        return {"features": _normalized(outputs)}

    def summarize(self, observed: dict[str, np.ndarray], y: np.ndarray) -> dict[str, np.ndarray]:
        """The bank."""
        del y
        return {"bank": kept(self.NAME, observed["features"], self.k, self.bank)}

    def measure(self, outputs: Outputs, statistics: Mapping[str, Any]) -> PerExample:
        """The distance to the k-th neighbor, from 0 to 2."""
        cosines = tf.matmul(_normalized(outputs), statistics["bank"], transpose_b=True)
        nearest = tf.math.top_k(cosines, self.k).values[:, -1]
        return tf.sqrt(tf.nn.relu(2 - 2 * nearest) + _TINY)


def check_bank(name: str, k: int, bank: int) -> None:
    """Raises ValueError unless both are integers >= 1."""
    check_integer(f"{name}: k", k, 1)
    check_integer(f"{name}: bank", bank, 1)


def kept(name: str, features: np.ndarray, k: int, bank: int) -> np.ndarray:
    """At most `bank` rows of features, drawn with a fixed seed.

    Raises:
        ValueError: fewer than `k`.
    """
    rows = subset(len(features), bank)
    if len(rows) < k:
        raise ValueError(
            f"{name!r} keeps {len(rows)} of {len(features)} training images, and k is {k}; "
            "expected at least k. Pass more images, a larger bank or a smaller k."
        )
    return np.ascontiguousarray(features[rows], np.float32)


def _normalized(outputs: Outputs) -> tf.Tensor:
    features = tf.cast(features_of(outputs), tf.float32)
    return features * tf.math.rsqrt(
        tf.reduce_sum(tf.square(features), axis=1, keepdims=True) + _TINY
    )
