"""A classifier as a list of rules, in the order of computation."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_robust.certification.layers.rule import Affine, Rule, Tensor
from keras_robust.certification.layers.scaling import BatchNormalization
from keras_robust.certification.layers.table import COVERED, NotCovered, rules_of
from keras_robust.core.classifier import classifier_of, contract_of
from keras_robust.core.functional_graph import Call, is_functional, trace
from keras_robust.core.types import Images, Logits


class Node(NamedTuple):
    """One rule and where its inputs come from.

    Attributes:
        rule: None for the images, the first node.
        inputs: positions of earlier nodes.
        shape: of the output, without the batch.
        layer: name of the layer, for messages.
    """

    rule: Rule | None
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    layer: str


class Network(NamedTuple):
    """The computation of the logits, the last node; the layers keep their weights."""

    nodes: tuple[Node, ...]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.nodes[-1].shape[0]

    @property
    def largest(self) -> int:
        """The number of values of the largest layer, per image."""
        return max(math.prod(node.shape) for node in self.nodes)

    def inputs_of(self, node: Node, values: Sequence[Any]) -> list[Any]:
        """What was computed for the inputs of a node."""
        return [values[position] for position in node.inputs]

    def forward(self, x: Images) -> Logits:
        """The logits, in the dtype of the images."""
        return self._run(x, batch_statistics=False)[1]

    def with_batch_statistics(self, x: Images) -> Network:
        """The network in which batch normalization has the statistics of a batch, as in training.

        Dropout passes values on.
        """
        if not any(isinstance(node.rule, BatchNormalization) for node in self.nodes):
            return self
        return self._run(x, batch_statistics=True)[0]

    def _run(self, x: Images, batch_statistics: bool) -> tuple[Network, Logits]:
        values, nodes = [x], [self.nodes[0]]
        for node in self.nodes[1:]:
            inputs, rule = self.inputs_of(node, values), node.rule
            if batch_statistics and isinstance(rule, BatchNormalization):
                rule = rule.with_batch_statistics(inputs[0])
            nodes.append(node._replace(rule=rule))
            values.append(rule.forward(inputs))  # type: ignore[union-attr]
        return Network(tuple(nodes)), values[-1]

    def is_quantized(self) -> bool:
        """Whether a layer was quantized after its rule was made."""
        layers = (getattr(rule, "layer", None) for rule in self._rules())
        return any(getattr(layer, "quantization_mode", None) is not None for layer in layers)

    def finite(self) -> Tensor:
        """Whether all weights are finite: a scalar.

        Compiled networks turn NaN into 0 at a ReLU, so that it has to be looked for.
        """
        layers = {id(rule.layer): rule.layer for rule in self._rules() if hasattr(rule, "layer")}
        weights = [weight for layer in layers.values() for weight in layer.weights]
        checks = [
            tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(weight)))
            for weight in weights
            if "float" in str(weight.dtype)
        ]
        return tf.reduce_all(checks) if checks else tf.constant(True)

    def _rules(self) -> list[Any]:
        return [node.rule for node in self.nodes[1:]]

    def is_affine(self, position: int) -> bool:
        """Whether a node is an affine function of its inputs."""
        return isinstance(self.nodes[position].rule, Affine)


_networks: weakref.WeakKeyDictionary[keras.Model, Network] = weakref.WeakKeyDictionary()


def network_of(classifier: Any) -> Network:
    """The rules of a classifier; found once and kept as long as the model.

    Args:
        classifier: a functional model `images -> {"logits", ...}`, or a `RobustModel` with one.

    Raises:
        TypeError: not such a model.
        ValueError: a layer that is not covered; the message names all of them.
    """
    classifier = classifier_of(classifier)
    outputs = contract_of(classifier)
    if outputs is None or "logits" not in outputs or not is_functional(classifier):
        raise TypeError(
            f"The classifier is {classifier!r}; bounds need a functional Keras model that returns "
            "'logits', whose layers they can follow. Wrap a Keras model of your own with "
            "`keras_robust.models.adapt(model)`; a subclassed model cannot be followed."
        )
    network = _networks.get(classifier)
    if network is None or network.is_quantized():
        with tf.init_scope():
            network = _networks[classifier] = _build(classifier)
    return network


def check_supported(classifier: Any) -> None:
    """Raises unless bounds cover every layer of a classifier.

    Args:
        classifier: a functional model that returns `"logits"`, or a `RobustModel`.

    Raises:
        TypeError: not such a model.
        ValueError: layers that are not covered, by name; or a model that computes something else
            than its layers do.

    Example:
        >>> import keras_robust as kr
        >>> check_supported(kr.models.mlp((4, 4, 1), 3, hidden=(8,)))
        >>> layers = [keras.Input((4,)), keras.layers.LayerNormalization(), keras.layers.Dense(2)]
        >>> try:
        ...     check_supported(kr.models.adapt(keras.Sequential(layers)))
        ... except ValueError as error:
        ...     "LayerNormalization: not covered" in str(error)
        True
    """
    network = network_of(classifier)
    _check_same(classifier_of(classifier), network)


def _check_same(classifier: keras.Model, network: Network) -> None:
    """Compares the rules with the model on two random images."""
    shape = (2, *network.nodes[0].shape)
    x = tf.constant(np.random.default_rng(0).random(shape), tf.float32)
    ours, own = network.forward(x), classifier(x, training=False)["logits"]
    if not np.allclose(ours, own, rtol=1e-3, atol=1e-3 * np.max(np.abs(own)), equal_nan=True):
        raise ValueError(
            f"Model {classifier.name!r} returns other logits than its layers do, so that bounds "
            "would not hold. Expected layers whose `call` is that of their class."
        )


def _build(classifier: keras.Model) -> Network:
    if None in classifier.input.shape[1:]:
        raise ValueError(
            f"Model {classifier.name!r} leaves sizes of its images open "
            f"({tuple(classifier.input.shape[1:])}); fix them by "
            "`keras_robust.models.adapt(model, input_shape=(32, 32, 3))`."
        )
    builder = _Builder(tuple(classifier.input.shape[1:]))
    outputs = keras.tree.flatten(classifier.output)
    wanted = [output is classifier.output["logits"] for output in outputs].index(True)
    logits = builder.add_model(classifier, 0, {wanted})[wanted]
    if builder.refused:
        refused = [f"{_listed(names)} ({why})" for why, names in builder.refused.items()]
        raise ValueError(
            f"Bounds do not cover these layers of model {classifier.name!r}: "
            f"{'; '.join(refused)}. They cover {', '.join(COVERED)}."
        )
    # A pass-through at the end may leave the logits before the last node.
    return Network(tuple(builder.nodes[: logits + 1]))


def _listed(names: Sequence[str]) -> str:
    """The first names of several layers, and the number of the others."""
    shown = ", ".join(map(repr, names[:3]))
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


class _Builder:
    """Collects the nodes of a model and of the models nested in it, and what is not covered."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.nodes = [Node(None, (), shape, "images")]
        self.refused: dict[str, list[str]] = {}  # a kind of layer and why -> names

    def add_model(self, model: keras.Model, image: int, wanted: set[int]) -> dict[int, int]:
        """Adds what the wanted ones of a model's flat outputs need; returns their positions."""
        graph = trace(model, self.nodes[image].shape)
        outputs = keras.tree.flatten(graph.outputs)
        needed = {id(outputs[number]) for number in wanted}
        calls = []
        for call in reversed(graph.calls):
            if any(id(output) in needed for output in keras.tree.flatten(call.output)):
                calls.append(call)
                needed |= {id(tensor) for tensor in call.inputs}
        positions = {id(graph.image): image}
        for call in reversed(calls):
            self._add_call(call, positions, needed)
        return {number: positions[id(outputs[number])] for number in wanted}

    def _add_call(self, call: Call, positions: dict[int, int], needed: set[int]) -> None:
        inputs = tuple(positions[id(tensor)] for tensor in call.inputs)
        outputs = keras.tree.flatten(call.output)
        if is_functional(call.operation):
            wanted = {number for number, each in enumerate(outputs) if id(each) in needed}
            found = self.add_model(call.operation, inputs[0], wanted)
            positions.update({id(outputs[number]): found[number] for number in wanted})
            return
        last = self._add_rules(call, inputs)
        positions.update({id(output): last for output in outputs})

    def _add_rules(self, call: Call, inputs: tuple[int, ...]) -> int:
        """Adds the rules of a layer; returns the position of its output."""
        name = call.operation.name
        try:
            rules: list[Rule | None] = list(rules_of(call))
        except NotCovered as error:
            why = f"{type(call.operation).__name__}: {error}"
            self.refused.setdefault(why, []).append(name)
            rules = [None]  # goes on, to find the others
        shape = tuple(keras.tree.flatten(call.output)[0].shape[1:])
        for rule in rules:
            self.nodes.append(Node(rule, inputs, shape, name))
            inputs = (len(self.nodes) - 1,)
        return inputs[0]
