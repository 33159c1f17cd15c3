"""One image that fools a model however it is transformed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_robust.attacks.multi_task.tasks.problem import (
    Problem,
    of_one_shape,
    repeated,
    stacked_logits,
)
from keras_robust.core.config import serializable
from keras_robust.core.types import Ball, Forward, Images, Labels, Logits


@serializable
class Transformations:
    """Fools a model on each of several transformations of an image.

    Args:
        functions: functions `images -> images` of one shape and dtype, or `(images, p) -> images`
            with a strength `p`, a scalar in [0, 1]. To be saved with a model, each has to be
            registered with `keras.saving.register_keras_serializable`.
        stochastic: whether `p` is drawn uniformly, once for each step, the same for all; else it is
            1.

    Raises:
        TypeError: no functions.
        ValueError: an empty sequence; or, when called, a function that changes the shape.

    Example:
        >>> import keras_robust as kr
        >>> ways = Transformations((tf.identity, lambda x, p: 1 - p * x))
        >>> attack = kr.attacks.multi_task(kr.LinfBall(0.25), 1, tasks=ways)
        >>> x, y = tf.constant([[0.5, 0.5]]), tf.constant([0])
        >>> attack(lambda x: {"logits": x * [1.0, 0.5]}, x, y).shape.as_list()
        [1, 2]

    Reference: EoT of Bui et al. (2023), section 3.2 and Table 9.
    """

    functions: tuple[Any, ...]
    stochastic: bool = False
    goal = "prediction"

    def __post_init__(self) -> None:
        functions = self.functions
        sequence = isinstance(functions, (tuple, list))
        if not sequence or not all(map(callable, functions)):
            raise TypeError(
                f"Transformations: functions are {functions!r}; expected a tuple of functions of "
                "images, such as `(tf.identity, tf.image.flip_left_right)`."
            )
        if not functions:
            raise ValueError("Transformations: no functions were given; expected at least one.")
        object.__setattr__(self, "functions", tuple(functions))

    def on(self, forward: Forward, ball: Ball, x: Images, y: Labels) -> Problem:
        """One task for each transformation; the clean prediction is that of the image itself."""
        count = len(self.functions)

        def logits(copies: tf.Tensor, seed: tf.Tensor) -> Logits:
            one = tf.ones([], x.dtype)
            p = tf.random.stateless_uniform([], seed, dtype=x.dtype) if self.stochastic else one
            seen = [
                function(images, p) if _takes_strength(function) else function(images)
                for function, images in zip(self.functions, tf.unstack(copies), strict=True)
            ]
            of_one_shape([x, *seen], "The images and their transformations", "images")
            return stacked_logits(forward, tf.stack(seen))

        return Problem(
            ball,
            x,
            logits,
            lambda: repeated(forward(x)["logits"], count),
            repeated(y, count),
            lambda points: points,
            count,
        )


def _takes_strength(function: Callable) -> bool:
    """Whether a function has a second parameter that is called `p`, or that has no default."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # of some built-in functions nothing is known
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 and (
        positional[1].name == "p" or positional[1].default is inspect.Parameter.empty
    )
