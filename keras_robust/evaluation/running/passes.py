"""Counts the forward and backward passes of attacks, and bounds them."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from keras_robust.core.types import Forward, Images, Outputs
from keras_robust.core.validation import is_number

_UNBOUNDED = 2**62


def check_budget(budget: float | None) -> None:
    """Raises ValueError unless `budget` is a number of passes >= 1, infinity or None."""
    if budget is None or (is_number(budget) and budget >= 1):
        return
    raise ValueError(
        f"budget_per_image is {budget!r}; expected a number of passes >= 1, `math.inf` to count "
        "them only, or None."
    )


class CountedForward:
    """A model that counts the passes through it, and answers no more once a budget is used up.

    A batch passes once, whatever its size, so that the counts are those of each of its images.
    Beyond the budget the outputs are NaN, which no attack takes for an adversarial example, and the
    model does not run; the gradient of the last forward pass is 0 if there is no pass left for it.

    Args:
        forward: `images -> {"logits", ...}`.
        bounded: whether there is a budget; `limit` then holds it.

    Attributes:
        forward_passes, backward_passes: `tf.Variable`s.
        limit: how many passes there may be until the counts are reset, a `tf.Variable`.

    Example:
        >>> model = CountedForward(lambda x: {"logits": 2 * x}, bounded=True)
        >>> model.reset(2)
        >>> [float(model(tf.ones([1, 1]))["logits"][0, 0]) for _ in range(3)]
        [2.0, 2.0, nan]
        >>> model.counts()
        (2, 0)
    """

    def __init__(self, forward: Forward, bounded: bool):
        self._forward, self._bounded = forward, bounded
        self._outputs: Any = None
        self.forward_passes = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.backward_passes = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.limit = tf.Variable(_UNBOUNDED, trainable=False, dtype=tf.int64)

    def reset(self, limit: float = math.inf) -> None:
        """Sets the counts to 0, and the budget."""
        self.forward_passes.assign(0)
        self.backward_passes.assign(0)
        self.limit.assign(_UNBOUNDED if math.isinf(limit) else int(limit))

    def counts(self) -> tuple[int, int]:
        """The forward and backward passes since the last reset."""
        return int(self.forward_passes), int(self.backward_passes)

    def __call__(self, x: Images) -> Outputs:
        """The outputs, or NaN beyond the budget."""
        left = self._left()
        self.forward_passes.assign_add(tf.cast(left, tf.int64))
        x = self._with_counted_gradient(x)
        if not self._bounded:
            return self._passed(x)
        return tf.cond(left, lambda: self._passed(x), lambda: self._refused(x))

    def _refused(self, x: Images) -> Outputs:
        """NaN in the place of the outputs, which depend on the images as those do."""
        rows = tf.shape(x)[0]
        first = tf.reshape(x, [rows, -1])[:, 0]

        def nan(known: tf.TensorSpec) -> tf.Tensor:
            row = tf.cast(tf.reshape(first, [rows] + [1] * (known.shape.rank - 1)), known.dtype)
            return tf.ensure_shape(
                0 * row + tf.fill([rows, *known.shape[1:]], tf.constant(math.nan, known.dtype)),
                known.shape,
            )

        return tf.nest.map_structure(nan, self._outputs)

    def _left(self) -> tf.Tensor:
        return self.forward_passes + self.backward_passes < self.limit

    def _with_counted_gradient(self, x: Images) -> Images:
        @tf.custom_gradient
        def counted(x: Images) -> tuple[Images, Any]:
            def backward(gradient: tf.Tensor) -> tf.Tensor:
                left = self._left()
                self.backward_passes.assign_add(tf.cast(left, tf.int64))
                return tf.where(left, gradient, tf.zeros_like(gradient))

            return tf.identity(x), backward

        return counted(x)

    def _passed(self, x: Images) -> Outputs:
        outputs = self._forward(x)
        # Traced before `_refused`, or run before there is a reason to refuse.
        self._outputs = tf.nest.map_structure(
            lambda out: tf.TensorSpec([None, *out.shape[1:]], out.dtype), outputs
        )
        return outputs
