"""The rule of each kind of layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import keras

from keras_robust.certification.layers import activation, merging, moving, scaling
from keras_robust.certification.layers.convolution import Convolution, Depthwise
from keras_robust.certification.layers.dense import Dense
from keras_robust.certification.layers.max_pooling import MaxPooling
from keras_robust.certification.layers.rule import Rule
from keras_robust.core.functional_graph import Call

Build: TypeAlias = Callable[[Call], list[Rule]]


class NotCovered(Exception):
    """A layer without a rule, or with a setting that its rule does not cover; says why."""


def rules_of(call: Call) -> list[Rule]:
    """The rules of one call of a layer or operation, to be applied one after the other.

    Raises:
        NotCovered: the layer has none.
    """
    operation = call.operation
    build = _find(operation)
    if build is None:
        raise NotCovered("not covered")
    _check_settings(operation)
    return build(call)


def _find(operation: keras.Operation) -> Build | None:
    for kind, build in _LAYERS.items():
        # A subclass that overrides `call` computes something else.
        if isinstance(operation, kind) and type(operation).call is kind.call:
            return build
    if isinstance(operation, keras.layers.Layer):
        return _OWN.get(keras.saving.get_registered_name(type(operation)))
    module = type(operation).__module__.split(".")[0]
    return _FUNCTIONS.get(type(operation).__name__) if module == "keras" else None


def _check_settings(operation: Any) -> None:
    if getattr(operation, "data_format", None) == "channels_first":
        raise NotCovered("data_format='channels_first'")
    if getattr(operation, "quantization_mode", None) is not None:
        raise NotCovered("quantized")
    dtype = getattr(operation, "compute_dtype", None)
    if dtype not in (None, "float32", "float64"):
        raise NotCovered(f"computes in {dtype}; bounds are of float32 arithmetic")


def _with_activation(rule: type[Any]) -> Build:
    def build(call: Call) -> list[Rule]:
        return [rule(call.operation), *_activation(call.operation.activation)]

    return build


def _activation(function: Any) -> list[Rule]:
    if function is None:
        return []
    for known, rules in _ACTIVATIONS.items():
        if function is known:
            return rules()
    raise NotCovered(f"activation {getattr(function, '__name__', function)!r}")


def _relu(call: Call) -> list[Rule]:
    layer = call.operation
    if layer.threshold != 0 or layer.negative_slope > 1:
        raise NotCovered(f"threshold={layer.threshold}, negative_slope={layer.negative_slope}")
    if layer.max_value is None:
        return [activation.leaky_relu(layer.negative_slope)]
    if layer.negative_slope != 0:
        raise NotCovered("max_value with a negative_slope")
    return [activation.clipped_relu(layer.max_value)]


def _leaky(call: Call) -> list[Rule]:
    slope = call.operation.negative_slope
    if slope > 1:
        raise NotCovered(f"negative_slope={slope}, more than 1")
    return [activation.leaky_relu(slope)]


def _batch_normalization(call: Call) -> list[Rule]:
    layer = call.operation
    if layer.axis not in (-1, len(call.inputs[0].shape) - 1):
        raise NotCovered(f"axis={layer.axis}, not the last one")
    if layer.renorm:
        raise NotCovered("renorm=True")
    return [scaling.BatchNormalization(layer)]


def _normalization(call: Call) -> list[Rule]:
    if call.operation.invert:
        raise NotCovered("invert=True")
    return [scaling.Normalization(call.operation)]


def _merged(mean: bool) -> Build:
    def build(call: Call) -> list[Rule]:
        shapes = {tuple(tensor.shape) for tensor in call.inputs}
        if len(call.inputs) < 2 or len(shapes) > 1:
            raise NotCovered("with a constant, or inputs of different shapes")
        return [merging.Sum(len(call.inputs), mean)]

    return build


def _concatenate(call: Call) -> list[Rule]:
    axis = call.operation.axis
    return [moving.Joining(lambda inputs: keras.ops.concatenate(inputs, axis=axis))]


def _stack(call: Call) -> list[Rule]:
    axis = call.operation.axis
    return [moving.Joining(lambda inputs: keras.ops.stack(inputs, axis=axis))]


def _reshaped(call: Call) -> list[Rule]:
    before, after = (tensor.shape[1:] for tensor in (call.inputs[0], call.output))
    if math.prod(before) != math.prod(after):
        raise NotCovered("across images")
    return [moving.reshaped(call.output.shape[1:])]


def _ensemble(call: Call) -> list[Rule]:
    combine = call.operation.combine
    if combine != "logits":
        raise NotCovered(f"combine={combine!r}; an ensemble of mean logits, combine='logits', is")
    return [merging.mean_of_members(call.inputs[0].shape[1])]


def _none(call: Call) -> list[Rule]:
    del call
    return []


_ACTIVATIONS: dict[Any, Callable[[], list[Rule]]] = {
    keras.activations.linear: list,
    keras.activations.relu: lambda: [activation.relu()],
    keras.activations.relu6: lambda: [activation.clipped_relu(6.0)],
    keras.activations.leaky_relu: lambda: [activation.leaky_relu(0.2)],
    keras.activations.sigmoid: lambda: [activation.sigmoid()],
    keras.activations.tanh: lambda: [activation.tanh()],
}
_LAYERS: dict[type[Any], Build] = {
    keras.layers.Dense: _with_activation(Dense),
    keras.layers.Conv2D: _with_activation(Convolution),
    keras.layers.DepthwiseConv2D: _with_activation(Depthwise),
    keras.layers.BatchNormalization: _batch_normalization,
    keras.layers.Normalization: _normalization,
    keras.layers.Rescaling: lambda call: [scaling.Rescaling(call.operation)],
    keras.layers.ReLU: _relu,
    keras.layers.LeakyReLU: _leaky,
    keras.layers.Activation: lambda call: _activation(call.operation.activation),
    keras.layers.MaxPooling2D: lambda call: [MaxPooling(call.operation)],
    keras.layers.AveragePooling2D: lambda call: [merging.average_pooling(call.operation)],
    keras.layers.GlobalAveragePooling2D: lambda call: [
        merging.global_average_pooling(call.operation, call.inputs[0].shape[1:])
    ],
    keras.layers.Flatten: _reshaped,
    keras.layers.Reshape: _reshaped,
    keras.layers.ZeroPadding2D: lambda call: [moving.padded(call.operation)],
    keras.layers.Add: _merged(mean=False),
    keras.layers.Average: _merged(mean=True),
    keras.layers.Concatenate: _concatenate,
    keras.layers.Dropout: _none,
    keras.layers.SpatialDropout2D: _none,
    keras.layers.GaussianNoise: _none,
    keras.layers.Identity: _none,
}
# Layers of this package, by their registered names: the room of models is not imported here.
_OWN: dict[str, Build] = {
    "keras_robust>DenseLogits": lambda call: [Dense(call.operation.dense)],
    "keras_robust>EnsembleLogits": _ensemble,
    "keras_robust>TwoClassLogits": lambda call: [moving.two_class_logits()],
}
# Functions of `keras.ops` in a functional model; Keras exposes them by their class's name only.
_FUNCTIONS: dict[str, Build] = {
    "Relu": lambda call: [activation.relu()],
    "LeakyRelu": _leaky,
    "Relu6": lambda call: [activation.clipped_relu(6.0)],
    "Sigmoid": lambda call: [activation.sigmoid()],
    "Tanh": lambda call: [activation.tanh()],
    "Add": _merged(mean=False),
    "Reshape": _reshaped,
    "Stack": _stack,
    "Concatenate": _concatenate,
}
COVERED: tuple[str, ...] = (
    *sorted(kind.__name__ for kind in _LAYERS),
    *sorted(name.partition(">")[2] for name in _OWN),
)
