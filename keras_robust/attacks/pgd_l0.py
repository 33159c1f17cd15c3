"""PGD-L0: projected gradient descent on few pixels, or on a patch anywhere in the image."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from keras_robust.attacks.apgd import AdversarialTracker
from keras_robust.attacks.crafting import objectives
from keras_robust.attacks.crafting.gradient_ascent import GradientAttack, gradient_ascent
from keras_robust.attacks.crafting.initialization import Uniform
from keras_robust.attacks.crafting.step_rules import MeanGradientStep
from keras_robust.core.config import replace, serializable
from keras_robust.core.numerics import broadcast_to_images
from keras_robust.core.types import Ball, Forward, Images, Labels, Objective, Radius, Scalar
from keras_robust.core.validation import check_number
from keras_robust.threat_models.sparse_ball import check_sparse


@serializable
class PgdL0(GradientAttack):
    """A gradient attack that returns the last adversarial point, or else the last point.

    Args:
        ball, objective, step_rule, steps, initialization, name: as for
            `keras_robust.GradientAttack`; one more gradient is taken, at the start.
    """

    name: str = "PGD-L0"
    step_rule: MeanGradientStep = dataclasses.field()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sparse("PGD-L0", self.ball)

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Starts at a random point of the ball and ascends."""
        oracle = AdversarialTracker(self.objective, forward, x, y, targets, 1)
        start = self.initialization(self.ball, x, seed)
        # One more: the point after the last step is evaluated too.
        end = gradient_ascent(self.ball, self.step_rule, oracle, x, start, self.steps + 1)
        found, last = end.oracle_state
        return tf.where(broadcast_to_images(found, x), last, end.x)

    def at_radius(self, radius: Radius, step_size: Scalar | None = None) -> PgdL0:
        """The same attack with another number of pixels, on which the step does not depend."""
        rule = self.step_rule if step_size is None else replace(self.step_rule, size=step_size)
        return replace(self, ball=self.ball.replace(radius=radius), step_rule=rule)


def pgd_l0(
    ball: Ball,
    steps: int = 100,
    step_size: float = 0.15,
    *,
    loss: str | Objective = "cross_entropy",
    targeted: bool = False,
) -> PgdL0:
    """PGD-L0: dense gradient steps, after each of which the pixels that matter most are kept.

    Args:
        ball: an `L0Ball`, or a `keras_robust.threat_models.PatchBall`, of which the patch is kept
            that matters most.
        steps: the number of steps.
        step_size: how far a value moves whose gradient is the mean of the absolute ones, as a
            fraction of the range of a pixel. The default is the authors', 30000 / 255 times the
            gradient over its L1 norm on MNIST, 120000 / 255 on CIFAR-10.
        loss: `"cross_entropy"`, `"margin"`, `"dlr"`, `"kl"`, or an objective.
        targeted: reach `targets`, passed when the attack is called.

    Returns:
        The attack.

    Raises:
        TypeError: a ball whose radius is not a number of pixels.
        ValueError: an unknown loss, or an argument out of range.

    Example:
        >>> from keras_robust import L0Ball
        >>> pgd_l0(L0Ball(24), steps=20).name
        'PGD-L0-20'

    Reference: Croce and Hein, "Sparse and Imperceivable Adversarial Attacks" (2019), section 4.1.

    Differs: it starts with random values of as many pixels as the ball allows, not of all.
    """
    check_sparse("PGD-L0", ball)
    check_number("PGD-L0: step_size", step_size, above=0)
    rule = MeanGradientStep(step_size)
    objective = objectives.get(loss, targeted)
    return PgdL0(ball, objective, rule, steps, Uniform(), f"PGD-L0-{steps}")
