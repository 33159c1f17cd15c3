"""HVM: the gradient of the hypervolume spanned by the tasks' values."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.attacks.multi_task.solvers.guard import guarded
from keras_robust.core.config import serializable
from keras_robust.core.validation import check_number


@serializable
class HVM:
    """Maximizes `sum_i log(f_i - scale * min_j f_j)`: lower values have larger weights.

    Its weights do not sum to 1.

    Args:
        scale: the nadir as a fraction of the least value, in [0, 1); at 1 the least task's
            logarithm would be that of 0.
        through_nadir: whether the gradient flows through the nadir as well.

    Example:
        >>> weights, _ = HVM(scale=0.5)(None, tf.constant([[1.0, 2.5]]), None, ())
        >>> weights.numpy().tolist()
        [[2.0, 0.5]]

    Reference: Albuquerque et al., "Multi-objective Training of Generative Adversarial Networks with
    Multiple Discriminators" (2019), Eq. 8.

    Differs: the released code of Bui et al. (2023) has `through_nadir=True`, where the paper fixes
    the nadir, and a scale of 1.
    """

    scale: float = 0.5
    through_nadir: bool = False

    def __post_init__(self) -> None:
        check_number("HVM: scale", self.scale, below=1)

    def init(self, start: tf.Tensor) -> Any:
        """An empty state."""
        del start
        return ()

    @guarded
    def __call__(
        self, gram: tf.Tensor, values: tf.Tensor, achieved: tf.Tensor, state: Any
    ) -> tuple[tf.Tensor, Any]:
        """The reciprocal of each task's value above the nadir."""
        del gram, achieved
        least = tf.reduce_min(values, axis=1, keepdims=True)
        # At a loss of 0 the slope would be infinite; it is bounded.
        above = tf.maximum(values - self.scale * least, 1e-12)
        weights = 1 / above
        if self.through_nadir:
            is_least = tf.one_hot(
                tf.argmin(values, axis=1), tf.shape(values)[1], dtype=values.dtype
            )
            weights -= self.scale * is_least * tf.reduce_sum(weights, axis=1, keepdims=True)
        return weights, state
