"""Functions compiled to graphs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

_numbers = itertools.count(1)


def compiled(function: Callable[..., Any]) -> Any:
    """A `tf.function` of positional arguments, whose traces are counted by themselves.

    TensorFlow warns of retracing if functions from one place of the source are traced several
    times, although each is traced once: one per attack, or per model. It counts by code object, so
    each function is given one of its own.

    Example:
        >>> double = compiled(lambda x: 2 * x)
        >>> double(tf.constant(2.0)).numpy().item()
        4.0
    """

    def run(*arguments: Any) -> Any:
        return function(*arguments)

    run.__code__ = run.__code__.replace(co_name=f"run_{next(_numbers)}")
    return tf.function(run, autograph=False, reduce_retracing=True)
