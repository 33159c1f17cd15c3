"""The step rules of APGD, whose step sizes follow from how the climb goes."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting.step_rules import Point, check_step_size
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, scalar, upcast_half
from keras_robust.core.types import Ball, Images, PerExample
from keras_robust.core.validation import check_integer
from keras_robust.threat_models.norms import sparse_l1_unit


class BestPoint(NamedTuple):
    """The best point of each climb.

    Attributes:
        x: the images.
        gradient: the gradient there.
        value: the objective there, `[batch]`.
    """

    x: Images
    gradient: tf.Tensor
    value: PerExample


def _no_best(x_start: Images) -> BestPoint:
    lowest = tf.fill(tf.shape(x_start)[:1], tf.constant(-float("inf"), upcast_half(x_start).dtype))
    return BestPoint(x_start, tf.zeros_like(x_start), lowest)


def _best(best: BestPoint, point: Point, value: PerExample) -> BestPoint:
    """The best point, now that one more is known; a value that is no number is not better."""
    better = value > best.value
    return BestPoint(
        tf.where(broadcast_to_images(better, point.x), point.x, best.x),
        tf.where(broadcast_to_images(better, point.x), point.gradient, best.gradient),
        tf.where(better, value, best.value),
    )


def _back(restart: tf.Tensor, best: BestPoint, point: Point) -> tuple[Images, tf.Tensor]:
    """The point and its gradient, or where a climb restarts the best point and its own."""
    restart = broadcast_to_images(restart, point.x)
    gradient = tf.where(restart, best.gradient, point.gradient)
    return tf.where(restart, best.x, point.x), gradient


class Adaptive(NamedTuple):
    """The state of `AdaptiveStep`.

    Attributes:
        best: the best point so far.
        size: the present length of a step, `[batch]`.
        before: where the last step began.
        last: the value at the last point, `[batch]`.
        rises: how often the value rose since the last checkpoint, int32 `[batch]`.
        halved: where the size was halved at the last checkpoint, bool `[batch]`.
        best_then: the best value at the last checkpoint, `[batch]`.
        since: how many steps ago that was, int32 scalar.
        window: after how many the next one is due, int32 scalar.
    """

    best: BestPoint
    size: PerExample
    before: Images
    last: PerExample
    rises: tf.Tensor
    halved: tf.Tensor
    best_then: PerExample
    since: tf.Tensor
    window: tf.Tensor


@serializable
class AdaptiveStep:
    """Steps with momentum whose size is halved, image by image, where the climb gets stuck.

    `z = project(x + size * steepest(gradient))`, then the point
    `project(x + 0.75 (z - x) + 0.25 (x - x_before))`. At a checkpoint the size of an image is
    halved, and its climb goes on from its best point, if its value rose in at most `rises` of the
    steps since the last checkpoint, or if it was not halved then and its best value is as it was.
    The first checkpoint is after 22 % of the steps; each interval is 3 % shorter than the one
    before, down to 6 %.

    Args:
        size: the first length of a step, in the norm of the ball; the paper's is twice the radius.
        steps: how many steps the climb will have, >= 0.
        rises: the share of rising steps at or below which the size is halved, in [0, 1].

    Raises:
        ValueError: a size that is negative or infinite, steps that are no whole number >= 0, or a
            share outside [0, 1].

    Example:
        >>> AdaptiveStep(0.2, steps=100).first_window
        22

    Reference: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
    Diverse Parameter-free Attacks" (2020), Algorithm 1.

    Differs: as in the authors' code, the first step counts as a rise where the value after it is
    positive, not where it is larger than at the start. On a small robust model the other reading
    left as many images of 360 unfooled, with either loss, at three radii and from three seeds.
    """

    size: Any
    steps: int
    rises: float = 0.75

    def __post_init__(self) -> None:
        check_step_size("AdaptiveStep", self.size)
        check_integer("AdaptiveStep: steps", self.steps)
        if not 0 <= self.rises <= 1:
            raise ValueError(f"AdaptiveStep: rises is {self.rises!r}; expected a share in [0, 1].")

    @property
    def first_window(self) -> int:
        """After how many steps the first checkpoint is."""
        return max(int(0.22 * self.steps), 1)

    def init(self, ball: Ball, x_start: Images) -> Adaptive:
        """No best point yet, and the first size."""
        del ball
        best = _no_best(x_start)
        zeros = tf.zeros_like(best.value)
        return Adaptive(
            best=best,
            size=zeros + scalar(self.size, zeros.dtype),
            before=x_start,
            last=zeros,
            rises=tf.zeros_like(zeros, tf.int32),
            # At the first checkpoint only the share of rises counts.
            halved=tf.ones_like(zeros, tf.bool),
            best_then=best.value,
            since=tf.constant(-1),  # the start is no step
            window=tf.constant(self.first_window),
        )

    def update(
        self, ball: Ball, x: Images, point: Point, state: Adaptive
    ) -> tuple[Images, Adaptive]:
        """One step with momentum, from the best point where the size was halved."""
        state = self._noted(point, state)
        stuck = tf.cast(state.rises, tf.float32) <= self.rises * tf.cast(state.window, tf.float32)
        still = ~state.halved & (state.best.value <= state.best_then)
        due = tf.equal(state.since, state.window)
        halve = due & (stuck | still)
        here, gradient = _back(halve, state.best, point)
        size = tf.where(halve, state.size / 2, state.size)
        x_next = self._moved(ball, x, here, gradient, size, state.before, point.index)
        shorter = tf.maximum(state.window - max(int(0.03 * self.steps), 1), self._last_window)
        return x_next, state._replace(
            size=size,
            before=here,
            rises=tf.where(due, 0, state.rises),
            halved=tf.where(due, halve, state.halved),
            best_then=tf.where(due, state.best.value, state.best_then),
            since=tf.where(due, 0, state.since),
            window=tf.where(due, shorter, state.window),
        )

    @property
    def _last_window(self) -> int:
        return max(int(0.06 * self.steps), 1)

    def _noted(self, point: Point, state: Adaptive) -> Adaptive:
        """What is known once the value at a point is."""
        value = tf.cast(point.value, state.last.dtype)
        start = tf.equal(point.index, 0)
        risen = state.rises + tf.cast(value > state.last, tf.int32)
        return state._replace(
            best=_best(state.best, point, value),
            last=tf.where(start, tf.zeros_like(value), value),
            rises=tf.where(start, 0, risen),
            since=state.since + 1,
        )

    @staticmethod
    def _moved(
        ball: Ball, x: Images, here: Images, gradient: tf.Tensor, size: PerExample,
        before: Images, index: tf.Tensor,
    ) -> Images:  # fmt: skip
        """The next point."""
        here, along = upcast_half(here), upcast_half(gradient)
        aim = upcast_half(
            ball.project(here + broadcast_to_images(size, here) * ball.steepest(along), x)
        )
        share = tf.cast(tf.where(tf.equal(index, 0), 1.0, 0.75), here.dtype)
        return ball.project(
            here + share * (aim - here) + (1 - share) * (here - upcast_half(before)), x
        )


class Sparse(NamedTuple):
    """The state of `SparseStep`.

    Attributes:
        best: the best point so far.
        size: the present length of a step, `[batch]`.
        share: of the pixels that a step moves, `[batch]`.
        moved: how many pixels the best point had moved at the last checkpoint, `[batch]`.
        since: how many steps ago that was, int32 scalar.
    """

    best: BestPoint
    size: PerExample
    share: PerExample
    moved: PerExample
    since: tf.Tensor


@serializable
class SparseStep:
    """Steps in L1 that move as many pixels as have proved useful.

    A step moves the pixels of the largest gradients: at first a fifth of all, after a checkpoint
    two thirds of those that the best point has moved. Where that number fell by 5 % the size is
    set back to the first one and the climb goes on from its best point; elsewhere the size is
    divided by 1.5, down to a tenth. A checkpoint is after every 4 % of the steps.

    Args:
        size: the first length of a step; the paper's is the radius.
        steps: how many steps the climb will have, >= 0.
        share: of the pixels that the first steps move, in (0, 1]; None for two thirds of those
            that the start has moved.

    Raises:
        ValueError: a size that is negative or infinite, steps that are no whole number >= 0, or a
            share outside (0, 1].

    Example:
        >>> SparseStep(12.0, steps=100).window
        4

    Reference: Croce and Hein, "Mind the Box: L1-APGD for Sparse Adversarial Attacks on Image
    Classifiers" (2021), Algorithm 1.
    """

    size: Any
    steps: int
    share: float | None = 0.2

    def __post_init__(self) -> None:
        check_step_size("SparseStep", self.size)
        check_integer("SparseStep: steps", self.steps)
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"SparseStep: share is {self.share!r}; expected a share in (0, 1].")

    @property
    def window(self) -> int:
        """After how many steps a checkpoint is."""
        return max(int(0.04 * self.steps), 1)

    def init(self, ball: Ball, x_start: Images) -> Sparse:
        """No best point yet, and the first size; the share is known when the image is."""
        del ball
        best = _no_best(x_start)
        zeros = tf.zeros_like(best.value)
        size = zeros + scalar(self.size, zeros.dtype)
        return Sparse(best, size, zeros, zeros, tf.constant(-1))

    def update(self, ball: Ball, x: Images, point: Point, state: Sparse) -> tuple[Images, Sparse]:
        """One sparse step, from the best point where fewer pixels turned out to be enough."""
        dtype = state.size.dtype
        pixels = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), dtype)
        best = _best(state.best, point, tf.cast(point.value, dtype))
        start, since = tf.equal(point.index, 0), state.since + 1
        due = tf.equal(since, self.window)
        moved = _moved_pixels(best.x, x, dtype)
        share = tf.where(start | due, moved / pixels / 1.5, state.share)
        before = tf.where(start, moved, state.moved)
        if self.share is not None:
            share = tf.where(start, scalar(self.share, dtype), share)
            before = tf.where(start, pixels, before)
        fewer = due & (moved < 0.95 * before)
        first = scalar(self.size, dtype)
        smaller = tf.clip_by_value(tf.where(fewer, first, state.size / 1.5), first / 10, first)
        size = tf.where(due, smaller, state.size)
        here, gradient = _back(fewer, best, point)
        count = tf.cast(pixels, tf.int32) - tf.cast((1 - share) * pixels, tf.int32)
        direction = sparse_l1_unit(upcast_half(gradient), tf.maximum(count, 1))
        x_next = ball.project(upcast_half(here) + broadcast_to_images(size, x) * direction, x)
        moved = tf.where(due, moved, before)
        return x_next, Sparse(best, size, share, moved, tf.where(due, 0, since))


def _moved_pixels(x_adv: Images, x: Images, dtype: tf.DType) -> PerExample:
    """How many pixels are not as they were."""
    changed = tf.cast(tf.not_equal(x_adv, x), dtype)
    return tf.reduce_sum(changed, axis=list(range(1, x.shape.rank)))


def adaptive_rule(ball: Ball, steps: int, factor: Any = None) -> AdaptiveStep | SparseStep:
    """The rule that belongs to a ball: sparse where its steepest steps are.

    Args:
        ball: the threat model.
        steps: how many steps the climb will have.
        factor: the first size as a multiple of the radius; default 2, of a sparse rule 1.

    Returns:
        The rule.

    Example:
        >>> from keras_robust import LinfBall
        >>> adaptive_rule(LinfBall(0.25), 100)
        AdaptiveStep(size=0.5, steps=100, rises=0.75)
    """
    kind, usual = (SparseStep, 1.0) if ball.p == 1 else (AdaptiveStep, 2.0)
    return kind((usual if factor is None else factor) * ball.radius, steps)
