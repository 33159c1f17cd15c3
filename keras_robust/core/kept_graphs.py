"""Traced functions that are kept with the Keras model that they run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import Any, TypeVar

import keras

from keras_robust.core.classifier import all_layers, as_forward
from keras_robust.core.graphs import AnyBatch
from keras_robust.core.types import Forward

T = TypeVar("T")

_ATTRIBUTE = "_keras_robust_graphs"
_MOST = 64  # of a model; the one that was used least recently is dropped
_SETTINGS = (bool, int, float, str, type(None), FunctionType)
_KERAS = {"built", "compiled", "history", "loss", "optimizer"}  # change by training and use
_KERAS_ENDS = ("_function", "_per_execution", "_evaluating", "_predicting", "_training")


def kept(model: Any, key: Hashable, build: Callable[[], T]) -> T:
    """The result of `build()`, kept with a Keras model under a key.

    It lives as long as the model. It is built again after layers, their settings or variables have
    been replaced; new values of variables are read by a graph anyway. As with
    `keras.Model.predict`, other changes in Python are not noticed. With a function of images
    nothing is kept, as what it refers to may change.

    Args:
        model: a Keras model, or a function of images.
        key: what is built, such as an attack.
        build: builds it, such as a `tf.function`.

    Example:
        >>> model = keras.Sequential([keras.layers.Input([2]), keras.layers.Dense(1)])
        >>> first = kept(model, "forward", lambda: lambda x: model(x))
        >>> kept(model, "forward", lambda: lambda x: model(x)) is first
        True
        >>> model.layers[0].activation = keras.activations.relu
        >>> kept(model, "forward", lambda: lambda x: model(x)) is first
        False
    """
    if not isinstance(model, keras.Model):
        return build()
    graphs, state = vars(model).get(_ATTRIBUTE), _State(model)
    if graphs is None or graphs.state != state:
        graphs = _Graphs(state)
        # Neither Keras nor TensorFlow tracks the attribute, so that it is not saved.
        object.__setattr__(model, _ATTRIBUTE, graphs)
    return graphs.get(key, build)


def compiled_forward(model: Any) -> Forward:
    """A Keras model, or a function of images, as one graph, kept with a Keras model."""
    return kept(model, "forward", lambda: AnyBatch(as_forward(model)))


class _State:
    """What a trace depends on besides the values of variables."""

    def __init__(self, model: keras.Model):
        # Objects are compared by `id`, and kept so that none is used again.
        self._variables = list(model.variables)
        layers = [model, *all_layers(model)]
        self._parts = [part for layer in layers for part in _parts(layer)]
        self._parts += [id(variable) for variable in self._variables]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _State) and self._parts == other._parts

    __hash__ = None  # type: ignore[assignment]


def _parts(layer: keras.layers.Layer) -> list[Any]:
    """A layer, its dtype and its settings, as far as they are plain values or functions."""
    settings = [
        (name, value)
        for name, value in vars(layer).items()
        if _is_setting(value)
        and not name.startswith("_")
        and name not in _KERAS
        and not name.endswith(_KERAS_ENDS)
    ]
    return [layer, layer.compute_dtype, sorted(settings, key=lambda setting: setting[0])]


def _is_setting(value: Any) -> bool:
    """Whether values of its kind can be compared: not arrays, nor tuples of them."""
    return isinstance(value, _SETTINGS) or (
        isinstance(value, tuple) and all(map(_is_setting, value))
    )


class _Graphs:
    """The graphs of a model in one state, by key."""

    def __init__(self, state: _State):
        self.state = state
        self._by_key: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, build: Callable[[], T]) -> T:
        """The graph of a key, which is built if it is not there."""
        if key not in self._by_key:
            self._by_key[key] = build()
        self._by_key.move_to_end(key)
        while len(self._by_key) > _MOST:
            self._by_key.popitem(last=False)
        return self._by_key[key]

    def __reduce__(self) -> tuple:
        """A copy of the model, or a pickled one, has no graphs."""
        return type(None), ()
