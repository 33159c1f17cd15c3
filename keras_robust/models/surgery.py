"""Makes a classifier out of the layers of a functional model: final softmax off, latent found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import keras

from keras_robust.core.functional_graph import Call, Graph, is_functional, trace
from keras_robust.core.validation import did_you_mean
from keras_robust.models.logits_layer import DenseLogits

Tensor: TypeAlias = keras.KerasTensor


class FeatureLayerQuery(NamedTuple):
    """The layer asked for as the features, and how far the search for it has come."""

    name: str | None
    path: str = ""  # of the model that is searched, "outer/inner/"
    seen: tuple[str, ...] = ()  # names in the models around it

    def names(self, graph: Graph) -> tuple[str, ...]:
        """All names that would have been found so far.

        Args:
            graph: of the model that is searched.

        Returns:
            Those of the models around it first.
        """
        return (*self.seen, *(f"{self.path}{call.operation.name}" for call in graph.calls))

    def found(self, graph: Graph) -> Call | None:
        """The call of the layer, by its path or its bare name.

        Args:
            graph: of the model that is searched.

        Returns:
            The call; None if nothing is asked for, or it is not there.
        """
        return graph.named(self.name.removeprefix(self.path)) if self.name is not None else None

    def inside(self, nested: keras.Model, graph: Graph) -> FeatureLayerQuery:
        """The search in a nested model.

        Args:
            nested: the model.
            graph: of the model that is searched so far.

        Returns:
            What `expose_logits` takes.
        """
        return FeatureLayerQuery(self.name, f"{self.path}{nested.name}/", self.names(graph))


def expose_logits(
    model: keras.Model,
    wanted: FeatureLayerQuery,
    input_shape: Iterable[int | None],
    strip_softmax: bool = True,
    name: str | None = None,
) -> keras.Model:
    """A functional classifier made of the layers of `model`, without its final softmax.

    A nested model at the end is opened in turn.

    Args:
        model: for which `is_functional` holds.
        wanted: the layer whose output becomes the features; if no name is asked for, the input of
            the layer that makes the logits is taken.
        input_shape: shape of one image without the batch.
        strip_softmax: whether a final softmax is still to be taken off.
        name: of the result.

    Returns:
        A functional model `images -> {"logits", "features"}`, and what else `model` returned in a
        dictionary with `"logits"`.

    Raises:
        ValueError: if `model` has several outputs, ends in a sigmoid, or has not the layer.
    """
    graph = trace(model, input_shape)
    outputs = named_outputs(graph.outputs, model.name)
    logits = _before_identities(graph, outputs["logits"])
    head = graph.producer(logits)
    if strip_softmax and head is not None:
        _refuse_sigmoid(head.operation, model.name)
        if _is_softmax(head.operation, len(logits.shape)):
            logits = _before_identities(graph, head.inputs[0])
            head, strip_softmax = graph.producer(logits), False
    if head is None:
        raise ValueError(f"Model {model.name!r} returns its input: it has no layer to make logits.")

    latent = outputs.pop("features", None) if wanted.name is None else None
    chosen = wanted.found(graph)
    if is_functional(head.operation) and latent is None:
        inside = FeatureLayerQuery(None) if chosen else wanted.inside(head.operation, graph)
        # Not under the nested model's own name: both may stand in this graph, and names are unique.
        inner_name, shape = graph.unused("classifier"), head.inputs[0].shape[1:]
        inner = expose_logits(head.operation, inside, shape, strip_softmax, inner_name)
        outputs.update(inner(head.inputs[0]))
        logits, latent = outputs["logits"], outputs.pop("features")
    elif wanted.name is not None and chosen is None:
        names = did_you_mean(wanted.name, wanted.names(graph), limit=20)
        raise ValueError(f"features={wanted.name!r} names no layer; there are {names}")
    elif strip_softmax and _is_dense_softmax(head.operation):
        # In float32 under every policy, which is where Keras wants a softmax and its logits.
        unactivated = graph.unused(f"{head.operation.name}_logits")
        logits = DenseLogits(head.operation, dtype="float32", name=unactivated)(head.inputs[0])
        latent = head.inputs[0] if latent is None else latent
    if chosen is not None:
        latent = logits if chosen is head else _single(chosen)
    if latent is None:
        latent = _default_latent(graph, logits)
    return with_contract(graph, {**outputs, "logits": logits, "features": latent}, name)


def named_outputs(outputs: Any, model_name: str) -> dict[str, Tensor]:
    """What a model returns, as a dictionary with `"logits"`.

    Args:
        outputs: a tensor, a list of one, or a dictionary.
        model_name: for the error.

    Returns:
        The dictionary itself, or `{"logits": tensor}`.

    Raises:
        ValueError: for several outputs none of which is called `"logits"`.
    """
    if isinstance(outputs, Mapping) and "logits" in outputs:
        return dict(outputs)
    flat = keras.tree.flatten(outputs)
    if len(flat) == 1:
        return {"logits": flat[0]}
    kind = f"a dictionary of {sorted(outputs)}" if isinstance(outputs, Mapping) else len(flat)
    raise ValueError(
        f"Model {model_name!r} has several outputs ({kind}), expected one, or a dictionary with "
        "'logits'. Choose the one that classifies: "
        "adapt(keras.Model(model.inputs, model.get_layer(name).output))."
    )


def with_contract(graph: Graph, outputs: dict[str, Tensor], name: str | None = None) -> keras.Model:
    """The classifier: logits in float32, the features one float32 vector per image.

    Args:
        graph: of the model; it supplies the image and the names already taken.
        outputs: with `"logits"` and `"features"`, tensors that hang on the image.
        name: of the result.

    Returns:
        A functional model.
    """
    logits, latent = outputs["logits"], outputs["features"]
    if logits.dtype != "float32":
        logits = keras.layers.Identity(dtype="float32", name=graph.unused("logits"))(logits)
    # One vector per image: a convolution's latent [batch, h, w, c] is flattened, as ADR reads it.
    layer = keras.layers.Identity if len(latent.shape) == 2 else keras.layers.Flatten
    latent = layer(dtype="float32", name=graph.unused("features"))(latent)
    return keras.Model(graph.image, {**outputs, "logits": logits, "features": latent}, name=name)


def _before_identities(graph: Graph, tensor: Tensor) -> Tensor:
    call = graph.producer(tensor)
    while call is not None and _is_identity(call.operation):
        tensor = call.inputs[0]
        call = graph.producer(tensor)
    return tensor


def _default_latent(graph: Graph, logits: Tensor) -> Tensor:
    """The input of the last layer with weights, if the way back to it is one line."""
    call = graph.producer(logits)
    while call is not None and len(call.inputs) == 1:
        if isinstance(call.operation, keras.Model):
            break
        if getattr(call.operation, "weights", None):
            return call.inputs[0]
        call = graph.producer(call.inputs[0])
    return logits


def _is_identity(operation: Any) -> bool:
    if _is_plain(operation, keras.layers.Activation):
        return operation.activation is keras.activations.linear
    return _is_plain(operation, keras.layers.Identity) or _is_function(operation, "Cast")


def _is_softmax(operation: Any, rank: int) -> bool:
    if _is_plain(operation, keras.layers.Activation):
        return operation.activation is keras.activations.softmax
    if _is_plain(operation, keras.layers.Softmax) or _is_function(operation, "Softmax"):
        return operation.axis in (-1, rank - 1)
    return False


def _is_dense_softmax(operation: Any) -> bool:
    if not _is_plain(operation, keras.layers.Dense):
        return False
    if operation.activation is not keras.activations.softmax:
        return False
    if operation.quantization_mode is not None:
        raise ValueError(
            f"Layer {operation.name!r} is quantized ({operation.quantization_mode}): attacks need "
            "its gradient. Adapt the model before quantizing it."
        )
    return True


def _refuse_sigmoid(operation: Any, model_name: str) -> None:
    activation = getattr(operation, "activation", None)
    sigmoids = (keras.activations.sigmoid, keras.activations.hard_sigmoid)
    if any(activation is sigmoid for sigmoid in sigmoids) or _is_function(operation, "Sigmoid"):
        raise ValueError(
            f"Model {model_name!r} ends in a sigmoid ({operation.name!r}), so its classes are not "
            "exclusive or there are two of them; expected one logit per class. For two classes end "
            "it in Dense(2); a multi-label model cannot be adapted."
        )


def _is_plain(operation: Any, layer: Any) -> bool:
    """Of that class, or of a subclass that computes the same."""
    return isinstance(operation, layer) and type(operation).call is layer.call


def _is_function(operation: Any, name: str) -> bool:
    """A bare `keras.ops` function in the graph, which Keras exposes by its class's name only."""
    module = type(operation).__module__.split(".")[0]
    plain = not isinstance(operation, keras.layers.Layer) and module == "keras"
    return plain and type(operation).__name__ == name


def _single(call: Call) -> Tensor:
    outputs = keras.tree.flatten(call.output)
    if len(outputs) != 1 or len(outputs[0].shape) < 2:
        shapes = [tuple(output.shape) for output in outputs]
        raise ValueError(
            f"Layer {call.operation.name!r} returns {shapes}; features must be one tensor "
            "[batch, ...]: name another layer."
        )
    return outputs[0]
