"""Mahalanobis distances of features: to the nearest class, and relative to all classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.core.classifier import features_of
from keras_robust.core.types import Images, Outputs, PerExample
from keras_robust.detection.fitted import FittedToOutputs


@dataclasses.dataclass(frozen=True)
class Mahalanobis(FittedToOutputs):
    """Squared Mahalanobis distance of the features to the nearest class mean.

    `min_c (f - mu_c)^T S^-1 (f - mu_c)`, with the class means and the covariance within classes of
    clean training images, shrunk as by Ledoit and Wolf. Memory `d^2 + classes d` numbers, cost as
    many multiplications, for `d` features; the fit takes `n d^2`.

    Args:
        model, threshold, false_alarm_rate, samples, scored_by, statistics: see `FittedDetector`.

    Example:
        >>> def model(x):
        ...     features = tf.reshape(x, [-1, 4])
        ...     return {"logits": features[:, :2], "features": features}
        >>> x = np.random.default_rng(0).uniform(size=(64, 2, 2, 1)).astype(np.float32)
        >>> detector = Mahalanobis(model).fit((x, np.arange(64) % 2)).calibrate((x,), 0.25)
        >>> detector.scored_by, detector.fitted["means"].shape
        ('mahalanobis', (2, 4))

    Reference: Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
    Adversarial Attacks" (2018), Eq. 2.

    Differs: one layer, without their regression on adversarial images, and a shrunk covariance.
    """

    NAME = "mahalanobis"
    TITLE = "squared Mahalanobis distance to the nearest class"
    NEEDS_LABELS = True

    def observe(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """The features, `[batch, d]`."""
        return {"features": tf.cast(features_of(outputs), tf.float32)}

    def summarize(self, observed: dict[str, np.ndarray], y: np.ndarray) -> dict[str, np.ndarray]:
        """The center, the whitening of deviations from class means, and the whitened means."""
        features = observed["features"].astype(np.float64)
        center = features.mean(axis=0)
        classes = np.unique(y)
        means = np.stack([features[y == label].mean(axis=0) for label in classes])
        whiten = whitening(features - means[np.searchsorted(classes, y)])
        return _float32(center=center, whitening=whiten, means=(means - center) @ whiten)

    def measure(self, outputs: Outputs, statistics: Mapping[str, Any]) -> PerExample:
        """The squared distance to the nearest mean."""
        return tf.reduce_min(class_distances(outputs, statistics), axis=1)


@dataclasses.dataclass(frozen=True)
class RelativeMahalanobis(Mahalanobis):
    """Mahalanobis distance to the nearest class minus that to all training images.

    `min_c M_c - M_0`, where `M_0` is of one Gaussian of all classes: directions in which all images
    differ count less. Twice the memory and cost of `Mahalanobis`.

    Args:
        model, threshold, false_alarm_rate, samples, scored_by, statistics: see `FittedDetector`.

    Example:
        >>> RelativeMahalanobis(lambda x: {"logits": x, "features": x}).scored_by
        'relative_mahalanobis'

    Reference: Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection"
    (2021), Eq. 3.
    """

    NAME = "relative_mahalanobis"
    TITLE = "Mahalanobis distance to the nearest class, relative to all classes"

    def summarize(self, observed: dict[str, np.ndarray], y: np.ndarray) -> dict[str, np.ndarray]:
        """Those of the classes, and the whitening of deviations from the center."""
        found = super().summarize(observed, y)
        features = observed["features"].astype(np.float64)
        return {**found, **_float32(background=whitening(features - features.mean(axis=0)))}

    def measure(self, outputs: Outputs, statistics: Mapping[str, Any]) -> PerExample:
        """The difference of the two squared distances."""
        nearest, all_images = self._distances(outputs, statistics)
        return nearest - all_images

    def _distances(
        self, outputs: Outputs, statistics: Mapping[str, Any]
    ) -> tuple[PerExample, PerExample]:
        deviation = tf.cast(features_of(outputs), tf.float32) - statistics["center"]
        background = tf.reduce_sum(tf.square(deviation @ statistics["background"]), axis=1)
        return super().measure(outputs, statistics), background

    def score_tolerance(self, x: Images, error: float) -> float:
        """The tolerance of the larger of the two distances, whose difference is small."""
        distances = self._distances(self.extended_outputs(x), self.fitted)
        largest = max(float(tf.reduce_max(distance)) for distance in distances)
        return max(super().score_tolerance(x, error), 20 * error * largest)


def class_distances(outputs: Outputs, statistics: Mapping[str, Any]) -> tf.Tensor:
    """Squared Mahalanobis distances of features to all class means, `[batch, classes]`."""
    deviation = tf.cast(features_of(outputs), tf.float32) - statistics["center"]
    whitened, means = deviation @ statistics["whitening"], tf.convert_to_tensor(statistics["means"])
    return squared_distances(whitened, means)


def squared_distances(x: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """Squared Euclidean distances `[batch, n]` of rows `[batch, d]` and `[n, d]`.

    By one matrix product, whose memory does not grow with `batch n d`.
    """
    crossed = tf.matmul(x, points, transpose_b=True)
    lengths = tf.reduce_sum(tf.square(x), axis=1, keepdims=True)
    return tf.nn.relu(lengths - 2 * crossed + tf.reduce_sum(tf.square(points), axis=1))


def whitening(deviations: np.ndarray) -> np.ndarray:
    """`W` with `W W^T` the inverse of the shrunk covariance of deviations, `[d, d]`."""
    from sklearn.covariance import ledoit_wolf

    covariance = ledoit_wolf(deviations, assume_centered=True)[0]
    values, vectors = np.linalg.eigh(covariance)
    # Features that never vary, such as dead units, would have an infinite distance.
    floor = 1e-6 * max(float(values.max()), np.finfo(np.float64).tiny)
    return vectors / np.sqrt(np.maximum(values, floor))


def _float32(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float32) for name, array in arrays.items()}
