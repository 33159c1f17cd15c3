"""Orthogonal PGD: an adaptive attack whose steps against a detector keep the prediction."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.gradient_ascent import gradient_ascent, rescale, zero_nonfinite
from keras_robust.attacks.crafting.initialization import Uniform
from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.attacks.crafting.objectives import (
    DetectionScore,
    check_score,
    outputs_and_score,
    refuse_targets,
)
from keras_robust.attacks.crafting.step_rules import FixedStep, default_step_size
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, upcast_half
from keras_robust.core.types import (
    Ball,
    Forward,
    Images,
    Initialization,
    Labels,
    PerExample,
    Radius,
    Scalar,
    StepRule,
)
from keras_robust.core.validation import check_integer
from keras_robust.losses import classification as losses


@serializable
class OrthogonalPGD(Attack):
    """PGD on the prediction and a detector's score in turn, each orthogonal to the other.

    While an image is classified correctly, a step follows the gradient of the margin, without its
    component along that of the score; afterwards it lowers the score, without the component along
    the gradient of the margin. So to first order, neither undoes the other. The result is the best
    point of all: misclassified, with the lowest score.

    Args:
        ball: the threat model.
        score: as for `keras_robust.objectives.AdaptiveObjective`.
        step_rule: how a gradient moves the point.
        steps: the number of steps, >= 0.
        initialization: where to start.
        name: what reports call the attack.

    Raises:
        ValueError: negative steps or an unknown score.

    Example:
        >>> from keras_robust import LinfBall
        >>> attack = orthogonal_pgd(LinfBall(0.4), "entropy", steps=8)
        >>> x = tf.constant([[0.7, 0.5, 0.5]])
        >>> attack(lambda x: {"logits": 5 * x}, x, tf.constant([0])).shape.as_list()
        [1, 3]

    Reference: Bryniarski et al., "Evading Adversarial Example Detection Defenses with Orthogonal
    Projected Gradient Descent" (2022), section 4.2.

    Differs: ascends the margin, whose gradient does not vanish, and keeps the best point.
    """

    ball: Ball
    score: str | DetectionScore
    step_rule: StepRule = dataclasses.field()
    steps: int
    initialization: Initialization = Uniform()
    name: str = "orthogonal PGD"

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)
        check_score(self.score)

    @property
    def gradient_steps(self) -> int:
        """The number of steps."""
        return self.steps

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Starts near the images, and returns the best of all points."""
        refuse_targets(self.name, targets)
        x_start = self.initialization(self.ball, x, as_seed(seed))
        oracle = _OrthogonalGradients(self.score, forward, y)
        end = gradient_ascent(self.ball, self.step_rule, oracle, x, x_start, self.steps)
        return oracle.better(end.oracle_state, end.x, *oracle.measure(end.x))[0]

    def at_radius(self, radius: Radius, step_size: Scalar | None = None) -> OrthogonalPGD:
        """The same attack in a ball of another radius; see `GradientAttack.at_radius`."""
        return rescale(self, radius, step_size)


class _OrthogonalGradients:
    """The gradient oracle: one of two gradients, orthogonal to the other; its state is the best."""

    def __init__(self, score: str | DetectionScore, forward: Forward, y: Labels):
        self._score, self._forward, self._y = score, forward, y

    def init(self, x_start: Images) -> Any:
        """The start, which anything is better than."""
        worst = tf.fill(tf.shape(x_start)[:1], tf.float32.min)
        return x_start, tf.zeros_like(worst, tf.bool), worst

    def measure(self, x_adv: Images) -> tuple[tf.Tensor, PerExample]:
        """Which images are misclassified; and what to raise: minus the score, or the margin."""
        margin, score = self._margin_and_score(x_adv)
        return margin > 0, tf.where(margin > 0, -score, margin)

    def better(self, best: Any, x_adv: Images, fooled: tf.Tensor, value: PerExample) -> Any:
        """The better of the best and another point, image by image."""
        x_best, was_fooled, best_value = best
        gains = (fooled & ~was_fooled) | ((fooled == was_fooled) & (value > best_value))
        return (
            tf.where(broadcast_to_images(gains, x_adv), x_adv, x_best),
            was_fooled | (fooled & gains),
            tf.where(gains, value, best_value),
        )

    def __call__(self, x_adv: Images, state: Any) -> tuple[PerExample, tf.Tensor, Any]:
        """The value, the gradient that applies to each image, and the best so far."""
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(x_adv)
            margin, score = self._margin_and_score(x_adv)
            totals = tf.reduce_sum(margin), tf.reduce_sum(-score)
        along_margin, along_score = (
            zero_nonfinite(upcast_half(_gradient(tape, total, x_adv))) for total in totals
        )
        fooled = margin > 0
        gradient = tf.where(
            broadcast_to_images(fooled, x_adv),
            _orthogonal(along_score, along_margin),
            _orthogonal(along_margin, along_score),
        )
        value = tf.where(fooled, -score, margin)
        state = self.better(state, x_adv, fooled, value)
        return value, tf.cast(gradient, x_adv.dtype), state

    def _margin_and_score(self, x_adv: Images) -> tuple[PerExample, PerExample]:
        outputs, score, _ = outputs_and_score(self._score, self._forward, x_adv)
        margin = losses.margin(outputs["logits"], self._y)
        return tf.cast(margin, tf.float32), tf.cast(score, tf.float32)


def _gradient(tape: tf.GradientTape, total: tf.Tensor, x: Images) -> tf.Tensor:
    found = tape.gradient(total, x)
    return tf.zeros_like(x) if found is None else found


def _orthogonal(gradient: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """A gradient without its component along another one, image by image."""
    axes = list(range(1, gradient.shape.rank))
    # By the largest entry first: squares of tiny gradients would vanish.
    unit = tf.math.divide_no_nan(other, tf.reduce_max(tf.abs(other), axis=axes, keepdims=True))
    square = tf.reduce_sum(tf.square(unit), axis=axes, keepdims=True)
    inner = tf.reduce_sum(gradient * unit, axis=axes, keepdims=True)
    return gradient - tf.math.divide_no_nan(inner, square) * unit


def orthogonal_pgd(
    ball: Ball,
    score: str | DetectionScore,
    steps: int = 100,
    step_size: Scalar | None = None,
) -> OrthogonalPGD:
    """Orthogonal PGD on a detector; see `OrthogonalPGD`.

    Args:
        ball: the threat model.
        score: a name of `keras_robust.detection.scores`, or a detector's `adaptive_score`.
        steps: the number of steps.
        step_size: the length of a step; default `2.5 radius / steps`.

    Returns:
        The attack.

    Raises:
        TypeError: `ball` is not a threat model.
        ValueError: an unknown score, or an invalid number.

    Example:
        >>> from keras_robust import LinfBall
        >>> orthogonal_pgd(LinfBall(0.1), "entropy", steps=40).name
        'orthogonal PGD-40'
    """
    check_integer("steps", steps)
    rule = FixedStep(default_step_size(ball, steps, step_size))
    return OrthogonalPGD(ball, score, rule, steps, name=f"orthogonal PGD-{steps}")
