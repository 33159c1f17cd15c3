"""Tracing of functional models: every call of a layer, in order, with its tensors.

`trace` uses `keras.models.clone_model` with a `clone_function` that returns the layer itself and a
`call_function` that records: the layers, and so the weights, stay those of the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import keras

Tensor: TypeAlias = keras.KerasTensor


class Call(NamedTuple):
    """One call of an operation on symbolic tensors."""

    operation: keras.Operation
    inputs: list[Tensor]
    output: Any


class Graph(NamedTuple):
    """The calls of a functional model on a new symbolic image."""

    image: Tensor
    calls: list[Call]
    outputs: Any

    def producer(self, tensor: Tensor) -> Call | None:
        """The call that made a tensor of this graph; None for the image."""
        for call in self.calls:
            if any(output is tensor for output in keras.tree.flatten(call.output)):
                return call
        return None

    def named(self, name: str | None) -> Call | None:
        """The last call of the layer of that name; None if the graph has no such layer."""
        calls = [call for call in self.calls if call.operation.name == name]
        return calls[-1] if calls else None

    def unused(self, name: str) -> str:
        """`name`, numbered if an operation of this graph has it already."""
        taken = {call.operation.name for call in self.calls}
        number = 0
        unused = name
        while unused in taken:
            number += 1
            unused = f"{name}_{number}"
        return unused


def is_functional(model: Any) -> bool:
    """Whether a model is a graph of layers with one input, which `trace` can follow.

    True for functional models and built Sequential ones; False for a subclassed model, even a
    functional one that overrides `call`: its graph does not describe its computation.
    """
    if not isinstance(model, keras.Model) or not hasattr(model, "inputs"):
        return False
    if not isinstance(model, (keras.Function, keras.Sequential)) or len(model.inputs) != 1:
        return False
    return type(model).call.__module__.split(".")[0] == "keras"


def trace(model: keras.Model, input_shape: Iterable[int | None]) -> Graph:
    """Runs a model on a new symbolic image and records every call.

    Args:
        model: for which `is_functional` holds.
        input_shape: shape of one image without the batch.

    Returns:
        The calls in order, and the outputs in the structure of the model's.

    Example:
        >>> dense = keras.layers.Dense(3, name="dense")
        >>> graph = trace(keras.Sequential([keras.Input((4,)), dense]), (4,))
        >>> graph.calls[0].operation is dense, graph.producer(graph.outputs) is graph.calls[0]
        (True, True)
    """
    calls: list[Call] = []

    def record(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        output = operation(*args, **kwargs)
        flat = keras.tree.flatten((args, kwargs))
        inputs = [item for item in flat if isinstance(item, keras.KerasTensor)]
        calls.append(Call(operation, inputs, output))
        return output

    # A plain model of the same layers: `model` may be compiled with a loss that cannot be cloned,
    # or built for one batch size.
    plain = keras.Model(model.inputs[0], _structured(model))
    name = "images"
    while name in {layer.name for layer in model.layers}:
        name += "_"  # names are unique in a graph
    image = keras.Input(tuple(input_shape), dtype="float32", name=name)
    copy = keras.models.clone_model(
        plain, input_tensors=image, clone_function=lambda layer: layer, call_function=record
    )
    return Graph(image, calls, _structured(copy))


def _structured(model: keras.Model) -> Any:
    if isinstance(model, keras.Sequential):
        return model.outputs[0]
    return keras.tree.pack_sequence_as(
        model.compute_output_spec(model.inputs[0]), list(model.outputs)
    )
