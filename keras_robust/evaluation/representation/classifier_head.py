"""The head of a classifier: its layers from the features to the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_robust.core.classifier import contract_of
from keras_robust.core.functional_graph import Graph, is_functional, trace
from keras_robust.core.types import Logits

# Layers that may lie between a layer and the features read from it: they keep all values.
_COPIES = (keras.layers.Identity, keras.layers.Flatten)


def head_of(classifier: keras.Model) -> Callable[[tf.Tensor], Logits]:
    """The part of a classifier from its features to its logits, sharing its layers.

    Args:
        classifier: a built functional model that returns `{"logits", "features"}`.

    Returns:
        A function `features [batch, d] -> logits [batch, classes]`, in inference mode.

    Raises:
        TypeError: another kind of model.
        ValueError: the logits are not a function of the features alone.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3, hidden=(4,))
        >>> outputs = classifier(tf.ones([5, 2, 2, 1]))
        >>> logits = head_of(classifier)(outputs["features"])
        >>> bool(tf.reduce_all(logits == outputs["logits"]))
        True
    """
    if not is_functional(classifier) or not {"logits", "features"} <= set(
        contract_of(classifier) or ()
    ):
        raise TypeError(
            f"classifier is a {type(classifier).__name__}; expected a functional model that "
            "returns 'logits' and 'features'. Wrap a Keras model with "
            "`keras_robust.models.adapt(model, features='layer_name')`."
        )
    graph = trace(classifier, classifier.inputs[0].shape[1:])
    head = _cut(graph, graph.outputs["features"], graph.outputs["logits"])
    if head is None:
        raise ValueError(
            f"The logits of {classifier.name!r} do not depend on its features alone: a branch "
            "bypasses the layer that they are read from. Choose another layer: "
            "`keras_robust.models.adapt(model, features='layer_name')`."
        )
    return head


def _cut(graph: Graph, features: Any, logits: Any) -> Callable[[tf.Tensor], Logits] | None:
    """The layers from a tensor of a graph to another tensor; None without a path."""
    latent = features
    while latent is not None:
        if latent is logits:
            return lambda z: z
        try:
            return _applied(keras.Model(latent, logits))
        except ValueError:  # raised by Keras: no path from here to the logits
            call = graph.producer(latent)
        if call is not None and is_functional(call.operation):
            return _inside(call.operation, call.output, latent, _before_copies(graph, logits))
        latent = call.inputs[0] if call and isinstance(call.operation, _COPIES) else None
    return None


def _inside(
    model: keras.Model, output: Any, features: Any, logits: Any
) -> Callable[[tf.Tensor], Logits] | None:
    """The layers inside a model that is one layer of the graph and outputs both tensors."""
    if not isinstance(output, dict):
        return None
    names = {id(tensor): name for name, tensor in output.items()}
    if id(features) not in names or id(logits) not in names:
        return None
    graph = trace(model, model.inputs[0].shape[1:])
    return _cut(graph, graph.outputs[names[id(features)]], graph.outputs[names[id(logits)]])


def _before_copies(graph: Graph, tensor: Any) -> Any:
    call = graph.producer(tensor)
    while call is not None and isinstance(call.operation, _COPIES):
        tensor = call.inputs[0]
        call = graph.producer(tensor)
    return tensor


def _applied(head: keras.Model) -> Callable[[tf.Tensor], Logits]:
    shape = [-1, *head.inputs[0].shape[1:]]  # of the layer, before flattening
    return lambda z: head(tf.reshape(z, shape), training=False)
