"""The final softmax or sigmoid of a functional model, and the logits before it."""

from __future__ import annotations

from typing import Any, TypeAlias

import keras

from keras_robust.core.config import register
from keras_robust.core.functional_graph import Call, Graph

Tensor: TypeAlias = keras.KerasTensor


@register
class DenseLogits(keras.layers.Layer):
    """A dense layer without its activation, sharing its weights: `x @ kernel + bias`.

    Args:
        dense: the layer; it is not changed, and training this layer trains it.
        **kwargs: `name` and `dtype`.

    Example:
        >>> dense = keras.layers.Dense(3, activation="softmax")
        >>> probabilities = dense(keras.ops.ones((1, 4)))
        >>> logits = DenseLogits(dense)(keras.ops.ones((1, 4)))
        >>> bool(keras.ops.all(keras.ops.isclose(keras.ops.softmax(logits), probabilities)))
        True
    """

    def __init__(self, dense: keras.layers.Dense, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = dense

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds the dense layer of a layer that was just loaded."""
        if not self.dense.built:
            self.dense.build(input_shape)

    def call(self, x: Tensor) -> Tensor:
        """`[batch, d]` to `[batch, classes]`."""
        logits = keras.ops.matmul(x, self.dense.kernel)
        return logits if self.dense.bias is None else keras.ops.add(logits, self.dense.bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """`(batch, d)` to `(batch, classes)`."""
        return (*input_shape[:-1], self.dense.units)

    def get_config(self) -> dict[str, Any]:
        """The configuration, with the dense layer serialized by Keras."""
        dense = keras.saving.serialize_keras_object(self.dense)
        return {**super().get_config(), "dense": dense}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DenseLogits:
        """Rebuilds the layer from `get_config`, with a dense layer of its own."""
        dense = keras.saving.deserialize_keras_object(config["dense"])
        return cls(**{**config, "dense": dense})


@register
class TwoClassLogits(keras.layers.Layer):
    """The logits `[0, z]` of two classes, whose softmax is the sigmoid of `z` for class 1.

    Example:
        >>> TwoClassLogits()(keras.ops.ones((1, 1))).numpy().tolist()
        [[0.0, 1.0]]
    """

    def call(self, logit: Tensor) -> Tensor:
        """`[batch, 1]` to `[batch, 2]`."""
        return keras.ops.concatenate([keras.ops.zeros_like(logit), logit], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """`(batch, 1)` to `(batch, 2)`."""
        return (*input_shape[:-1], 2)


def ends_in_sigmoid(graph: Graph, tensor: Tensor) -> bool:
    """Whether `tensor` is the sigmoid of a single unit, `[batch, 1]`."""
    call = graph.producer(tensor)
    return call is not None and len(tensor.shape) == 2 and _is_single_sigmoid(call, tensor)


def skip_identities(graph: Graph, tensor: Tensor) -> Tensor:
    """The tensor before identities, linear activations and casts at the end of a graph."""
    call = graph.producer(tensor)
    while call is not None and _is_identity(call.operation):
        tensor = call.inputs[0]
        call = graph.producer(tensor)
    return tensor


def skip_softmax_layer(graph: Graph, tensor: Tensor, model_name: str) -> Tensor:
    """The logits before a softmax that is a layer or an operation of its own, or `tensor` itself.

    The sigmoid of a single unit is taken like a softmax.

    Raises:
        ValueError: `tensor` is the output of any other sigmoid.
    """
    call = graph.producer(tensor)
    if call is None:
        return tensor
    if ends_in_sigmoid(graph, tensor):
        dense = _is_plain(call.operation, keras.layers.Dense)
        return tensor if dense else skip_identities(graph, call.inputs[0])
    _check_not_sigmoid(call.operation, model_name)
    if not _is_softmax(call.operation, len(tensor.shape)):
        return tensor
    return skip_identities(graph, call.inputs[0])


def without_softmax_activation(graph: Graph, tensor: Tensor) -> Tensor:
    """The logits of a dense layer that applies a softmax, by its weights, or `tensor` itself.

    A single unit may apply a sigmoid instead.

    Raises:
        ValueError: the dense layer is quantized.
    """
    call = graph.producer(tensor)
    if call is None or not _is_dense_softmax(call.operation):
        return tensor
    name = graph.unused(f"{call.operation.name}_logits")
    # In float32 under every policy, which is where Keras wants a softmax and its logits.
    return DenseLogits(call.operation, dtype="float32", name=name)(call.inputs[0])


def _is_identity(operation: keras.Operation) -> bool:
    if _is_plain(operation, keras.layers.Activation):
        return operation.activation is keras.activations.linear
    return _is_plain(operation, keras.layers.Identity) or _is_function(operation, "Cast")


def _is_softmax(operation: keras.Operation, rank: int) -> bool:
    if _is_plain(operation, keras.layers.Activation):
        return operation.activation is keras.activations.softmax
    if _is_plain(operation, keras.layers.Softmax) or _is_function(operation, "Softmax"):
        return operation.axis in (-1, rank - 1)
    return False


def _is_dense_softmax(operation: keras.Operation) -> bool:
    if not _is_plain(operation, keras.layers.Dense):
        return False
    single = operation.units == 1 and operation.activation is keras.activations.sigmoid
    if operation.activation is not keras.activations.softmax and not single:
        return False
    if operation.quantization_mode is not None:
        raise ValueError(
            f"Layer {operation.name!r} is quantized ({operation.quantization_mode}): attacks need "
            "its gradient. Adapt the model before quantizing it."
        )
    return True


def _is_single_sigmoid(call: Call, tensor: Tensor) -> bool:
    operation = call.operation
    if tensor.shape[-1] != 1:
        return False
    if any(_is_plain(operation, kind) for kind in (keras.layers.Dense, keras.layers.Activation)):
        return operation.activation is keras.activations.sigmoid
    return _is_function(operation, "Sigmoid")


def _check_not_sigmoid(operation: keras.Operation, model_name: str) -> None:
    activation = getattr(operation, "activation", None)
    sigmoids = (keras.activations.sigmoid, keras.activations.hard_sigmoid)
    if any(activation is sigmoid for sigmoid in sigmoids) or _is_function(operation, "Sigmoid"):
        raise ValueError(
            f"Model {model_name!r} ends in a sigmoid ({operation.name!r}), so its classes are not "
            "exclusive; expected one logit per class. Two classes may be a Dense(1, 'sigmoid') or "
            "a Dense(2); a multi-label model cannot be adapted."
        )


def _is_plain(operation: keras.Operation, layer: type[keras.layers.Layer]) -> bool:
    """Whether `operation` is of that class, or of a subclass that computes the same."""
    return isinstance(operation, layer) and type(operation).call is layer.call


def _is_function(operation: keras.Operation, name: str) -> bool:
    """Whether it is a bare `keras.ops` function, which Keras exposes by its class's name only."""
    module = type(operation).__module__.split(".")[0]
    plain = not isinstance(operation, keras.layers.Layer) and module == "keras"
    return plain and type(operation).__name__ == name
