"""PCGrad: gradients freed of what conflicts with the others."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.core.config import serializable


@serializable
class PCGrad:
    """The mean of the tasks' gradients, each freed of what goes against another task's gradient.

    `g <- g - min(g . g_j, 0) / |g_j|^2 g_j`, for one task `j` after the other. What comes out is a
    combination of the gradients, so that their products are all it takes; its weights need not sum
    to 1.

    Example:
        >>> gram = tf.constant([[[1.0, -1.0], [-1.0, 2.0]]])  # of (1, 0) and (-1, 1)
        >>> weights, _ = PCGrad()(gram, None, None, ())
        >>> weights.numpy().tolist()  # the mean of (1/2, 1/2) and (0, 1)
        [[1.0, 0.75]]

    Reference: Yu et al., "Gradient Surgery for Multi-Task Learning" (2020), Algorithm 1.

    Differs: the others come in the order of the tasks, not in a random one; and the mean is in the
    place of the sum, as in Bui et al. (2023), section 4.5.
    """

    def init(self, start: tf.Tensor) -> tuple[()]:
        """No state."""
        del start
        return ()

    def __call__(
        self, gram: tf.Tensor, values: tf.Tensor, achieved: tf.Tensor, state: Any
    ) -> tuple[tf.Tensor, Any]:
        """The weights of the mean of the freed gradients."""
        del values, achieved
        tasks = tf.shape(gram)[1]

        def body(other: tf.Tensor, freed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            along = tf.linalg.matvec(freed, gram[:, :, other])  # [batch, tasks]
            length = gram[:, other, other][:, None]
            against = tf.math.divide_no_nan(tf.minimum(along, 0), length)
            is_other = tf.one_hot(other, tasks, dtype=gram.dtype)
            return other + 1, freed - against[:, :, None] * is_other

        start = tf.eye(tasks, batch_shape=tf.shape(gram)[:1], dtype=gram.dtype)
        start.set_shape(gram.shape)
        # Row i has the weights of what became of the gradient of task i.
        _, freed = tf.while_loop(lambda other, _: other < tasks, body, (tf.constant(0), start))
        return tf.reduce_mean(freed, axis=1), state
