"""Brendel and Bethge's attack: along the decision boundary towards the clean image."""

from __future__ import annotations

import functools
import math
import numbers
from typing import Any

import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack, check_attack
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
from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels
from keras_robust.core.validation import check_integer, check_norm
from keras_robust.losses import classification as losses
from keras_robust.threat_models.balls import clipped
from keras_robust.threat_models.trust_region import NORMS, closest_step_on_hyperplane

# Halvings of the way from the start to the image: Foolbox has 10, which leave a thousandth of it.
_HALVINGS = 16
_DECAYS = 20  # how many times the trust region is halved in the course of the attack
_START_STEPS = 20


@serializable
class BrendelBethge(MinimumNormAttack):
    """From a mistake onto the boundary, then along it, by the best step of each trust region.

    Each step solves `min |x + d - x_0|` in the ball's norm, with `normal . d = need`,
    `|d|_2 <= radius` and the bounds (`keras_robust.threat_models.trust_region`), where `normal` is a running mean
    of the gradients of the margin and `need` leads a little beyond the boundary.

    Args:
        ball: the norm, the bounds, and the radius within which a mistake counts.
        steps: how many steps along the boundary, >= 0; each costs a gradient.
        start: an attack that finds the first mistake, in a ball of its own; None for PGD-20 in the
            ball of twice the radius, with steps of half the radius. An image on which it fails is
            walked from where it ended.
        rate: the first radius of the trust region, as a share of the number of pixels times the
            range of a pixel; halved 20 times.
        overshoot: how far a step goes beyond the boundary, in [1, 2).
        momentum: the weight of the past in the running mean of gradients, in [0, 1).

    Raises:
        TypeError: a start that is no attack.
        ValueError: a setting outside of its range; or, when called, targets.

    Example:
        >>> import keras_robust as kr
        >>> attack = BrendelBethge(kr.L2Ball(0.5), steps=20)
        >>> x, y = tf.constant([[0.7, 0.3]]), tf.constant([0])
        >>> attack(lambda x: {"logits": x}, x, y).numpy().round(1).tolist()  # ties at [0.5, 0.5]
        [[0.5, 0.5]]

    Reference: Brendel et al., "Accurate, Reliable and Fast Robustness Evaluation" (2019), section
    2; the schedule of the trust region and the overshoot as in Foolbox 3.

    Differs: Foolbox multiplies the trust region by the size of the batch too; an image's result
    would depend on how many others there are.
    """

    ball: Any
    steps: int = 200
    start: Any = None
    rate: float = 1e-3
    overshoot: float = 1.1
    momentum: float = 0.8

    def __post_init__(self) -> None:
        check_integer("BrendelBethge: steps", self.steps)
        if self.start is not None:
            check_attack("BrendelBethge: start", self.start)
        for name, least, most in (
            ("rate", 0, math.inf),
            ("overshoot", 1, 2),
            ("momentum", 0, 1),
        ):
            value = getattr(self, name)
            number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not number or not least <= value < most:
                raise ValueError(
                    f"BrendelBethge: {name} is {value!r}; expected a number in [{least}, {most})."
                )

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
        """The nearest mistake on the way."""
        climb = SingleObjective(LabelLoss("margin")(forward, x, y, targets))  # refuses targets

        def mistaken(x_adv: Images) -> tf.Tensor:
            return losses.misclassified(forward(x_adv)["logits"], y)

        def body(index: tf.Tensor, x_adv: Images, normal: tf.Tensor, best: BestSoFar) -> tuple:
            margin, gradient, _ = climb(x_adv, ())
            best = keep_closest(self.ball, best, x, x_adv, margin > 0)
            share = tf.where(index == 0, 0.0, self.momentum)
            share = tf.cast(share, normal.dtype)
            normal = share * normal + (1 - share) * upcast_half(gradient)
            beyond = tf.where(margin < 0, self.overshoot, 2 - self.overshoot)
            need = upcast_half(-margin) * tf.cast(beyond, margin.dtype)
            radius = self._trust(index, x)
            step = closest_step_on_hyperplane(self.ball, x_adv, x, normal, need, radius)
            x_next = upcast_half(x_adv) + tf.where(tf.math.is_finite(step), step, 0)
            x_next = clipped(self.ball.bounds, x_next, x.dtype)
            return index + 1, tf.ensure_shape(x_next, x.shape), normal, best

        begin = self._begin().craft(forward, x, y, seed, None)
        begin = binary_search_boundary(
            mistaken, functools.partial(interpolate, self.ball, x, begin), x, _HALVINGS
        )
        start = (tf.constant(0), begin, tf.zeros_like(upcast_half(x)), initial_best(x, mistaken(x)))
        _, x_adv, _, best = tf.while_loop(
            lambda index, *_: index < self.steps, body, start, parallel_iterations=1
        )
        return keep_closest(self.ball, best, x, x_adv, mistaken(x_adv))

    def _begin(self) -> Attack:
        if self.start is not None:
            return self.start
        radius = self.ball.radius
        if isinstance(radius, numbers.Real):  # twice the radius may be more than a ball takes
            radius = scalar(float(radius), tf.float64)
        ball = self.ball.replace(radius=2 * radius)
        return GradientAttack(ball, LabelLoss("cross_entropy"), FixedStep(radius / 2), _START_STEPS)

    def _trust(self, index: tf.Tensor, x: Images) -> tf.Tensor:
        """The radius of the trust region at a step: halved at regular intervals."""
        interval = max(1, self.steps // _DECAYS)
        halvings = tf.cast((index + 2) // interval, tf.float32)
        low, high = self.ball.bounds
        pixels = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), tf.float32)
        return self.rate * (high - low) * pixels * 0.5**halvings


def brendel_bethge(
    ball: Ball,
    steps: int = 200,
    *,
    start: Attack | None = None,
    rate: float = 1e-3,
    overshoot: float = 1.1,
    momentum: float = 0.8,
) -> BrendelBethge:
    """Brendel and Bethge: along the decision boundary, the nearest mistake counted within a radius.

    Args:
        ball: the norm, the bounds, and the radius within which a mistake counts. Images without one
            come back as they were.
        steps: how many steps along the boundary.
        start: an attack that finds the first mistake; default PGD-20 in the ball of twice the
            radius, with steps of half the radius.
        rate: the first radius of the trust region, as a share of the number of pixels times the
            range of a pixel.
        overshoot: how far a step goes beyond the boundary, in [1, 2).
        momentum: the weight of the past in the running mean of gradients, in [0, 1).

    Returns:
        The attack.

    Raises:
        TypeError: a ball whose planes are not known, a start that is no attack.
        ValueError: a setting outside of its range.

    Example:
        >>> from keras_robust import LinfBall
        >>> brendel_bethge(LinfBall(8 / 255)).name
        'B&B-200'

    Reference: Brendel et al., "Accurate, Reliable and Fast Robustness Evaluation" (2019), section
    2.
    """
    check_norm("Brendel-Bethge", ball, NORMS)
    return BrendelBethge(ball, steps, start, rate, overshoot, momentum)
