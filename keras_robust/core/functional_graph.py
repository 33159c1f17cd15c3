"""Looks into a functional model: every call of a layer, in order, with its tensors.

It rests on `keras.models.clone_model` with a `clone_function` that returns the layer itself and a
`call_function` that looks on: the layers, and so the weights, stay those of the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import keras

Tensor: TypeAlias = keras.KerasTensor


class Call(NamedTuple):
    """One call of an operation while a model ran on symbolic tensors."""

    operation: Any
    inputs: list[Tensor]
    output: Any


class Graph(NamedTuple):
    """A functional model, run once on a new symbolic image."""

    image: Tensor
    calls: list[Call]
    outputs: Any

    def producer(self, tensor: Tensor) -> Call | None:
        """The call that made a tensor.

        Args:
            tensor: of this graph.

        Returns:
            The call; None for the image.
        """
        for call in self.calls:
            if any(output is tensor for output in keras.tree.flatten(call.output)):
                return call
        return None

    def named(self, name: str | None) -> Call | None:
        """The last call of the layer of that name.

        Args:
            name: of a layer.

        Returns:
            The call; None if there is none.
        """
        calls = [call for call in self.calls if call.operation.name == name]
        return calls[-1] if calls else None

    def unused(self, name: str) -> str:
        """A name that no operation of this graph has.

        Args:
            name: the wish.

        Returns:
            The wish, numbered if it is taken.
        """
        taken = {call.operation.name for call in self.calls}
        number = 0
        unused = name
        while unused in taken:
            number += 1
            unused = f"{name}_{number}"
        return unused


def is_functional(model: Any) -> bool:
    """Whether a model is a graph of layers with one input, which can be looked into.

    Args:
        model: anything.

    Returns:
        True for functional models and built Sequential ones; False for a subclassed model, also
        for one that is functional but overrides `call`, since its graph does not say what it does.
    """
    if not isinstance(model, keras.Model) or not hasattr(model, "inputs"):
        return False
    if not isinstance(model, (keras.Function, keras.Sequential)) or len(model.inputs) != 1:
        return False
    return type(model).call.__module__.split(".")[0] == "keras"


def trace(model: keras.Model, input_shape: Iterable[int | None]) -> Graph:
    """Runs a model on a new symbolic image and writes down every call.

    Args:
        model: for which `is_functional` holds.
        input_shape: shape of one image without the batch.

    Returns:
        The calls in order, and the outputs in the structure that the model returns them in.

    Example:
        >>> dense = keras.layers.Dense(3, name="dense")
        >>> graph = trace(keras.Sequential([keras.Input((4,)), dense]), (4,))
        >>> graph.calls[0].operation is dense, graph.producer(graph.outputs) is graph.calls[0]
        (True, True)
    """
    calls: list[Call] = []

    def listen(operation: Any, *args: Any, **kwargs: Any) -> Any:
        output = operation(*args, **kwargs)
        flat = keras.tree.flatten((args, kwargs))
        inputs = [item for item in flat if isinstance(item, keras.KerasTensor)]
        calls.append(Call(operation, inputs, output))
        return output

    # A plain model around the same layers: `model` may be compiled, with a loss that cannot be
    # cloned, and may have been built for one batch size.
    plain = keras.Model(model.inputs[0], _structured(model))
    name = "images"
    while name in {layer.name for layer in model.layers}:
        name += "_"  # names are unique in a graph
    image = keras.Input(tuple(input_shape), dtype="float32", name=name)
    copy = keras.models.clone_model(
        plain, input_tensors=image, clone_function=lambda layer: layer, call_function=listen
    )
    return Graph(image, calls, _structured(copy))


def _structured(model: keras.Model) -> Any:
    if isinstance(model, keras.Sequential):
        return model.outputs[0]
    return keras.tree.pack_sequence_as(
        model.compute_output_spec(model.inputs[0]), list(model.outputs)
    )
