"""Brendel and Bethge's attack: along the decision boundary, toward the clean image."""

from __future__ import annotations

import dataclasses
import functools

import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.decision_boundary import check_start
from keras_robust.attacks.crafting.gradient_ascent import GradientAttack, SingleObjective
from keras_robust.attacks.crafting.minimum_norm import (
    BestSoFar,
    MinimumNormAttack,
    binary_search_boundary,
    initial_best,
    interpolate,
    keep_closest,
)
from keras_robust.attacks.crafting.objectives import LabelLoss
from keras_robust.attacks.crafting.step_rules import FixedStep
from keras_robust.core.config import serializable
from keras_robust.core.numerics import pixel_range, scalar, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels
from keras_robust.core.validation import check_integer, check_norm, check_number, is_number
from keras_robust.losses import classification as losses
from keras_robust.threat_models.clipping import allowed
from keras_robust.threat_models.masks import pixels_of
from keras_robust.threat_models.trust_region import NORMS, closest_step_on_hyperplane

_BINARY_SEARCH_STEPS = 16  # Foolbox takes 10, which leave a thousandth of the path
_HALVINGS = 20  # of the trust region, over the whole attack
_START_STEPS = 20


@serializable
class BrendelBethge(MinimumNormAttack):
    """Brendel and Bethge's attack: minimum-norm, along the decision boundary.

    From a misclassified image to the boundary, then by steps that solve `min |x + d - x_0|` in the
    ball's norm with `normal . d = need`, `|d|_2 <= radius` and the bounds (see
    `threat_models.trust_region`). `normal` is a running mean of the gradients of the margin, and
    `need` leads a little beyond the boundary.

    Args:
        ball: the threat model: an `LinfBall`, an `L2Ball` or an `L1Ball`, or a ball of your own in
            one of these norms. Images without an adversarial example within the radius stay
            unchanged.
        steps: the number of steps along the boundary, >= 0, one gradient each.
        start: an attack that provides the starting point; choose its radius large enough to
            succeed. None: PGD-20 in the ball of twice the radius, with steps of half the radius.
            Where it fails, the walk begins where it ended.
        trust_radius: the initial radius of the trust region, as a fraction of the number of pixels
            times the range of a pixel, >= 0; it is halved 20 times.
        overshoot: how far a step leads beyond the boundary, in [1, 2).
        momentum: the weight of the past in the running mean of gradients, in [0, 1).

    Raises:
        TypeError: a ball in another norm, or a `start` that is not an attack.
        ValueError: an argument out of range, or a `start` that returns one batch per member; when
            called, targets.

    Example:
        >>> import keras_robust as kr
        >>> attack = brendel_bethge(kr.L2Ball(0.5), steps=20).compiled(lambda x: {"logits": x})
        >>> x_adv = attack(tf.constant([[0.7, 0.3]]), tf.constant([0]))
        >>> x_adv.numpy().round(1).tolist()  # the logits are tied at [0.5, 0.5]
        [[0.5, 0.5]]

    Reference: Brendel et al., "Accurate, Reliable and Fast Robustness Evaluation" (2019), section
    2; the schedule of the trust region and the overshoot as in Foolbox 3.

    Differs: Foolbox multiplies the trust region by the batch size too, so that the result of an
    image depends on its batch.
    """

    ball: Ball
    steps: int = 200
    _: dataclasses.KW_ONLY
    start: Attack | None = None
    trust_radius: float = 1e-3
    overshoot: float = 1.1
    momentum: float = 0.8

    def __post_init__(self) -> None:
        check_norm("Brendel-Bethge", self.ball, NORMS)
        check_integer("BrendelBethge: steps", self.steps)
        check_start("BrendelBethge", self.start)
        check_number("BrendelBethge: trust_radius", self.trust_radius)
        check_number("BrendelBethge: overshoot", self.overshoot, 1, below=2)
        check_number("BrendelBethge: momentum", self.momentum, below=1)

    @property
    def name(self) -> str:  # type: ignore[override]
        """What reports call it."""
        return f"B&B-{self.steps}"

    @property
    def gradient_steps(self) -> int:
        """The number of steps along the boundary."""
        return self.steps

    @property
    def is_random(self) -> bool:
        """Whether the attack that it starts from is."""
        return self.start is None or self.start.is_random

    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> BestSoFar:
        """The closest adversarial example of the walk."""
        oracle = SingleObjective(LabelLoss("margin")(forward, x, y, targets))  # refuses targets

        def is_adversarial(x_adv: Images) -> tf.Tensor:
            return losses.misclassified(forward(x_adv)["logits"], y)

        def body(index: tf.Tensor, x_adv: Images, normal: tf.Tensor, best: BestSoFar) -> tuple:
            margin, gradient, _ = oracle(x_adv, ())
            best = keep_closest(self.ball, best, x, x_adv, margin > 0)
            past = tf.cast(tf.where(index == 0, 0.0, self.momentum), normal.dtype)
            normal = past * normal + (1 - past) * upcast_half(gradient)
            beyond = tf.where(margin < 0, self.overshoot, 2 - self.overshoot)
            need = upcast_half(-margin) * tf.cast(beyond, margin.dtype)
            radius = self._trust_radius(index, x)
            step = closest_step_on_hyperplane(self.ball, x_adv, x, normal, need, radius)
            x_next = upcast_half(x_adv) + tf.where(tf.math.is_finite(step), step, 0)
            x_next = allowed(self.ball, x_next, x)
            return index + 1, tf.ensure_shape(x_next, x.shape), normal, best

        x_start = self._start_attack().craft(forward, x, y, seed, None)
        path = functools.partial(interpolate, self.ball, x, x_start)
        x_start = binary_search_boundary(is_adversarial, path, x, _BINARY_SEARCH_STEPS)
        best = initial_best(x, is_adversarial(x))
        _, x_adv, _, best = tf.while_loop(
            lambda index, *_: index < self.steps,
            body,
            (tf.constant(0), x_start, tf.zeros_like(upcast_half(x)), best),
            parallel_iterations=1,
        )
        return keep_closest(self.ball, best, x, x_adv, is_adversarial(x_adv))

    def _start_attack(self) -> Attack:
        if self.start is not None:
            return self.start
        radius = self.ball.radius
        if is_number(radius):  # as a tensor, twice the radius may exceed what a ball accepts
            radius = scalar(float(radius), tf.float64)
        ball = self.ball.replace(radius=2 * radius)
        return GradientAttack(ball, LabelLoss("cross_entropy"), FixedStep(radius / 2), _START_STEPS)

    def _trust_radius(self, index: tf.Tensor, x: Images) -> tf.Tensor:
        """The radius of the trust region at a step, halved at regular intervals."""
        interval = max(1, self.steps // _HALVINGS)
        halvings = tf.cast((index + 2) // interval, tf.float32)
        width = pixel_range(self.ball.bounds)
        pixels = tf.cast(pixels_of(self.ball, x), tf.float32)
        return self.trust_radius * width * pixels * 0.5**halvings


brendel_bethge = BrendelBethge
