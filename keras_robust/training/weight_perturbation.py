"""Adversarial weight perturbation (AWP): the gradient is computed at perturbed weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.types import Images, Outputs
from keras_robust.core.validation import check_number


@serializable
class AWP:
    """Moves each weight tensor by `gamma * ||w|| * g / ||g||`, which raises the training loss.

    Kernels only: biases and batch norm (tensors of rank 1) are not perturbed. Each step costs one
    more gradient.

    Args:
        gamma: relative size of the perturbation, > 0; 0.005 to 0.01 in the paper.

    Raises:
        ValueError: gamma is not a finite number > 0.

    Example:
        >>> weights, gradients = [tf.constant([[3.0, 4.0]])], [tf.constant([[0.0, 2.0]])]
        >>> AWP(gamma=0.1).perturbed(weights, gradients)[0].numpy().tolist()
        [[3.0, 4.5]]

    Reference: Wu, Xia, Wang, "Adversarial Weight Perturbation Helps Robust Generalization" (2020),
    Eq. 9 to 11.
    """

    gamma: float = 0.01

    def __post_init__(self) -> None:
        check_number("AWP: gamma", self.gamma, above=0)

    def perturbed(
        self, weights: Sequence[tf.Tensor], gradients: Sequence[tf.Tensor | None]
    ) -> list[tf.Tensor]:
        """The weights at which the gradient is computed.

        Args:
            weights: the trainable weights.
            gradients: the gradient of the loss in each weight, or None.

        Returns:
            One tensor per weight.
        """
        return [
            weight if gradient is None or weight.shape.rank < 2 else self._moved(weight, gradient)
            for weight, gradient in zip(weights, gradients, strict=True)
        ]

    def _moved(self, weight: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        # Divided by the largest entry first, so that squares of tiny entries do not underflow.
        gradient = tf.math.divide_no_nan(gradient, tf.reduce_max(tf.abs(gradient)))
        length = tf.math.divide_no_nan(self.gamma * tf.norm(weight), tf.norm(gradient))
        return weight + length * gradient


def check_weight_perturbation(value: Any) -> None:
    """Raises TypeError unless `value` is None or an `AWP`; the number gamma is not."""
    if value is not None and not isinstance(value, AWP):
        raise TypeError(
            f"weight_perturbation is {value!r}; expected None or `keras_robust.AWP(gamma)`."
        )


def outputs_at(
    classifier: keras.Model, weights: Sequence[tf.Tensor], batches: Sequence[Images | None]
) -> tuple[list[Outputs | None], list[tf.Tensor], list[tf.Tensor]]:
    """The classifier's outputs in training mode with the given weights.

    Args:
        classifier: a built functional model, which does not change.
        weights: replace its trainable weights.
        batches: batches of images, or None; batch norm treats each batch separately.

    Returns:
        The outputs of each batch, or None; the updated non-trainable variables; and the losses that
        the layers added.
    """
    state: list[tf.Tensor] = [variable.value for variable in classifier.non_trainable_variables]
    outputs: list[Outputs | None] = []
    losses: list[tf.Tensor] = []
    for x in batches:
        result = None
        if x is not None:
            result, state, losses = classifier.stateless_call(
                list(weights), state, x, training=True, return_losses=True
            )
        outputs.append(result)
    return outputs, state, losses
