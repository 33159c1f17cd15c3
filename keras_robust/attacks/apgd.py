"""APGD: projected gradient ascent that chooses its step sizes itself."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from keras_robust.attacks.composite import restarts as repeated
from keras_robust.attacks.crafting import objectives
from keras_robust.attacks.crafting.adaptive_step_rules import SparseStep, adaptive_rule
from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.gradient_ascent import (
    GradientAttack,
    gradient_ascent,
    noinline,
    value_and_gradient,
)
from keras_robust.attacks.crafting.initialization import OnSphere
from keras_robust.core.config import replace, serializable
from keras_robust.core.numerics import broadcast_to_images
from keras_robust.core.types import Ball, Forward, Images, Labels, Objective, PerExample
from keras_robust.core.validation import check_ball, check_integer
from keras_robust.losses import classification as losses

# Of the radius, and of the steps: "Mind the Box" (2021), section 4.2.
_SHRINKING = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
_SHORT = {"cross_entropy": "CE", "dlr": "DLR", "margin": "margin", "kl": "KL"}


class _Hunt:
    """The gradient of an objective, whose state is the last image that fooled the model.

    Args:
        objective: what is climbed.
        forward: the model; what it says of the images that the objective shows it is looked at.
        x: clean images.
        y: their labels.
        targets: for a targeted objective.
        samples: over how many calls of the model the gradient is averaged.
    """

    def __init__(
        self, objective: Objective, forward: Forward, x: Images, y: Labels,
        targets: Labels | None, samples: int,
    ):  # fmt: skip
        def watched(x: Images) -> Any:
            outputs = forward(x)
            self._logits = outputs["logits"]
            return outputs

        self._value = objective(watched, x, y, targets)
        self._y, self._samples = y, samples
        self._gradient = noinline(self._sampled)

    def init(self, x_start: Images) -> tuple[tf.Tensor, Images]:
        """None has fooled it yet."""
        return tf.zeros(tf.shape(x_start)[:1], tf.bool), x_start

    def __call__(self, x_adv: Images, state: Any) -> tuple[PerExample, tf.Tensor, Any]:
        """The value, its gradient, and the last images that fooled the model."""
        value, gradient, wrong = self._gradient(x_adv)
        wrong.set_shape(x_adv.shape[:1])
        fooled, fooling = state
        return (
            value,
            gradient,
            (fooled | wrong, tf.where(broadcast_to_images(wrong, x_adv), x_adv, fooling)),
        )

    def _once(self, x_adv: Images) -> tuple[PerExample, tf.Tensor, tf.Tensor]:
        value, gradient = value_and_gradient(self._value, x_adv)
        return value, gradient, losses.misclassified(self._logits, self._y)

    def _sampled(self, x_adv: Images) -> tuple[PerExample, tf.Tensor, tf.Tensor]:
        """The last value and prediction, and the mean gradient."""
        last = self._once(x_adv)
        if self._samples == 1:
            return last

        def again(index: tf.Tensor, total: tf.Tensor, *_: Any) -> tuple:
            value, gradient, wrong = self._once(x_adv)
            return index + 1, total + gradient, value, wrong

        value, gradient, wrong = last
        _, total, value, wrong = tf.while_loop(
            lambda index, *_: index < self._samples, again, (1, gradient, value, wrong)
        )
        return value, total / self._samples, wrong


@serializable
class Apgd(GradientAttack):
    """An ascent that gives back the last point that fooled the model, else the best one.

    Args:
        ball: the threat model.
        objective: what to climb.
        step_rule: an `AdaptiveStep` or a `SparseStep`; the attack tells it the number of steps.
        steps: the number of steps, >= 0, each with a gradient; one more is taken at the start.
        initialization: where to begin.
        name: what reports call it.
        samples: over how many calls of the model each gradient is averaged.
        stages: pairs of a multiple of the radius and a share of the steps: the climb begins in the
            first ball, and goes on in the next from the best point, projected.

    Raises:
        ValueError: a negative number of steps, no sample, or several stages of steps that are not
            sparse.
    """

    name: str = "APGD"
    samples: int = 1
    stages: tuple[tuple[float, float], ...] = ((1.0, 1.0),)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("samples", self.samples, 1)
        if len(self.stages) > 1 and not isinstance(self.step_rule, SparseStep):
            raise ValueError("A climb in a shrinking ball is for sparse steps: of an `L1Ball`.")

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Climbs through the stages."""
        climb = _Hunt(self.objective, forward, x, y, targets, self.samples)
        start = x
        for number, (factor, steps) in enumerate(self._plan()):
            ball = self.ball
            rule: Any = replace(self.step_rule, steps=steps)
            if factor != 1:
                ball = ball.replace(radius=factor * ball.radius)
                rule = replace(rule, size=factor * rule.size)
            if len(self.stages) > 1:  # a sparse rule goes on with the pixels moved so far
                rule = replace(rule, share=None)
            start = ball.project(start, x) if number else self.initialization(ball, x, seed)
            # One more: the point after the last step is judged too.
            ended = gradient_ascent(ball, rule, climb, x, start, steps + 1)
            start = ended.rule_state.best.x
        fooled, fooling = ended.oracle_state
        return tf.where(broadcast_to_images(fooled, x), fooling, start)

    def _plan(self) -> list[tuple[float, int]]:
        """The multiple of the radius and the steps of each stage; the last has what is left."""
        plan, left = [], self.steps
        for factor, share in self.stages[:-1]:
            plan.append((factor, min(math.ceil(share * self.steps), left)))
            left -= plan[-1][1]
        return [*plan, (self.stages[-1][0], left)]


def apgd(
    ball: Ball,
    steps: int = 100,
    *,
    loss: str | Objective = "cross_entropy",
    targeted: bool = False,
    restarts: int = 1,
    samples: int = 1,
    shrinking: bool = False,
) -> Attack:
    """APGD: ascent with momentum that halves its step where the climb is stuck.

    Args:
        ball: the threat model; in an `L1Ball` the steps are sparse.
        steps: how many steps.
        loss: `"cross_entropy"`, `"dlr"`, `"margin"`, `"kl"`, or an objective.
        targeted: climb towards `targets`, passed when the attack is called.
        restarts: how many runs from different starts, of which the worst is kept.
        samples: over how many calls of the model each gradient is averaged, for a model that is
            random.
        shrinking: begin in an `L1Ball` of three times the radius, then of twice.

    Returns:
        The attack.

    Raises:
        TypeError: a ball that is none.
        ValueError: an unknown loss, negative steps, no restart or sample, or restarts of a targeted
            attack.

    Example:
        >>> from keras_robust import LinfBall
        >>> apgd(LinfBall(8 / 255), steps=100, loss="dlr").name
        'APGD-DLR-100'

    Reference: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
    Diverse Parameter-free Attacks" (2020), Algorithm 1; in L1 "Mind the Box" (2021), Algorithm 1.
    """
    check_ball(ball)
    objective = objectives.get(loss, targeted)
    short = _SHORT.get(loss) if isinstance(loss, str) else None
    attack = Apgd(
        ball,
        objective,
        adaptive_rule(ball, steps),
        steps,
        OnSphere(),
        "-".join(["APGD", *([short] if short else []), *(["T"] if targeted else []), str(steps)]),
        samples,
        _SHRINKING if shrinking else ((1.0, 1.0),),
    )
    return attack if restarts == 1 else repeated(attack, restarts)
