"""A dense layer without its activation, the weights shared."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.core.config import register


@register
class DenseLogits(keras.layers.Layer):
    """The affine part of a dense layer, with that layer's own weights: `x @ kernel + bias`.

    Example:
        >>> dense = keras.layers.Dense(3, activation="softmax")
        >>> probabilities = dense(keras.ops.ones((1, 4)))
        >>> logits = DenseLogits(dense)(keras.ops.ones((1, 4)))
        >>> bool(keras.ops.all(keras.ops.isclose(keras.ops.softmax(logits), probabilities)))
        True
    """

    def __init__(self, dense: keras.layers.Dense, **kwargs: Any) -> None:
        """Keeps the dense layer.

        Args:
            dense: the layer; it is not changed, and training this layer trains it.
            **kwargs: `name` and `dtype`.
        """
        super().__init__(**kwargs)
        self.dense = dense

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds the dense layer, if this one was just loaded.

        Args:
            input_shape: `(batch, d)`.
        """
        if not self.dense.built:
            self.dense.build(input_shape)

    def call(self, x: Any) -> Any:
        """The logits.

        Args:
            x: `[batch, d]`.

        Returns:
            `[batch, classes]`.
        """
        logits = keras.ops.matmul(x, self.dense.kernel)
        return logits if self.dense.bias is None else keras.ops.add(logits, self.dense.bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the logits.

        Args:
            input_shape: `(batch, d)`.

        Returns:
            `(batch, classes)`.
        """
        return (*input_shape[:-1], self.dense.units)

    def get_config(self) -> dict[str, Any]:
        """The layer's configuration, the dense layer serialised by Keras.

        Returns:
            What `from_config` takes.
        """
        dense = keras.saving.serialize_keras_object(self.dense)
        return {**super().get_config(), "dense": dense}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DenseLogits:
        """Rebuilds the layer that `get_config` described.

        Args:
            config: what `get_config` returned.

        Returns:
            A layer with a dense layer of its own.
        """
        dense = keras.saving.deserialize_keras_object(config["dense"])
        return cls(**{**config, "dense": dense})
