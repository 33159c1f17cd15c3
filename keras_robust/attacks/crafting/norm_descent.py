"""Minimum-norm attacks that follow one gradient per step, on the one crafting loop.

They see perturbations in units of the range of each pixel and of the fractions of a mask: in these
units images are in [0, 1], the norm is the plain Lp norm, and a setting means the same for all.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting.gradient_ascent import (
    gradient_ascent,
    noinline,
    value_and_sum_gradient,
    zero_nonfinite,
)
from keras_robust.attacks.crafting.minimum_norm import (
    BestSoFar,
    MarginSearch,
    initial_best,
    keep_closest,
)
from keras_robust.attacks.crafting.step_rules import Point
from keras_robust.core.numerics import pixel_range, scalar, upcast_half
from keras_robust.core.types import (
    Ball,
    Forward,
    Images,
    Labels,
    Logits,
    PerExample,
)
from keras_robust.losses import classification as losses
from keras_robust.threat_models.clipping import allowed
from keras_robust.threat_models.masks import mask_of


class Present(NamedTuple):
    """The present point of the search; lengths are in units of the range of a pixel.

    Attributes:
        index: the number of steps taken, int32 scalar.
        delta: the perturbation, `[batch, ...]`, at least float32.
        gradient: the gradient of the loss in `delta`.
        margin: by how much another logit exceeds the label's, `[batch]`.
        adversarial: where it is positive, `[batch]`.
        best: the distance of the closest adversarial example so far, this one included, `[batch]`;
            the largest number of the dtype where there is none. In L0 it is a number of pixels.
        low, high: what `delta` may be inside the bounds.
    """

    index: tf.Tensor
    delta: tf.Tensor
    gradient: tf.Tensor
    margin: PerExample
    adversarial: tf.Tensor
    best: PerExample
    low: tf.Tensor
    high: tf.Tensor


class _LossOracle:
    """The gradient of a loss of the logits, and the margin as its value."""

    def __init__(self, forward: Forward, loss: Callable, margin: Callable):
        def both(x_adv: Images) -> tuple[PerExample, PerExample]:
            logits = forward(x_adv)["logits"]
            return loss(logits), margin(logits)

        self._gradient = noinline(lambda x_adv: value_and_sum_gradient(both, x_adv))

    def init(self, x_start: Images) -> Any:
        """An empty state."""
        del x_start
        return ()

    def __call__(self, x_adv: Images, state: Any) -> tuple[PerExample, tf.Tensor, Any]:
        (_, margin), gradient = self._gradient(x_adv)
        return margin, zero_nonfinite(gradient), state


class NormDescent(MarginSearch):
    """Base class of minimum-norm attacks that take one gradient per step.

    Subclasses implement `start` and `move`. The last point costs one more forward pass.
    """

    @abc.abstractmethod
    def start(self, delta: tf.Tensor) -> Any:
        """The state before the first step; `delta` has the shape of the perturbation."""

    @abc.abstractmethod
    def move(self, now: Present, state: Any) -> tuple[tf.Tensor, Any]:
        """The next perturbation, and the next state."""

    def loss(self, logits: Logits, y: Labels, targets: Labels | None) -> PerExample:
        """What a step ascends, `[batch]`: by default the margin."""
        return margin_of(logits, y, targets)

    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> BestSoFar:
        """The closest adversarial example of all steps."""
        del seed
        self.objective(forward, x, y, targets)  # refuses targets that are missing or not used
        oracle = _LossOracle(
            forward,
            lambda logits: self.loss(logits, y, targets),
            lambda logits: margin_of(logits, y, targets),
        )
        end = gradient_ascent(self.ball, _Rule(self), oracle, x, x, self.steps)
        margin = margin_of(forward(end.x)["logits"], y, targets)
        return keep_closest(self.ball, end.rule_state[0], x, end.x, margin > 0)


class _Rule:
    """An attack as a step rule; its state is the closest example and the attack's own state."""

    def __init__(self, attack: NormDescent):
        self.attack = attack

    def init(self, ball: Ball, x_start: Images) -> Any:
        """No example yet."""
        none = tf.zeros_like(ball.distance(x_start, x_start), tf.bool)
        return initial_best(x_start, none), self.attack.start(tf.zeros_like(upcast_half(x_start)))

    def update(self, ball: Ball, x: Images, point: Point, state: Any) -> tuple[Images, Any]:
        """Keeps the point if it is the closest, and moves on."""
        best, own = state
        adversarial = point.value > 0
        best = keep_closest(ball, best, x, point.x, adversarial)
        clean, unit = upcast_half(x), units_of(ball, x)
        low, high = (
            tf.math.divide_no_nan(scalar(bound, clean.dtype) - clean, unit) for bound in ball.bounds
        )
        delta = tf.math.divide_no_nan(upcast_half(point.x) - clean, unit)
        length = best.distance
        if ball.p != 0:
            length = tf.where(length < length.dtype.max, length / pixel_range(ball.bounds), length)
        gradient = upcast_half(point.gradient) * unit
        margin = tf.cast(point.value, delta.dtype)
        now = Present(point.index, delta, gradient, margin, adversarial, length, low, high)
        moved, after = self.attack.move(now, own)
        moved = tf.where(tf.math.is_finite(moved), moved, delta)
        after = tf.nest.map_structure(lambda new, old: tf.ensure_shape(new, old.shape), after, own)
        return allowed(ball, clean + unit * moved, x), (best, after)


def units_of(ball: Ball, x: Images) -> tf.Tensor:
    """The range of a pixel, times its fraction of a mask; broadcasts over the images."""
    real = upcast_half(x).dtype
    width, mask = scalar(pixel_range(ball.bounds), real), mask_of(ball)
    return width if mask is None else width * mask.fractions(real)


def margin_of(logits: Logits, y: Labels, targets: Labels | None) -> PerExample:
    """The margin of the label, or of the target if there is one."""
    if targets is None:
        return losses.margin(logits, y)
    return losses.targeted_margin(logits, y, targets)


def cosine(index: tf.Tensor, steps: int, first: float, last: float, dtype: tf.DType) -> tf.Tensor:
    """Falls from `first` to `last` over the steps, along half a cosine.

    Example:
        >>> [round(float(cosine(tf.constant(i), 4, 3.0, 1.0, tf.float32)), 2) for i in (0, 2, 4)]
        [3.0, 2.0, 1.0]
    """
    angle = tf.cast(index, dtype) * (math.pi / max(steps, 1))
    return last + (first - last) * (1 + tf.cos(angle)) / 2
