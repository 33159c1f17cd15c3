"""Freezing the parts of a classifier, for fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator

import keras

from keras_robust.core.classifier import classifier_of, members_of
from keras_robust.core.functional_graph import is_functional, trace
from keras_robust.core.validation import check_choice

PARTS = ("all", "all_but_batch_norm", "head")


def set_trainable(model: keras.Model, part: str) -> None:
    """Chooses the weights of a classifier that training changes; compile the model afterwards.

    Frozen batch normalization keeps its running statistics and uses them in training too. A call
    with `training=False` inside of a functional model does not do that: Keras 3 overrides it in
    `fit`.

    Args:
        model: a classifier, or a `RobustModel` with one; of an ensemble, each member is changed.
        part: `"all"`; `"all_but_batch_norm"`, which keeps the scales, offsets and statistics of
            batch normalization; or `"head"`, the layer that makes the logits, of a stacked ensemble
            the one that combines its members.

    Raises:
        ValueError: an unknown part, or a model without a layer that makes the logits.

    Example:
        >>> from keras_robust.models import mlp
        >>> classifier = mlp((8, 8, 1), 10, hidden=(16, 12))
        >>> set_trainable(classifier, "head")
        >>> [weight.path for weight in classifier.trainable_weights]
        ['logits/kernel', 'logits/bias']
    """
    check_choice("part", part, PARTS)
    classifier = classifier_of(model)
    heads = _heads(classifier)
    classifier.trainable = True
    for layer in _layers(classifier):
        frozen = isinstance(layer, keras.layers.BatchNormalization) or part == "head"
        layer.trainable = part == "all" or not frozen
    for head in heads:
        head.trainable = True


def _heads(classifier: keras.Model) -> list[keras.layers.Layer]:
    """The layers that make the logits: of an ensemble its trained combination, or each member's."""
    graph = trace(classifier, classifier.inputs[0].shape[1:])
    last = graph.producer(graph.outputs["logits"])
    members = members_of(classifier)
    if not members or (last is not None and last.operation.weights):
        return [_head(classifier)]
    return [_head(member) for member in members]


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models nested in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model) and layer.layers:
            yield from _layers(layer)
        else:
            yield layer


def _head(classifier: keras.Model) -> keras.layers.Layer:
    """The last layer with weights before the logits."""
    graph = trace(classifier, classifier.inputs[0].shape[1:])
    call = graph.producer(graph.outputs["logits"])
    while call is not None and len(call.inputs) == 1:
        layer = call.operation
        if is_functional(layer) and isinstance(layer.output, dict):
            return _head(layer)
        if isinstance(layer, keras.Model):
            break
        if getattr(layer, "weights", None):
            return layer
        call = graph.producer(call.inputs[0])
    raise ValueError(
        f"Model {classifier.name!r} has no layer of its own that makes the logits; expected one, "
        "such as Dense(classes), after the features."
    )
