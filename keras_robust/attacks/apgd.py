"""APGD: projected gradient ascent with adaptive step sizes."""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from keras_robust.attacks.composite import restarts as repeated
from keras_robust.attacks.crafting import objectives
from keras_robust.attacks.crafting.adaptive_step_rules import (
    AdaptiveStep,
    SparseStep,
    adaptive_rule,
)
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
from keras_robust.core.types import Ball, Forward, Images, Labels, Objective, Outputs, PerExample
from keras_robust.core.validation import check_ball, check_integer
from keras_robust.losses import classification as losses

# Multiples of the radius, and fractions of the steps: "Mind the Box" (2021), section 4.2.
_LARGE_RADII = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
_SHORT_NAMES = {"cross_entropy": "CE", "dlr": "DLR", "margin": "margin", "kl": "KL"}

_Adversarial = tuple[tf.Tensor, Images]


class AdversarialTracker:
    """The gradient of an objective; its state is the last adversarial image of each example.

    Predictions are read from the objective's own calls of the model; each gradient is averaged over
    `eot_iter` of them.
    """

    def __init__(
        self, objective: Objective, forward: Forward, x: Images, y: Labels,
        targets: Labels | None, eot_iter: int,
    ):  # fmt: skip
        def recorded(x: Images) -> Outputs:
            outputs = forward(x)
            self._logits = outputs["logits"]
            return outputs

        self._value = objective(recorded, x, y, targets)
        self._y, self._eot_iter = y, eot_iter
        self._gradient = noinline(self._averaged)

    def init(self, x_start: Images) -> _Adversarial:
        """Where an adversarial image was found, `[batch]`, and the last one; none yet."""
        return tf.zeros(tf.shape(x_start)[:1], tf.bool), x_start

    def __call__(
        self, x_adv: Images, state: _Adversarial
    ) -> tuple[PerExample, tf.Tensor, _Adversarial]:
        """The value, its gradient, and the last adversarial images."""
        value, gradient, adversarial = self._gradient(x_adv)
        adversarial.set_shape(x_adv.shape[:1])
        found, last = state
        last = tf.where(broadcast_to_images(adversarial, x_adv), x_adv, last)
        return value, gradient, (found | adversarial, last)

    def _once(self, x_adv: Images) -> tuple[PerExample, tf.Tensor, tf.Tensor]:
        value, gradient = value_and_gradient(self._value, x_adv)
        return value, gradient, losses.misclassified(self._logits, self._y)

    def _averaged(self, x_adv: Images) -> tuple[PerExample, tf.Tensor, tf.Tensor]:
        """The value and prediction of the last call, and the mean gradient."""
        first = self._once(x_adv)
        if self._eot_iter == 1:
            return first

        def body(index: tf.Tensor, total: tf.Tensor, *_: tf.Tensor) -> tuple:
            value, gradient, adversarial = self._once(x_adv)
            return index + 1, total + gradient, value, adversarial

        value, gradient, adversarial = first
        _, total, value, adversarial = tf.while_loop(
            lambda index, *_: index < self._eot_iter, body, (1, gradient, value, adversarial)
        )
        return value, total / self._eot_iter, adversarial


@serializable
class Apgd(GradientAttack):
    """A gradient attack that returns the last adversarial point, or else the best one.

    Args:
        ball, objective, steps, initialization, name: as for `keras_robust.GradientAttack`; one more
            gradient is taken, at the start.
        step_rule: an `AdaptiveStep` or a `SparseStep`; the attack sets its number of steps.
        eot_iter: how many calls of the model each gradient is averaged over, >= 1.
        stages: pairs of a multiple of the radius and a fraction of the steps: the ascent runs in
            the first ball, then from the best point, projected, in the next.

    Raises:
        ValueError: an argument out of range, or several stages with steps that are not sparse.
    """

    step_rule: AdaptiveStep | SparseStep = dataclasses.field()
    name: str = "APGD"
    eot_iter: int = 1
    stages: tuple[tuple[float, float], ...] = ((1.0, 1.0),)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("APGD: eot_iter", self.eot_iter, 1)
        if len(self.stages) > 1 and not isinstance(self.step_rule, SparseStep):
            raise ValueError("APGD: use_largereps is for L1 only; pass an `L1Ball`.")

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Runs the stages."""
        oracle = AdversarialTracker(self.objective, forward, x, y, targets, self.eot_iter)
        best = x
        for number, (factor, steps) in enumerate(self._schedule()):
            ball, rule = self.ball, replace(self.step_rule, steps=steps)
            if factor != 1:
                ball = ball.replace(radius=factor * ball.radius)
                rule = replace(rule, size=factor * rule.size)
            if len(self.stages) > 1:  # starts with the pixels changed so far
                rule = replace(rule, fraction=None)
            start = ball.project(best, x) if number else self.initialization(ball, x, seed)
            # One more: the point after the last step is evaluated too.
            end = gradient_ascent(ball, rule, oracle, x, start, steps + 1)
            best = end.rule_state.best.x
        found, last = end.oracle_state
        return tf.where(broadcast_to_images(found, x), last, best)

    def _schedule(self) -> list[tuple[float, int]]:
        """The multiple of the radius and the steps of each stage; the last takes the remainder."""
        schedule, remaining = [], self.steps
        for factor, fraction in self.stages[:-1]:
            schedule.append((factor, min(math.ceil(fraction * self.steps), remaining)))
            remaining -= schedule[-1][1]
        return [*schedule, (self.stages[-1][0], remaining)]


def apgd(
    ball: Ball,
    steps: int = 100,
    *,
    loss: str | Objective = "cross_entropy",
    targeted: bool = False,
    restarts: int = 1,
    eot_iter: int = 1,
    use_largereps: bool = False,
) -> Attack:
    """APGD: gradient ascent with momentum, which halves the step size of images that stagnate.

    Args:
        ball: the threat model; in L1 the steps are sparse.
        steps: the number of steps, >= 0.
        loss: `"cross_entropy"`, `"dlr"`, `"margin"`, `"kl"`, or an objective.
        targeted: reach `targets`, passed when the attack is called.
        restarts: the number of runs from different starts, >= 1; the worst result is kept.
        eot_iter: how many calls of the model each gradient is averaged over, >= 1: expectation
            over transformation, for models with random predictions.
        use_largereps: in L1, start in a ball of three times the radius, then of twice.

    Returns:
        The attack.

    Raises:
        TypeError: `ball` is not a threat model.
        ValueError: an unknown loss, an argument out of range, `use_largereps` outside L1, or
            restarts of a targeted attack.

    Example:
        >>> from keras_robust import LinfBall
        >>> apgd(LinfBall(8 / 255), steps=100, loss="dlr").name
        'APGD-DLR-100'

    Reference: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
    Diverse Parameter-free Attacks" (2020), Algorithm 1; in L1 "Mind the Box" (2021), Algorithm 1.
    """
    check_ball(ball)
    objective = objectives.get(loss, targeted)
    short = _SHORT_NAMES.get(loss) if isinstance(loss, str) else None
    attack = Apgd(
        ball,
        objective,
        adaptive_rule(ball, steps),
        steps,
        OnSphere(),
        "-".join(["APGD", *([short] if short else []), *(["T"] if targeted else []), str(steps)]),
        eot_iter,
        _LARGE_RADII if use_largereps else ((1.0, 1.0),),
    )
    return attack if restarts == 1 else repeated(attack, restarts)
