"""PCGrad: gradients without their conflicting components."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.attacks.multi_task.solvers.guard import guarded
from keras_robust.core.config import serializable


@serializable
class PCGrad:
    """The mean of the tasks' gradients, each without the components that conflict with another.

    `g <- g - min(g . g_j, 0) / |g_j|^2 g_j`, for one task `j` after the other. The result is a
    combination of the gradients, computed from their Gram matrix; its weights need not sum to 1.

    Example:
        >>> gram = tf.constant([[[1.0, -1.0], [-1.0, 2.0]]])  # gradients (1, 0) and (-1, 1)
        >>> weights, _ = PCGrad()(gram, None, None, ())
        >>> weights.numpy().tolist()  # the mean of (1/2, 1/2) and (0, 1)
        [[1.0, 0.75]]

    Reference: Yu et al., "Gradient Surgery for Multi-Task Learning" (2020), Algorithm 1.

    Differs: the other tasks are taken in order, not at random; and the mean replaces the sum, as in
    Bui et al. (2023), section 4.5.
    """

    def init(self, start: tf.Tensor) -> Any:
        """An empty state."""
        del start
        return ()

    @guarded
    def __call__(
        self, gram: tf.Tensor, values: tf.Tensor, achieved: tf.Tensor, state: Any
    ) -> tuple[tf.Tensor, Any]:
        """The weights of the mean of the projected gradients."""
        del values, achieved
        tasks = tf.shape(gram)[1]

        def body(other: tf.Tensor, projected: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            along = tf.linalg.matvec(projected, gram[:, :, other])  # [batch, tasks]
            length = gram[:, other, other][:, None]
            against = tf.math.divide_no_nan(tf.minimum(along, 0), length)
            is_other = tf.one_hot(other, tasks, dtype=gram.dtype)
            return other + 1, projected - against[:, :, None] * is_other

        start = tf.eye(tasks, batch_shape=tf.shape(gram)[:1], dtype=gram.dtype)
        start.set_shape(gram.shape)
        # Row i has the weights of the projected gradient of task i.
        _, projected = tf.while_loop(lambda other, _: other < tasks, body, (tf.constant(0), start))
        return tf.reduce_mean(projected, axis=1), state
