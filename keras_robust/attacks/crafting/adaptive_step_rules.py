"""The step rules of APGD, whose step sizes adapt to the progress of each image."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting.step_rules import Point, check_step_size
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, scalar, upcast_half
from keras_robust.core.types import Ball, Images, PerExample, Radius
from keras_robust.core.validation import check_integer, check_number
from keras_robust.threat_models.masks import pixels_of
from keras_robust.threat_models.norms import sparse_l1_unit


class BestPoint(NamedTuple):
    """The best point of each image so far, with its gradient and value `[batch]`."""

    x: Images
    gradient: tf.Tensor
    value: PerExample


def _initial_best(x_start: Images) -> BestPoint:
    lowest = tf.fill(tf.shape(x_start)[:1], tf.constant(-float("inf"), upcast_half(x_start).dtype))
    return BestPoint(x_start, tf.zeros_like(x_start), lowest)


def _update_best(best: BestPoint, point: Point, value: PerExample) -> BestPoint:
    """The better of the best point and a new one; NaN values never win."""
    better = value > best.value
    return BestPoint(
        tf.where(broadcast_to_images(better, point.x), point.x, best.x),
        tf.where(broadcast_to_images(better, point.x), point.gradient, best.gradient),
        tf.where(better, value, best.value),
    )


def _restarted(restart: tf.Tensor, best: BestPoint, point: Point) -> tuple[Images, tf.Tensor]:
    """The point and its gradient; those of the best point where `restart` holds."""
    restart = broadcast_to_images(restart, point.x)
    gradient = tf.where(restart, best.gradient, point.gradient)
    return tf.where(restart, best.x, point.x), gradient


class AdaptiveState(NamedTuple):
    """The state of `AdaptiveStep`."""

    best: BestPoint
    size: PerExample  # the current step size
    previous: Images  # where the last step began
    last_value: PerExample
    increases: tf.Tensor  # of the value since the last checkpoint, int32 [batch]
    halved: tf.Tensor  # where the size was halved at the last checkpoint, bool [batch]
    checkpoint_value: PerExample  # the best value at the last checkpoint
    elapsed: tf.Tensor  # steps since the last checkpoint, int32 scalar
    window: tf.Tensor  # steps between the last checkpoint and the next, int32 scalar


@serializable
class AdaptiveStep:
    """Steps with momentum, whose size is halved for each image that stops improving.

    `z = project(x + size * steepest(gradient))`, then the point
    `project(x + 0.75 (z - x) + 0.25 (x - x_previous))`. At a checkpoint the size of an image is
    halved, and its ascent restarts from its best point, if its value increased in at most a
    fraction `rho` of the steps since the last checkpoint, or if the size was not halved then and
    the best value has not changed. The first checkpoint is after 22 % of the steps; each interval
    is 3 % of the steps shorter than the one before, down to 6 %.

    Args:
        size: the initial step size, in the norm of the ball; the paper takes twice the radius.
        steps: the number of steps of the ascent, >= 0.
        rho: the fraction of increasing steps at or below which the size is halved, in [0, 1].

    Raises:
        ValueError: a size that is negative or infinite, negative steps, or `rho` outside [0, 1].

    Example:
        >>> AdaptiveStep(0.2, steps=100).first_window
        22

    Reference: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
    Diverse Parameter-free Attacks" (2020), Algorithm 1.

    Differs: as in the authors' code, the first step counts as an increase if the value after it is
    positive, not if it exceeds the value at the start. On a small robust model the other reading
    left as many images of 360 unfooled, with either loss, at three radii and from three seeds.
    """

    size: float | tf.Tensor
    steps: int
    rho: float = 0.75

    def __post_init__(self) -> None:
        check_step_size("AdaptiveStep", self.size)
        check_integer("AdaptiveStep: steps", self.steps)
        check_number("AdaptiveStep: rho", self.rho, most=1)

    @property
    def first_window(self) -> int:
        """The number of steps before the first checkpoint."""
        return max(int(0.22 * self.steps), 1)

    @property
    def _last_window(self) -> int:
        return max(int(0.06 * self.steps), 1)

    def init(self, ball: Ball, x_start: Images) -> AdaptiveState:
        """The state before the first step."""
        del ball
        best = _initial_best(x_start)
        zeros = tf.zeros_like(best.value)
        return AdaptiveState(
            best=best,
            size=zeros + scalar(self.size, zeros.dtype),
            previous=x_start,
            last_value=zeros,
            increases=tf.zeros_like(zeros, tf.int32),
            # At the first checkpoint only the number of increases counts.
            halved=tf.ones_like(zeros, tf.bool),
            checkpoint_value=best.value,
            elapsed=tf.constant(-1),  # the first update sees the start, before any step
            window=tf.constant(self.first_window),
        )

    def update(
        self, ball: Ball, x: Images, point: Point, state: AdaptiveState
    ) -> tuple[Images, AdaptiveState]:
        """One step with momentum, from the best point where the size was halved."""
        state = self._record(point, state)
        limit = self.rho * tf.cast(state.window, tf.float32)
        oscillates = tf.cast(state.increases, tf.float32) <= limit
        stagnates = ~state.halved & (state.best.value <= state.checkpoint_value)
        due = tf.equal(state.elapsed, state.window)
        halve = due & (oscillates | stagnates)
        here, gradient = _restarted(halve, state.best, point)
        size = tf.where(halve, state.size / 2, state.size)
        x_next = self._next_point(ball, x, here, gradient, size, state.previous, point.index)
        shorter = tf.maximum(state.window - max(int(0.03 * self.steps), 1), self._last_window)
        return x_next, state._replace(
            size=size,
            previous=here,
            increases=tf.where(due, 0, state.increases),
            halved=tf.where(due, halve, state.halved),
            checkpoint_value=tf.where(due, state.best.value, state.checkpoint_value),
            elapsed=tf.where(due, 0, state.elapsed),
            window=tf.where(due, shorter, state.window),
        )

    def _record(self, point: Point, state: AdaptiveState) -> AdaptiveState:
        """The state with the value at a point."""
        value = tf.cast(point.value, state.last_value.dtype)
        start = tf.equal(point.index, 0)
        increases = state.increases + tf.cast(value > state.last_value, tf.int32)
        return state._replace(
            best=_update_best(state.best, point, value),
            last_value=tf.where(start, tf.zeros_like(value), value),
            increases=tf.where(start, 0, increases),
            elapsed=state.elapsed + 1,
        )

    @staticmethod
    def _next_point(
        ball: Ball, x: Images, here: Images, gradient: tf.Tensor, size: PerExample,
        previous: Images, index: tf.Tensor,
    ) -> Images:  # fmt: skip
        here, gradient = upcast_half(here), upcast_half(gradient)
        moved = upcast_half(
            ball.project(here + broadcast_to_images(size, here) * ball.steepest(gradient), x)
        )
        weight = tf.cast(tf.where(tf.equal(index, 0), 1.0, 0.75), here.dtype)
        return ball.project(
            here + weight * (moved - here) + (1 - weight) * (here - upcast_half(previous)), x
        )


class SparseState(NamedTuple):
    """The state of `SparseStep`."""

    best: BestPoint
    size: PerExample  # the current step size
    fraction: PerExample  # of the pixels that a step changes
    changed: PerExample  # pixels that the best point had changed at the last checkpoint
    elapsed: tf.Tensor  # steps since the last checkpoint, int32 scalar


@serializable
class SparseStep:
    """Steps in L1 that adapt their size and the number of pixels that they change.

    A step changes the pixels with the largest gradients: at first a fifth of all, after a
    checkpoint two thirds of as many as the best point has changed. Where that number fell by 5 %,
    the size is reset and the ascent restarts from the best point; elsewhere the size is divided by
    1.5, down to a tenth. A checkpoint is after every 4 % of the steps.

    Args:
        size: the initial step size; the paper takes the radius.
        steps: the number of steps of the ascent, >= 0.
        fraction: of the pixels that the first steps change, in (0, 1]; None for two thirds of
            as many as the start has changed.

    Raises:
        ValueError: a size that is negative or infinite, negative steps, or a fraction outside
            (0, 1].

    Example:
        >>> SparseStep(12.0, steps=100).window
        4

    Reference: Croce and Hein, "Mind the Box: L1-APGD for Sparse Adversarial Attacks on Image
    Classifiers" (2021), Algorithm 1.
    """

    size: float | tf.Tensor
    steps: int
    fraction: float | None = 0.2

    def __post_init__(self) -> None:
        check_step_size("SparseStep", self.size)
        check_integer("SparseStep: steps", self.steps)
        if self.fraction is not None:
            check_number("SparseStep: fraction", self.fraction, above=0, most=1)

    @property
    def window(self) -> int:
        """The number of steps between checkpoints."""
        return max(int(0.04 * self.steps), 1)

    def init(self, ball: Ball, x_start: Images) -> SparseState:
        """The state before the first step; the first update sets the fraction."""
        del ball
        best = _initial_best(x_start)
        zeros = tf.zeros_like(best.value)
        size = zeros + scalar(self.size, zeros.dtype)
        return SparseState(best, size, zeros, zeros, tf.constant(-1))

    def update(
        self, ball: Ball, x: Images, point: Point, state: SparseState
    ) -> tuple[Images, SparseState]:
        """One sparse step, from the best point where fewer pixels turned out to suffice."""
        dtype = state.size.dtype
        pixels = tf.cast(pixels_of(ball, x), dtype)
        best = _update_best(state.best, point, tf.cast(point.value, dtype))
        start, elapsed = tf.equal(point.index, 0), state.elapsed + 1
        due = tf.equal(elapsed, self.window)
        changed = _changed_pixels(best.x, x, dtype)
        fraction = tf.where(start | due, changed / pixels / 1.5, state.fraction)
        before = tf.where(start, changed, state.changed)
        if self.fraction is not None:
            fraction = tf.where(start, scalar(self.fraction, dtype), fraction)
            before = tf.where(start, pixels, before)
        fewer = due & (changed < 0.95 * before)
        initial = scalar(self.size, dtype)
        smaller = tf.where(fewer, initial, state.size / 1.5)
        size = tf.where(due, tf.clip_by_value(smaller, initial / 10, initial), state.size)
        here, gradient = _restarted(fewer, best, point)
        count = tf.cast(pixels, tf.int32) - tf.cast((1 - fraction) * pixels, tf.int32)
        direction = sparse_l1_unit(upcast_half(gradient), tf.maximum(count, 1))
        x_next = ball.project(upcast_half(here) + broadcast_to_images(size, x) * direction, x)
        changed = tf.where(due, changed, before)
        return x_next, SparseState(best, size, fraction, changed, tf.where(due, 0, elapsed))


def _changed_pixels(x_adv: Images, x: Images, dtype: tf.DType) -> PerExample:
    """The number of pixels that differ."""
    changed = tf.cast(tf.not_equal(x_adv, x), dtype)
    return tf.reduce_sum(changed, axis=list(range(1, x.shape.rank)))


def adaptive_rule(ball: Ball, steps: int) -> AdaptiveStep | SparseStep:
    """The step rule of APGD: in L1 sparse steps of the radius, else steps of twice the radius.

    Example:
        >>> from keras_robust import LinfBall
        >>> adaptive_rule(LinfBall(0.25), 100)
        AdaptiveStep(size=0.5, steps=100, rho=0.75)
    """
    radius: Radius = ball.radius
    return SparseStep(radius, steps) if ball.p == 1 else AdaptiveStep(2.0 * radius, steps)
