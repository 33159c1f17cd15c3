"""The dual variable of distributional robustness, and how it is learned."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.validation import check_integer
from keras_robust.threat_models.transport_cost import cost, smoothed


@serializable
class DualVariable:
    """How the dual variable lambda is learned: `lambda <- lambda - rate * (radius - mean cost)`.

    Args:
        start: its first value, >= 0.
        rate: of its descent, >= 0; 0 keeps it.
        period: a step every so many batches, by the mean over the batches since the last step.
        distance: the cost of a perturbation: `"l1"`, the mean change of a pixel, as the authors'
            code has it, or `"linf"`, the largest, smoothed, as the thesis writes.
        clamp: whether it stays >= 0, as the theory asks; a negative one would push outwards.

    Raises:
        ValueError: a number below 0, a period below 1, another distance.

    Example:
        >>> DualVariable(distance="linf").start
        1.0

    Reference: Bui et al., "A Unified Wasserstein Distributional Robustness Framework for
    Adversarial Training" (2022), Algorithm 1; thesis, Eq. 19 of chapter 5.
    """

    start: float = 1.0
    rate: float = 0.02
    period: int = 1
    distance: str = "l1"
    clamp: bool = True

    def __post_init__(self) -> None:
        for name in ("start", "rate"):
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not 0 <= value < 1e30
            ):
                raise ValueError(f"Dual: {name} is {value!r}; expected a finite number >= 0.")
        check_integer("Dual: period", self.period, 1)
        if self.distance not in ("l1", "linf"):
            raise ValueError(f"Dual: distance is {self.distance!r}; expected 'l1' or 'linf'.")

    def measure(self, delta: tf.Tensor, radius: Any, tau: Any) -> tf.Tensor:
        """The cost of each perturbation, `[batch]`."""
        value = cost(self.distance, delta)
        return value if self.distance == "l1" else smoothed(value, radius, tau)

    def updated(self, dual: tf.Tensor, radius: Any, mean_cost: tf.Tensor) -> tf.Tensor:
        """The dual variable after a step.

        Example:
            >>> float(DualVariable(rate=0.5).updated(tf.constant(1.0), 0.25, tf.constant(0.5)))
            1.125
        """
        moved = dual - self.rate * (radius - mean_cost)
        return tf.maximum(moved, 0.0) if self.clamp else moved
