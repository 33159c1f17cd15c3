"""Learning-rate schedules that Keras lacks: one cycle, and a warm-up before any schedule."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_robust.core.config import register
from keras_robust.core.validation import check_integer, check_number


@register
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """Grows linearly from 0 to a peak, and falls linearly back to 0 at the end of the training.

    The rate of step k, counted from 0, is the value at `k + 1` of the lines between (0, 0),
    `(peak * (steps + 1), rate)` and `(steps + 1, 0)`, so that every step moves the weights.

    Args:
        rate: the largest learning rate, > 0.
        steps: number of steps of the training.
        peak: the fraction of the steps at which the rate is largest, in (0, 1).

    Raises:
        ValueError: a number out of range.

    Example:
        >>> [round(float(OneCycle(1.0, steps=4, peak=0.4)(step)), 3) for step in range(5)]
        [0.5, 1.0, 0.667, 0.333, 0.0]

    Reference: Smith, Topin, "Super-Convergence" (2018), with straight lines as in Wong, Rice,
    Kolter, "Fast is Better than Free" (2020), whose peak is at 2/5.
    """

    def __init__(self, rate: float, steps: int, peak: float = 0.4):
        check_number("OneCycle: rate", rate, above=0)
        check_integer("OneCycle: steps", steps, 1)
        check_number("OneCycle: peak", peak, above=0, below=1)
        self.rate, self.steps, self.peak = float(rate), int(steps), float(peak)

    def __call__(self, step: int | tf.Tensor) -> tf.Tensor:
        """The learning rate of a step."""
        share = (tf.cast(step, tf.float32) + 1) / (self.steps + 1)
        up, down = share / self.peak, (1 - share) / (1 - self.peak)
        return self.rate * tf.maximum(tf.minimum(up, down), 0.0)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"rate": self.rate, "steps": self.steps, "peak": self.peak}


@register
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Multiplies another schedule by `(step + 1) / steps` in the first steps.

    Args:
        schedule: a schedule of Keras, or a constant learning rate.
        steps: number of steps until the rate is that of the schedule, >= 1.

    Raises:
        ValueError: steps is not an integer >= 1.

    Example:
        >>> [float(WarmUp(0.5, steps=2)(step)) for step in range(3)]
        [0.25, 0.5, 0.5]

    Reference: Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 2.2.
    """

    def __init__(
        self, schedule: keras.optimizers.schedules.LearningRateSchedule | float, steps: int
    ):
        check_integer("WarmUp: steps", steps, 1)
        self.schedule, self.steps = schedule, int(steps)

    def __call__(self, step: int | tf.Tensor) -> tf.Tensor:
        """The learning rate of a step."""
        rate = self.schedule(step) if callable(self.schedule) else self.schedule
        share = tf.minimum((tf.cast(step, tf.float32) + 1) / self.steps, 1.0)
        return share * tf.cast(rate, tf.float32)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, with the schedule serialized by Keras."""
        schedule: Any = self.schedule
        if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
            schedule = keras.saving.serialize_keras_object(schedule)
        return {"schedule": schedule, "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WarmUp:
        """Rebuilds the schedule from the result of `get_config`."""
        schedule = config["schedule"]
        if isinstance(schedule, dict):
            schedule = keras.saving.deserialize_keras_object(schedule)
        return cls(schedule, config["steps"])
