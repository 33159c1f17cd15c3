"""Feature squeezing: how far a prediction moves when the image is simplified."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.core.classifier import as_forward, bounds_of
from keras_robust.core.types import Forward, Images, Outputs, PerExample
from keras_robust.core.validation import check_integer
from keras_robust.detection.fitted import FittedDetector
from keras_robust.detection.statistics import Statistics
from keras_robust.losses.uncertainty import mean_log_probability


@dataclasses.dataclass(frozen=True)
class FeatureSqueezing(FittedDetector):
    """The largest L1 distance of the prediction from those for squeezed images.

    An image is squeezed in two ways: fewer bits for each pixel, and a median over small windows.
    The cost is three forward passes instead of one; there are no statistics to store.

    Args:
        model, threshold, false_alarm_rate, samples, scored_by, statistics: see `FittedDetector`.
        bits: bits of a pixel; None takes 1 for gray images and 5 for color, the best of the paper.
        window: height and width of the median's window.

    Raises:
        ValueError: `bits` or `window` is not an integer >= 1.

    Example:
        >>> detector = FeatureSqueezing(lambda x: {"logits": 9 * tf.reshape(x, [-1, 4])}, bits=1)
        >>> float(detector.score(tf.zeros([1, 2, 2, 1]))[0])
        0.0

    Reference: Xu et al., "Feature Squeezing: Detecting Adversarial Examples in Deep Neural
    Networks" (2018), Eq. 2 and table IV.

    Differs: without their third squeezer, non-local means. Gradients pass the reduction of bits
    unchanged (Athalye et al. 2018, BPDA), so that adaptive attacks can follow them.
    """

    NAME = "feature_squeezing"
    TITLE = "change of the prediction by squeezing (L1)"

    bits: int | None = dataclasses.field(default=None, kw_only=True)
    window: int = dataclasses.field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits is not None:
            check_integer("feature_squeezing: bits", self.bits, 1)
        check_integer("feature_squeezing: window", self.window, 1)
        if self.statistics is None:
            object.__setattr__(self, "statistics", Statistics({}))

    def gather(
        self, train: Iterable[Any], bounds: tuple[float, float] | None
    ) -> Mapping[str, np.ndarray]:
        """Nothing; the images are not read."""
        del train, bounds
        return {}

    def extended_outputs(self, x: Images, forward: Forward | None = None) -> Outputs:
        """The model's outputs, with the logarithms of predictions of squeezed images."""
        forward = forward or as_forward(self.model)
        outputs = forward(x)
        squeezed = [mean_log_probability(forward(image)) for image in self.squeeze(x)]
        return {**outputs, "squeezed": tf.stack(squeezed)}

    def squeeze(self, x: Images) -> tuple[Images, Images]:
        """The images with fewer bits, and with medians."""
        bounds = bounds_of(self.model) or (0.0, 1.0)
        bits = self.bits or (1 if x.shape[-1] == 1 else 5)
        return reduce_bits(x, bits, bounds), median(x, self.window)

    def measure(self, outputs: Outputs, statistics: Mapping[str, Any]) -> PerExample:
        """The larger distance, from 0 to 2."""
        del statistics
        moved = tf.exp(outputs["squeezed"]) - tf.exp(mean_log_probability(outputs))
        return tf.reduce_max(tf.reduce_sum(tf.abs(moved), axis=-1), axis=0)


def reduce_bits(x: Images, bits: int, bounds: tuple[float, float] = (0.0, 1.0)) -> Images:
    """Rounds pixels to `2^bits` values; the gradient is that of the identity.

    Example:
        >>> reduce_bits(tf.constant([0.2, 0.6]), bits=1).numpy().tolist()
        [0.0, 1.0]
    """
    low, width = bounds[0], bounds[1] - bounds[0]
    levels = 2.0**bits - 1

    @tf.custom_gradient
    def rounded(x: Images) -> tuple[Images, Any]:
        return tf.round(
            (x - low) / width * levels
        ) / levels * width + low, lambda upstream: upstream

    return rounded(x)


def median(x: Images, window: int) -> Images:
    """The median of the window around each pixel, reflected at the edges, in each channel.

    Of an even number of values, the larger of the two in the middle, as in the paper's code.

    Example:
        >>> median(tf.reshape([0.0, 1.0, 0.0, 1.0], [1, 1, 4, 1]), 1).shape.as_list()
        [1, 1, 4, 1]
    """
    before, after = window // 2, window - 1 - window // 2
    edges = [[0, 0], [before, after], [before, after], [0, 0]]
    padded = tf.pad(x, edges, mode="SYMMETRIC")
    height, width = x.shape[1], x.shape[2]
    shifted = [
        padded[:, row : row + height, column : column + width]
        for row in range(window)
        for column in range(window)
    ]
    # The largest `rank` values; their last is the median.
    rank = window * window - (window * window) // 2
    return tf.math.top_k(tf.stack(shifted, axis=-1), rank).values[..., -1]
