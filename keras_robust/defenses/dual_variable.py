"""The dual variable of distributionally robust training."""

from __future__ import annotations

import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.types import Images, Radius
from keras_robust.core.validation import check_choice, check_integer, check_number
from keras_robust.threat_models.transport_cost import cost, smoothed


@serializable
class DualVariable:
    """Updates a dual variable lambda: `lambda <- lambda - learning_rate * (radius - mean cost)`.

    Args:
        initial_value: value of lambda before the first update, >= 0.
        learning_rate: step size of the update, >= 0; 0 keeps lambda constant.
        period: number of batches between updates, which use the mean cost over these batches.
        distance: cost of a perturbation: `"l1"`, the mean change of a pixel, as in the authors'
            code, or `"linf"`, the smoothed largest change, as in the thesis.
        clamp: whether lambda stays >= 0, as the theory requires.

    Raises:
        ValueError: a negative number, a period below 1, another distance.

    Example:
        >>> DualVariable(distance="linf").initial_value
        1.0

    Reference: Bui et al., "A Unified Wasserstein Distributional Robustness Framework for
    Adversarial Training" (2022), Algorithm 1; thesis, Eq. 19 of chapter 5.
    """

    initial_value: float = 1.0
    learning_rate: float = 0.02
    period: int = 1
    distance: str = "l1"
    clamp: bool = True

    def __post_init__(self) -> None:
        check_number("DualVariable: initial_value", self.initial_value)
        check_number("DualVariable: learning_rate", self.learning_rate)
        check_integer("DualVariable: period", self.period, 1)
        check_choice("DualVariable: distance", self.distance, ("l1", "linf"))

    def measure(
        self, delta: Images, radius: Radius, tau: Radius, pixels: int | tf.Tensor | None = None
    ) -> tf.Tensor:
        """The cost of each perturbation, `[batch]`; `pixels` is how many may change, if not all."""
        value = cost(self.distance, delta, pixels)
        return value if self.distance == "l1" else smoothed(value, radius, tau)

    def updated(self, dual: tf.Tensor, radius: Radius, mean_cost: tf.Tensor) -> tf.Tensor:
        """The dual variable after an update.

        Example:
            >>> float(DualVariable(learning_rate=0.5).updated(tf.constant(1.0), 0.25, 0.5))
            1.125
        """
        moved = dual - self.learning_rate * (radius - mean_cost)
        return tf.maximum(moved, 0.0) if self.clamp else moved
