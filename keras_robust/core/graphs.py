"""Functions compiled to graphs."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Collection
from types import FunctionType
from typing import Any

import tensorflow as tf

_numbers = itertools.count(1)


def compiled(
    function: Callable[..., Any], reduce_retracing: bool = True, jit_compile: bool = False
) -> Any:
    """A `tf.function` whose traces are counted by themselves.

    TensorFlow warns of retracing if functions from one place of the source are traced several
    times, although each is traced once: one per attack, or per model. It counts by code object, so
    the function is given one of its own.

    Args:
        function: a function that was defined for this purpose, inside another one.
        reduce_retracing: give up the sizes of axes that differ between calls.
        jit_compile: compile by XLA, for each shape of the arguments.

    Example:
        >>> double = compiled(lambda x: 2 * x)
        >>> double(tf.constant(2.0)).numpy().item()
        4.0
    """
    inner = inspect.unwrap(function)
    if isinstance(inner, FunctionType):
        code = inner.__code__
        inner.__code__ = code.replace(co_name=f"{code.co_name}_{next(_numbers)}")
    return tf.function(
        function,
        autograph=False,
        reduce_retracing=reduce_retracing,
        jit_compile=jit_compile or None,
    )


class AnyBatch:
    """A function as graphs that take batches of any size: one for each shape and dtype of images.

    Args:
        function: as for `compiled`; its arguments are tensors or None.
        batched: the positions of the arguments whose first axis is the batch.
        jit_compile: compile by XLA, for each size of batch.

    Example:
        >>> double = AnyBatch(lambda x: 2 * x)
        >>> [double(tf.ones([size])).shape[0] for size in (4, 3)], double.traces
        ([4, 3], 1)
    """

    def __init__(
        self,
        function: Callable[..., Any],
        batched: Collection[int] = (0,),
        jit_compile: bool = False,
    ):
        self._run = compiled(function, reduce_retracing=False, jit_compile=jit_compile)
        self._batched = batched
        self._graphs: dict[tuple, Callable[..., Any] | None] = {}

    @property
    def traces(self) -> int:
        """The number of traces so far."""
        return self._run.experimental_get_tracing_count()

    def __call__(self, *given: Any) -> Any:
        """The result of the function."""
        given = tuple(None if value is None else tf.convert_to_tensor(value) for value in given)
        types = tuple(self._type(*pair) for pair in enumerate(given))
        if types not in self._graphs:
            self._graphs[types] = self._traced(types, given)
        graph = self._graphs[types]
        if graph is None:  # a model that needs to know the size of the batch: a trace for each
            graph = self._run.get_concrete_function(*given)
        return graph(*(value for value in given if value is not None))

    def _type(self, position: int, value: tf.Tensor | None) -> tf.TensorSpec | None:
        if value is None:
            return None
        any_size = position in self._batched and value.shape.rank is not None
        shape = [None, *value.shape[1:]] if any_size else value.shape
        return tf.TensorSpec(shape, value.dtype)

    def _traced(self, types: tuple, given: tuple) -> Callable[..., Any] | None:
        """The graph for all sizes; None if there is one for this size only."""
        try:
            return self._run.get_concrete_function(*types)
        except (TypeError, ValueError) as error:
            try:
                self._run.get_concrete_function(*given)
            except (TypeError, ValueError):
                raise error from None
            return None
