"""Batch normalization folded into the convolution or dense layer before it, for inference."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.core.functional_graph import Call, Graph, is_functional, trace

_AFFINE = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense)


def folded(model: Any) -> Any:
    """A model of the same function in inference mode, with fewer operations.

    Batch norm after a convolution or a dense layer becomes part of its kernel and bias, which are
    computed from the variables of the model in each call: it follows their values. Outputs agree
    up to rounding.

    Args:
        model: anything; all but functional Keras models in float32 is returned as it is, and so is
            a model without such a pair of layers.

    Example:
        >>> layers = [keras.Input([8, 8, 3]), keras.layers.Conv2D(4, 3)]
        >>> model = keras.Sequential([*layers, keras.layers.BatchNormalization()])
        >>> [type(layer).__name__ for layer in folded(model).layers]
        ['InputLayer', 'FoldedLayer']
    """
    if not is_functional(model):
        return model
    shape = model.inputs[0].shape[1:]
    graph = trace(model, shape)
    pairs = _pairs(graph)
    nested = {
        call.operation.name: folded(call.operation)
        for call in graph.calls
        if isinstance(call.operation, keras.Model)
    }
    changed = any(nested[name] is not model.get_layer(name) for name in nested)
    if not pairs and not changed:
        return model
    normalizations = {normalization.name for normalization in pairs.values()}

    def call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        if operation.name in normalizations:
            return args[0]
        if operation.name in pairs:
            operation = FoldedLayer(operation, pairs[operation.name])
        return nested.get(operation.name, operation)(*args, **kwargs)

    image = keras.Input(shape, dtype=model.inputs[0].dtype, name=f"{model.name}_images")
    plain = keras.Model(graph.image, graph.outputs)
    copy = keras.models.clone_model(
        plain, input_tensors=image, clone_function=lambda layer: layer, call_function=call
    )
    outputs = keras.tree.pack_sequence_as(graph.outputs, list(copy.outputs))
    return keras.Model(image, outputs, name=model.name)


class FoldedLayer(keras.layers.Layer):
    """A convolution or dense layer and the batch norm after it, in one operation.

    Args:
        affine: a built layer with a linear activation.
        normalization: a built batch norm over its channels.
    """

    def __init__(self, affine: keras.layers.Layer, normalization: keras.layers.Layer):
        super().__init__(name=affine.name)
        self.affine, self.normalization = affine, normalization
        self.built = True

    def call(self, x: Any) -> Any:
        """The normalized output of the layer."""
        norm, ops = self.normalization, keras.ops
        scale = ops.rsqrt(norm.moving_variance + norm.epsilon)
        scale = scale * norm.gamma if norm.scale else scale
        shift = -norm.moving_mean * scale
        shift = shift + norm.beta if norm.center else shift
        if self.affine.use_bias:
            shift = shift + self.affine.bias * scale
        kernel = self.affine.kernel * scale
        if isinstance(self.affine, keras.layers.Dense):
            return ops.matmul(x, kernel) + shift
        convolved = ops.conv(
            x,
            kernel,
            strides=list(self.affine.strides),
            padding=self.affine.padding,
            dilation_rate=self.affine.dilation_rate,
            data_format=self.affine.data_format,
        )
        return convolved + shift

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """The shape of the layer's output."""
        return self.affine.compute_output_shape(input_shape)


def _pairs(graph: Graph) -> dict[str, keras.layers.Layer]:
    """The batch norm that is folded into a layer, by the name of the layer."""
    called = [call.operation.name for call in graph.calls]
    outputs = keras.tree.flatten(graph.outputs)
    pairs = {}
    for call in graph.calls:
        if not isinstance(call.operation, keras.layers.BatchNormalization):
            continue
        before = graph.producer(call.inputs[0]) if len(call.inputs) == 1 else None
        if before is None or not _fits(before, call):
            continue
        uses = sum(tensor is before.output for one in graph.calls for tensor in one.inputs)
        uses += sum(tensor is before.output for tensor in outputs)
        names = before.operation.name, call.operation.name
        if uses == 1 and all(called.count(name) == 1 for name in names):
            pairs[before.operation.name] = call.operation
    return pairs


def _fits(before: Call, call: Call) -> bool:
    """Whether a batch norm normalizes the channels of an affine layer, both in float32."""
    affine, norm = before.operation, call.operation
    if type(affine) not in _AFFINE or affine.activation is not keras.activations.linear:
        return False
    if any(layer.compute_dtype != "float32" for layer in (affine, norm)):
        return False
    if getattr(affine, "data_format", "channels_last") != "channels_last":
        return False
    if getattr(affine, "quantization_mode", None) or getattr(affine, "lora_enabled", False):
        return False
    return norm.axis in (-1, len(call.inputs[0].shape) - 1)
