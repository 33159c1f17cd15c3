"""Rebuilds a functional model as a classifier: the final softmax removed, the features exposed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import keras

from keras_robust.core.functional_graph import Call, Graph, is_functional, trace
from keras_robust.models.adapting.feature_layer import (
    FeatureLayerQuery,
    default_features,
    single_output,
)
from keras_robust.models.adapting.final_softmax import (
    TwoClassLogits,
    ends_in_sigmoid,
    skip_identities,
    skip_softmax_layer,
    without_softmax_activation,
)

Tensor: TypeAlias = keras.KerasTensor


def expose_logits(
    model: keras.Model,
    query: FeatureLayerQuery,
    input_shape: Iterable[int | None],
    strip_softmax: bool = True,
    name: str | None = None,
) -> keras.Model:
    """Builds a classifier from the layers of `model`, without its final softmax.

    The sigmoid of a single unit, `z`, becomes the logits `[0, z]`. A nested model at the end is
    rebuilt in turn.

    Args:
        model: for which `is_functional` holds.
        query: the layer whose output becomes the features; without a name, the model's own
            `"features"`, or the input of the layer that makes the logits.
        input_shape: shape of one image without the batch.
        strip_softmax: whether a final softmax is removed.
        name: of the result.

    Returns:
        A functional model `images -> {"logits", "features"}`, with the other outputs of a `model`
        that returns a dictionary with `"logits"`.

    Raises:
        ValueError: `model` has several outputs, ends in a sigmoid of several units, or lacks the
            layer.
    """
    graph = trace(model, input_shape)
    outputs = named_outputs(graph.outputs, model.name)
    logits = skip_identities(graph, outputs["logits"])
    single_sigmoid = strip_softmax and ends_in_sigmoid(graph, logits)
    if strip_softmax:
        output, logits = logits, skip_softmax_layer(graph, logits, model.name)
        strip_softmax = logits is output
    head = graph.producer(logits)
    if head is None:
        raise ValueError(f"Model {model.name!r} returns its input; expected a layer of logits.")
    layer = query.find(graph)
    own_features = outputs.get("features") if query.name is None else None
    if is_functional(head.operation) and own_features is None:
        inside = query.inside(head.operation, graph) if layer is None else FeatureLayerQuery(None)
        outputs |= _expose_nested(graph, head, inside, strip_softmax)
    else:
        query.check_found(graph, layer)
        no_features = own_features is None
        outputs["features"] = default_features(graph, logits) if no_features else own_features
        outputs["logits"] = without_softmax_activation(graph, logits) if strip_softmax else logits
    if layer is not None:
        outputs["features"] = outputs["logits"] if layer is head else single_output(layer)
    if single_sigmoid:
        layer_name = graph.unused("two_class_logits")
        outputs["logits"] = TwoClassLogits(dtype="float32", name=layer_name)(outputs["logits"])
    return with_contract(graph, outputs, name)


def _expose_nested(
    graph: Graph, call: Call, query: FeatureLayerQuery, strip_softmax: bool
) -> dict[str, Tensor]:
    """The outputs of the nested model of `call`, rebuilt as a classifier."""
    # Not under the nested model's own name: both may be in this graph, and names are unique.
    name, image = graph.unused("classifier"), call.inputs[0]
    inner = expose_logits(call.operation, query, image.shape[1:], strip_softmax, name)
    return inner(image)


def named_outputs(outputs: Any, model_name: str) -> dict[str, Tensor]:
    """The outputs of a model (a tensor, a list of one, a dictionary) as one with `"logits"`.

    Raises:
        ValueError: for several outputs none of which is named `"logits"`.
    """
    if isinstance(outputs, Mapping) and "logits" in outputs:
        return dict(outputs)
    flat = keras.tree.flatten(outputs)
    if len(flat) == 1:
        return {"logits": flat[0]}
    kind = f"a dictionary of {sorted(outputs)}" if isinstance(outputs, Mapping) else len(flat)
    raise ValueError(
        f"Model {model_name!r} has several outputs ({kind}); expected one, or a dictionary with "
        "'logits'. Choose the one that classifies: "
        "adapt(keras.Model(model.inputs, model.get_layer(name).output))."
    )


def with_contract(graph: Graph, outputs: dict[str, Tensor], name: str | None = None) -> keras.Model:
    """Builds the classifier: float32 logits, and features as one float32 vector per image."""
    logits, features = outputs["logits"], outputs["features"]
    if logits.dtype != "float32":
        logits = keras.layers.Identity(dtype="float32", name=graph.unused("logits"))(logits)
    # One vector per image: the output of a convolution, [batch, h, w, c], is flattened.
    layer = keras.layers.Identity if len(features.shape) == 2 else keras.layers.Flatten
    features = layer(dtype="float32", name=graph.unused("features"))(features)
    return keras.Model(graph.image, {**outputs, "logits": logits, "features": features}, name=name)
