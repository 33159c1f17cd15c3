"""The radius of the training attack as a function of the step."""

from __future__ import annotations

import abc
from typing import Any

import tensorflow as tf

from keras_robust.core import random
from keras_robust.core.config import serializable
from keras_robust.core.validation import check_integer, check_number


class RadiusSchedule(abc.ABC):
    """The radius at which a step of training attacks, in the units of the images.

    A subclass is saved with the model if `keras_robust.core.config.serializable` decorates it, or
    if it is registered with Keras and has `get_config` and `from_config`.
    """

    @abc.abstractmethod
    def radius(self, step: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The radius of a step, a scalar.

        Args:
            step: the number of the step, from 0.
            seed: `[2]`, of the step; the same on all replicas and for all microbatches.
        """


@serializable
class LinearRadius(RadiusSchedule):
    """Moves linearly from one radius to another, where it stays; it grows or falls.

    Args:
        start: the radius before, >= 0.
        end: the radius after, >= 0.
        steps: number of steps over which it moves.
        delay: number of first steps at `start`.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> schedule = LinearRadius(0.25, 0.75, steps=4, delay=2)
        >>> [float(schedule.radius(step, None)) for step in range(7)]
        [0.25, 0.25, 0.375, 0.5, 0.625, 0.75, 0.75]

    Reference: Bui, thesis (2023), appendix of UDR: from 8/255 to 16/255, or back, between the
    epochs 20 and 70.
    """

    start: float
    end: float
    steps: int
    delay: int = 0

    def __post_init__(self) -> None:
        check_number("LinearRadius: start", self.start)
        check_number("LinearRadius: end", self.end)
        check_integer("LinearRadius: steps", self.steps, 1)
        check_integer("LinearRadius: delay", self.delay)

    def radius(self, step: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The radius of a step."""
        del seed
        done = tf.cast(step, tf.float32) + 1 - self.delay
        share = tf.clip_by_value(done / self.steps, 0.0, 1.0)
        return (1 - share) * self.start + share * self.end


@serializable
class RandomRadius(RadiusSchedule):
    """Draws the radius of each step uniformly from `[low, high]`.

    Args:
        low: the smallest radius, >= 0.
        high: the largest radius, >= `low`.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> 0.01 <= float(RandomRadius(0.01, 0.05).radius(0, tf.constant([0, 1]))) <= 0.05
        True

    Reference: Pang et al., "Improving Adversarial Robustness via Promoting Ensemble Diversity"
    (2019), whose experiments on CIFAR-10 draw from U(0.01, 0.05), with steps of a tenth.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        check_number("RandomRadius: low", self.low)
        check_number("RandomRadius: high", self.high, self.low, hint=", the value of `low`")

    def radius(self, step: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The radius of a step."""
        del step
        return random.uniform([], seed, self.low, self.high)


def check_radius_schedule(value: Any) -> None:
    """Raises TypeError unless `value` is None or a `RadiusSchedule`."""
    if value is not None and not isinstance(value, RadiusSchedule):
        raise TypeError(
            f"radius_schedule is {value!r}; expected None or a schedule, such as "
            "`keras_robust.training.LinearRadius(start, end, steps)`."
        )
