"""One image that fools a model under each of several transformations."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import tensorflow as tf

from keras_robust.attacks.multi_task.tasks.problem import (
    Problem,
    check_same_shape,
    repeat,
    stacked_logits,
)
from keras_robust.core import random
from keras_robust.core.config import serializable
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, Logits
from keras_robust.core.validation import check_bounded


@serializable
class Transformations:
    """One task for each of several transformations of an image.

    Args:
        functions: functions `images -> images` of one shape and dtype, or `(images, p) -> images`
            with a strength `p`, a scalar in [0, 1]. To be saved with a model, each must be
            registered with `keras.saving.register_keras_serializable`.
        stochastic: whether `p` is drawn uniformly at each step, the same for all functions; else it
            is 1.

    Raises:
        TypeError: `functions` is not a tuple of functions.
        ValueError: an empty tuple; when called, a function that changes the shape.

    Example:
        >>> import keras_robust as kr
        >>> tasks = Transformations((tf.identity, lambda x, p: 1 - p * x))
        >>> attack = kr.attacks.multi_task(kr.LinfBall(0.25), 1, tasks=tasks)
        >>> x, y = tf.constant([[0.5, 0.5]]), tf.constant([0])
        >>> attack(lambda x: {"logits": x * [1.0, 0.5]}, x, y).shape.as_list()
        [1, 2]

    Reference: EoT of Bui et al. (2023), section 3.2 and Table 9.
    """

    functions: tuple[Callable[..., Images], ...]
    stochastic: bool = False
    success_criterion = "prediction"

    def __post_init__(self) -> None:
        functions = self.functions
        sequence = isinstance(functions, (tuple, list))
        if not sequence or not all(map(callable, functions)):
            raise TypeError(
                f"Transformations: functions are {functions!r}; expected a tuple of functions of "
                "images, such as `(tf.identity, tf.image.flip_left_right)`."
            )
        if not functions:
            raise ValueError("Transformations: no functions were received; expected at least one.")
        object.__setattr__(self, "functions", tuple(functions))

    def on(self, forward: Forward, ball: Ball, x: Images, y: Labels) -> Problem:
        """One task for each transformation; the clean prediction is that of the image itself."""
        count = len(self.functions)
        if any(map(_in_unit_range, self.functions)):
            check_bounded("A transformation of images in [0, 1]", ball)

        def logits(copies: tf.Tensor, seed: tf.Tensor) -> Logits:
            one = tf.ones([], x.dtype)
            p = random.uniform([], seed, dtype=x.dtype) if self.stochastic else one
            transformed = [
                _transformed(function, images, p, ball.bounds)
                for function, images in zip(self.functions, tf.unstack(copies), strict=True)
            ]
            check_same_shape([x, *transformed], "The images and their transformations", "images")
            return stacked_logits(forward, tf.stack(transformed))

        return Problem(
            ball=ball,
            center=x,
            logits=logits,
            clean=lambda: repeat(forward(x)["logits"], count),
            labels=repeat(y, count),
            images=lambda points: points,
            num_tasks=count,
        )


def _transformed(
    function: Callable[..., Images], images: Images, p: tf.Tensor, bounds: tuple[float, float]
) -> Images:
    """The transformed images; those of a function with `unit_range` are scaled to [0, 1] for it."""
    low, high = bounds
    scaled = _in_unit_range(function) and (low, high) != (0, 1)
    if scaled:
        wide = upcast_half(images)
        x = tf.cast((wide - low) / (high - low), images.dtype)
    else:
        x = images
    result = function(x, p) if _takes_strength(function) else function(x)
    if not scaled:
        return result
    return tf.cast(low + (high - low) * upcast_half(result), images.dtype)


def _in_unit_range(function: Callable) -> bool:
    """Whether a function is defined for images in [0, 1]."""
    return bool(getattr(function, "unit_range", False))


def _takes_strength(function: Callable) -> bool:
    """Whether the second parameter of a function is called `p`, or has no default."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 and (
        positional[1].name == "p" or positional[1].default is inspect.Parameter.empty
    )
