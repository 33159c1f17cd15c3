"""Layer inconsistency: whether the hidden layers point to the class that the model predicts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_robust.core.classifier import as_forward, classifier_of, contract_of
from keras_robust.core.functional_graph import Graph, is_functional, trace
from keras_robust.core.types import Forward, Images, Outputs, PerExample
from keras_robust.detection.fitted import FittedToOutputs
from keras_robust.detection.mahalanobis import whitening
from keras_robust.losses.uncertainty import mean_log_probability

_PREFIX = "layer/"
_MOST_LAYERS = 4  # by default: means of the large first ones would cost most of all
_ABSENT = -30.0  # log-odds of a class without training images
_INVERSE_TEMPERATURES = 2.0 ** -np.arange(0, 14)


@dataclasses.dataclass(frozen=True)
class LayerInconsistency(FittedToOutputs):
    """Mean cross-entropy of linear class probabilities of several layers under the prediction.

    `-(1/L) sum_l sum_c p_c log q_lc`, with `p` the model's prediction and `q_l` the posterior of a
    linear discriminant analysis of layer `l`, tempered on the training images. Of a convolution the
    means over its four quadrants are read. Memory and cost: `d classes` numbers and multiplications
    for each layer of `d` numbers.

    Args:
        model: a functional classifier, or a `RobustModel` of one, whose layers are those of its
            graph; other models expose one layer alone and are refused.
        threshold, false_alarm_rate, samples, scored_by, statistics: see `FittedDetector`.
        layers: names of layers; None takes, of those with weights, the last of each size, with what
            follows it, such as its activation; of these the last four.

    Raises:
        ValueError: the model does not expose several layers, or has no layer of a name.

    Example:
        >>> import keras_robust as kr
        >>> detector = LayerInconsistency(kr.models.mlp((2, 2, 1), 3, hidden=(8, 6)))
        >>> len(detector.read_layers)
        2

    Reference: Papernot and McDaniel, "Deep k-Nearest Neighbors" (2018), section 4: predictions that
    the training data of hidden layers do not support.

    Differs: linear discriminants instead of neighbors, whose search would cost more than the model.
    """

    NAME = "layer_inconsistency"
    TITLE = "cross-entropy of the layers' classes (nats)"
    NEEDS_LABELS = True

    layers: tuple[str, ...] | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(self.layers))
        self.read_layers  # noqa: B018  raises for models without layers

    @functools.cached_property
    def _extended(self) -> tuple[keras.Model, tuple[str, ...]]:
        """The model with the values of its layers as further outputs, and the layers' names."""
        classifier = classifier_of(self.model)
        if not is_functional(classifier) or contract_of(classifier) is None:
            raise ValueError(
                f"layer_inconsistency needs a model that exposes several layers; {self.model!r} is "
                "not a functional Keras classifier, so only its outputs are known. Choose another "
                "score, such as mahalanobis."
            )
        graph = trace(classifier, classifier.inputs[0].shape[1:])
        found = _named(graph, self.layers) if self.layers is not None else _last_of_each_size(graph)
        if len(found) < 2:
            raise ValueError(
                f"layer_inconsistency needs at least two layers; the graph of {classifier.name!r} "
                f"has {[layer.name for layer in found]}. Choose another score, or pass `layers`, "
                "names of layers of the model itself and not of a model inside it."
            )
        values = {f"{_PREFIX}{number}": layer.value for number, layer in enumerate(found)}
        model = keras.Model(graph.image, {**graph.outputs, **values}, name="with_layers")
        return model, tuple(layer.name for layer in found)

    @property
    def read_layers(self) -> tuple[str, ...]:
        """The names of the layers that are read."""
        return self._extended[1]

    def extended_outputs(self, x: Images, forward: Forward | None = None) -> Outputs:
        """The model's outputs and its layers' values; `forward` is not used."""
        del forward
        return as_forward(self._extended[0])(x)

    def observe(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """The layers' values, each `[batch, d]`, and the logits, `[batch, classes]`."""
        values = {name: _pooled(outputs[name]) for name in _layer_names(outputs)}
        return {**values, "logits": tf.cast(outputs["logits"], tf.float32)}

    def summarize(self, observed: dict[str, np.ndarray], y: np.ndarray) -> dict[str, np.ndarray]:
        """Weights `[d, classes]` and biases of each layer."""
        classes = observed.pop("logits").shape[1]
        found = {}
        for name, values in observed.items():
            kernel, bias = _discriminant(values.astype(np.float64), y, classes)
            found[f"{name}/kernel"] = kernel.astype(np.float32)
            found[f"{name}/bias"] = bias.astype(np.float32)
        return found

    def measure(self, outputs: Outputs, statistics: Mapping[str, Any]) -> PerExample:
        """The mean cross-entropy."""
        prediction = tf.exp(mean_log_probability(outputs))
        found = []
        for name in _layer_names(outputs):
            linear = _pooled(outputs[name]) @ statistics[f"{name}/kernel"]
            layer = tf.nn.log_softmax(linear + statistics[f"{name}/bias"])
            found.append(-tf.reduce_sum(prediction * layer, axis=-1))
        return tf.add_n(found) / len(found)


class _Layer(NamedTuple):
    name: str
    value: Any


def _named(graph: Graph, names: tuple[str, ...]) -> list[_Layer]:
    """The outputs of layers by their names."""
    calls = {name: graph.named(name) for name in names}
    missing = [name for name, call in calls.items() if call is None]
    if missing:
        there = [call.operation.name for call in graph.calls]
        raise ValueError(f"layer_inconsistency: there is no layer {missing[0]!r}; it has {there}.")
    return [_Layer(name, call.output) for name, call in calls.items() if call is not None]


def _last_of_each_size(graph: Graph) -> list[_Layer]:
    """Of layers with kernels, the last of each size, after the layers that keep its shape."""
    found: dict[tuple[int | None, ...], _Layer] = {}
    shape: Any = None
    for call in graph.calls:
        value = call.output
        if not isinstance(value, keras.KerasTensor) or value is graph.outputs["logits"]:
            shape = None
            continue
        if any(len(weight.shape) > 1 for weight in getattr(call.operation, "weights", ())):
            shape = tuple(value.shape)
        if shape == tuple(value.shape):
            size = shape[1:3] if len(shape) == 4 else shape[1:]
            found.pop(size, None)  # keeps the order of the graph
            found[size] = _Layer(call.operation.name, value)
    return list(found.values())[-_MOST_LAYERS:]


def _layer_names(outputs: Outputs) -> list[str]:
    return sorted((n for n in outputs if n.startswith(_PREFIX)), key=lambda n: int(n.split("/")[1]))


def _pooled(values: tf.Tensor) -> tf.Tensor:
    """Means over quadrants of a convolution, and over tokens; `[batch, d]` float32."""
    values = tf.cast(values, tf.float32)
    if values.shape.rank == 3:
        return tf.reduce_mean(values, axis=1)
    if values.shape.rank != 4:
        return tf.reshape(values, [tf.shape(values)[0], -1])
    height, width = values.shape[1], values.shape[2]
    if min(height, width) < 2:
        return tf.reduce_mean(values, axis=[1, 2])
    if height % 2 == width % 2 == 0:  # the same, much faster
        window = (height // 2, width // 2)
        pooled = tf.nn.avg_pool2d(values, window, window, "VALID")
        return tf.reshape(pooled, [-1, 4 * values.shape[3]])
    parts = [
        tf.reduce_mean(values[:, rows, columns], axis=[1, 2])
        for rows in (slice(0, height // 2), slice(height // 2, None))
        for columns in (slice(0, width // 2), slice(width // 2, None))
    ]
    return tf.concat(parts, axis=1)


def _discriminant(values: np.ndarray, y: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The tempered linear discriminant of a layer: weights `[d, classes]` and biases."""
    present = np.unique(y)
    means = np.stack([values[y == label].mean(axis=0) for label in present])
    whiten = whitening(values - means[np.searchsorted(present, y)])
    center = values.mean(axis=0)
    directions = whiten @ (whiten.T @ (means - center).T)  # [d, present]
    offsets = -0.5 * np.sum((means - center).T * directions, axis=0) - center @ directions
    linear = values @ directions + offsets
    rows = np.arange(len(y)), np.searchsorted(present, y)
    risks = [np.mean(_log_softmax(linear * t)[rows]) for t in _INVERSE_TEMPERATURES]
    scale = _INVERSE_TEMPERATURES[int(np.argmax(risks))]
    kernel, bias = np.zeros([values.shape[1], classes]), np.full(classes, _ABSENT)
    kernel[:, present], bias[present] = directions * scale, offsets * scale
    return kernel, bias


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
