"""The layer of a functional model whose output becomes the features."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import keras

from keras_robust.core.functional_graph import Call, Graph
from keras_robust.core.validation import did_you_mean

Tensor: TypeAlias = keras.KerasTensor


class FeatureLayerQuery(NamedTuple):
    """A search for a layer by name, through nested models.

    Args:
        name: of the layer, or its path `"outer/inner/layer"`; None for the default features.
        path: of the nested model that is searched, `"outer/inner/"`.
        outer_names: names of the layers around it, for the error.
    """

    name: str | None
    path: str = ""
    outer_names: tuple[str, ...] = ()

    def find(self, graph: Graph) -> Call | None:
        """The last call of the layer in the graph of the searched model, None if it has none."""
        return graph.named(self.name.removeprefix(self.path)) if self.name is not None else None

    def inside(self, nested: keras.Model, graph: Graph) -> FeatureLayerQuery:
        """The same search in a model nested in the graph of the searched one."""
        return FeatureLayerQuery(self.name, f"{self.path}{nested.name}/", self._names(graph))

    def check_found(self, graph: Graph, call: Call | None) -> None:
        """Raises ValueError, with the names of the layers, if a name was given and not found."""
        if self.name is not None and call is None:
            names = did_you_mean(self.name, self._names(graph), limit=20)
            raise ValueError(f"features={self.name!r} names no layer; expected one of {names}")

    def _names(self, graph: Graph) -> tuple[str, ...]:
        return (*self.outer_names, *(f"{self.path}{call.operation.name}" for call in graph.calls))


def default_features(graph: Graph, logits: Tensor) -> Tensor:
    """The input of the last layer with weights, the usual latent representation.

    The logits themselves if a layer with several inputs or a nested model comes first.
    """
    call = graph.producer(logits)
    while call is not None and len(call.inputs) == 1:
        if isinstance(call.operation, keras.Model):
            break
        if getattr(call.operation, "weights", None):
            return call.inputs[0]
        call = graph.producer(call.inputs[0])
    return logits


def single_output(call: Call) -> Tensor:
    """The output of a layer that returns one tensor `[batch, ...]`.

    Raises:
        ValueError: it returns several, or no batch of values.
    """
    outputs = keras.tree.flatten(call.output)
    if len(outputs) != 1 or len(outputs[0].shape) < 2:
        shapes = [tuple(output.shape) for output in outputs]
        raise ValueError(
            f"Layer {call.operation.name!r} returns {shapes}; features must be one tensor "
            "[batch, ...]: name another layer."
        )
    return outputs[0]
