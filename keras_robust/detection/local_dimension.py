"""Local intrinsic dimensionality of features among those of clean training images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.core.classifier import features_of
from keras_robust.core.types import Outputs, PerExample
from keras_robust.detection.fitted import FittedToOutputs
from keras_robust.detection.nearest_neighbors import check_bank, kept

_TINY = 1e-12
_LEAST = 1e-6  # of the mean log-ratio: all neighbors at one distance


@dataclasses.dataclass(frozen=True)
class LocalDimension(FittedToOutputs):
    """Local intrinsic dimensionality (LID) of the features, estimated from k neighbors in a bank.

    `-1 / mean_i log(r_i / r_k)` over the distances `r_1 <= ... <= r_k`: how fast the number of
    neighbors grows with the distance. Memory and cost as of `NearestNeighbors`.

    Args:
        model, threshold, false_alarm_rate, samples, scored_by, statistics: see `FittedDetector`.
        k: number of neighbors, at least 2.
        bank: the largest number of training images to keep, drawn with a fixed seed.

    Raises:
        ValueError: as for `NearestNeighbors`.

    Example:
        >>> def model(x):
        ...     features = tf.reshape(x, [-1, 4])
        ...     return {"logits": features[:, :2], "features": features}
        >>> x = np.random.default_rng(0).uniform(size=(64, 2, 2, 1)).astype(np.float32)
        >>> LocalDimension(model, k=10).fit((x,)).score(x).shape.as_list()
        [64]

    Reference: Ma et al., "Characterizing Adversarial Subspaces Using Local Intrinsic
    Dimensionality" (2018), Eq. 4.

    Differs: one layer, and neighbors in a fixed bank, instead of a regression on the dimensions of
    all layers in minibatches of clean, noisy and adversarial images.
    """

    NAME = "lid"
    TITLE = "local intrinsic dimensionality"

    k: int = dataclasses.field(default=20, kw_only=True)
    bank: int = dataclasses.field(default=500, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bank(self.NAME, self.k, self.bank)
        if self.k == 1:
            raise ValueError("lid: k is 1; expected at least 2 neighbors.")

    def observe(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """The features, `[batch, d]`."""
        return {"features": tf.cast(features_of(outputs), tf.float32)}

    def summarize(self, observed: dict[str, np.ndarray], y: np.ndarray) -> dict[str, np.ndarray]:
        """The bank, and its center, whose subtraction keeps digits of the distances."""
        del y
        features = kept(self.NAME, observed["features"], self.k, self.bank)
        center = features.mean(axis=0)
        return {"bank": features - center, "center": center}

    def measure(self, outputs: Outputs, statistics: Mapping[str, Any]) -> PerExample:
        """The estimate, positive."""
        features = tf.cast(features_of(outputs), tf.float32) - statistics["center"]
        bank = tf.convert_to_tensor(statistics["bank"])
        # Of |f - b|^2 = |f|^2 - (2 f b - |b|^2), the last part alone orders the neighbors.
        lengths = tf.reduce_sum(tf.square(bank), axis=1)
        nearest = tf.math.top_k(tf.matmul(features, 2 * bank, transpose_b=True) - lengths, self.k)
        square = tf.reduce_sum(tf.square(features), axis=1, keepdims=True)
        squares = tf.nn.relu(square - nearest.values)
        # Of squares: half the logarithm.
        logs = tf.math.log(squares + _TINY) / 2
        return 1 / tf.maximum(logs[:, -1] - tf.reduce_mean(logs, axis=1), _LEAST)
