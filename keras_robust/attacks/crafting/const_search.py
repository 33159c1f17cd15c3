"""The search for the weight of the margin, of attacks that minimize distance plus that."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting.minimum_norm import BestSoFar
from keras_robust.core.numerics import scalar
from keras_robust.core.types import PerExample

LARGEST_CONST = 1e10


class ConstSearch(NamedTuple):
    """Binary search for the smallest constant that succeeds, in (lower, upper]; all `[batch]`."""

    const: PerExample
    lower: PerExample
    upper: PerExample

    @classmethod
    def start(cls, initial_const: float, like: PerExample) -> ConstSearch:
        """One constant for all examples of `like`, `[batch]`."""
        const = tf.zeros_like(like) + scalar(initial_const, like.dtype)
        return cls(const, tf.zeros_like(const), tf.zeros_like(const) + const.dtype.max)

    def next(self, success: tf.Tensor) -> ConstSearch:
        """Multiplies the constant by ten until it succeeds, then bisects."""
        upper = tf.where(success, self.const, self.upper)
        lower = tf.where(success, self.lower, self.const)
        middle = tf.where(upper < LARGEST_CONST, (lower + upper) / 2, 10 * self.const)
        return ConstSearch(tf.minimum(middle, LARGEST_CONST), lower, upper)


def closest_over_constants(
    initial_const: float,
    count: int,
    initial: BestSoFar,
    run: Callable[[PerExample, BestSoFar], tuple[BestSoFar, tf.Tensor]],
) -> BestSoFar:
    """The closest adversarial examples of runs with several constants.

    Args:
        initial_const: the first constant.
        count: how many constants are tried.
        initial: the closest examples before the first run.
        run: `(constants [batch], the closest so far) -> (the closest, where it succeeded)`.
    """

    def body(index: tf.Tensor, search: ConstSearch, best: BestSoFar) -> tuple:
        best, success = run(search.const, best)
        return index + 1, search.next(success), best

    *_, best = tf.while_loop(
        lambda index, *_: index < count,
        body,
        (tf.constant(0), ConstSearch.start(initial_const, initial.distance), initial),
        parallel_iterations=1,
    )
    return best
