"""The same weight for all tasks."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.attacks.multi_task.simplex import equal_weights
from keras_robust.attacks.multi_task.solvers.guard import guarded
from keras_robust.core.config import serializable


@serializable
class EqualWeights:
    """Weighs all tasks equally: ascent of the mean.

    Example:
        >>> weights, _ = EqualWeights()(None, tf.zeros([1, 4]), None, ())
        >>> weights.numpy().tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """

    def init(self, start: tf.Tensor) -> Any:
        """An empty state."""
        del start
        return ()

    @guarded
    def __call__(
        self, gram: tf.Tensor, values: tf.Tensor, achieved: tf.Tensor, state: Any
    ) -> tuple[tf.Tensor, Any]:
        """Equal weights."""
        del gram, achieved
        return equal_weights(values), state
