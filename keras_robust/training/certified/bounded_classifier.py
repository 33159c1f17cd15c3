"""A classifier as certified training bounds it: in float32, with the statistics of a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_robust.certification.layers.scaling import BatchNormalization
from keras_robust.certification.network import Network, Node, network_of
from keras_robust.core.functional_graph import trace
from keras_robust.core.types import Images, Outputs
from keras_robust.training.precision_copy import copy_in

_KEY = "batch_norm_inputs"
_HALF = ("float16", "bfloat16")


class BoundedClassifier:
    """What bounds need of a classifier in training.

    Bounds take the batch norm statistics of the clean batch. The layers compute them in the clean
    pass, but do not return them; a second pass to find them would cost a quarter of a step.

    Args:
        classifier: a built functional model whose layers bounds cover, in any precision.

    Attributes:
        observed: a model of the same layers that also returns what batch norm receives; the
            classifier itself if batch norm is in a nested model, where it cannot be observed.

    Raises:
        TypeError, ValueError: as `keras_robust.certification.check_supported`.
    """

    def __init__(self, classifier: keras.Model):
        self.classifier = classifier
        self._copy = _in_float32(classifier)
        self.observed = classifier
        names = [
            node.layer
            for node in network_of(self._copy or classifier).nodes
            if isinstance(node.rule, BatchNormalization)
        ]
        graph = trace(classifier, classifier.input.shape[1:])
        calls = [call for call in graph.calls if call.operation.name in names]
        if names and [call.operation.name for call in calls] == names:
            inputs = [call.inputs[0] for call in calls]
            self.observed = keras.Model(graph.image, {**graph.outputs, _KEY: inputs})

    @contextlib.contextmanager
    def in_float32(self) -> Iterator[keras.Model]:
        """A classifier in float32 with the present weights, to be bounded in the context."""
        if self._copy is None:
            yield self.classifier
            return
        pairs = zip(self._copy.variables, self.classifier.variables, strict=True)
        mapping = [(mine, tf.convert_to_tensor(theirs)) for mine, theirs in pairs]
        with keras.StatelessScope(state_mapping=mapping):
            yield self._copy

    def network(self, bounded: keras.Model, clean: Outputs, x: Images) -> Network:
        """The layers, with the statistics of a batch.

        Args:
            bounded: what `in_float32` gave.
            clean: what `observed` returned for the batch in training mode.
            x: the batch.
        """
        network = network_of(bounded)
        if _KEY not in clean:
            return network.with_batch_statistics(x)
        inputs = iter(clean[_KEY])
        return Network(tuple(_with_statistics(node, inputs) for node in network.nodes))


def _with_statistics(node: Node, inputs: Iterator[tf.Tensor]) -> Node:
    if not isinstance(node.rule, BatchNormalization):
        return node
    received = tf.cast(next(inputs), tf.float32)
    return node._replace(rule=node.rule.with_batch_statistics(received))


def _in_float32(classifier: keras.Model) -> keras.Model | None:
    """A copy in float32, or None if no layer computes in half precision."""
    nested = [
        layer
        for layer in classifier._flatten_layers()
        if getattr(layer, "compute_dtype", None) in _HALF and layer.weights
    ]
    if not nested:
        return None
    return copy_in(
        classifier,
        "float32",
        instead_of=_HALF,
        why="Certified training in half precision bounds the model in float32, which",
        otherwise="Train in float32",
    )
