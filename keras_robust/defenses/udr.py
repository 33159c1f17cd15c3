"""UDR: distributionally robust training in a soft ball, with a learned dual variable."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.initialization import Uniform
from keras_robust.attacks.crafting.step_rules import FixedStep, SoftBallStep
from keras_robust.core import collectives
from keras_robust.core.config import register, replace
from keras_robust.core.types import Ball, Images
from keras_robust.core.validation import check_norm, is_number
from keras_robust.defenses.dual_variable import DualVariable
from keras_robust.threat_models.masks import in_fractions, mask_of, pixels_of
from keras_robust.training import defense_factory
from keras_robust.training.defense_factory import defense
from keras_robust.training.robust_model import RobustModel


@register
class SoftBallModel(RobustModel):
    """A robust model whose training attack is penalized by a dual variable, not projected.

    Logs `dual` too. The dual variable is a weight of the model, saved with it and equal on all
    replicas.

    Args:
        *args, **kwargs: arguments of `RobustModel`; the attack's step rule is a `SoftBallStep`.
        dual_rule: the update of the dual variable.
    """

    state_names = ("dual",)

    def __init__(self, *args: Any, dual_rule: DualVariable | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.dual_rule = dual_rule or DualVariable()
        self.dual = self._number("dual", self.dual_rule.initial_value)
        self._costs = self._number("sum_of_costs", 0.0)
        self._batches = self._number("batches_in_sum", 0.0)

    def _number(self, name: str, value: float) -> keras.Variable:
        return self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(value),
            dtype="float32",
            trainable=False,
            aggregation="only_first_replica",
            name=name,
        )

    def training_attack(self, dtype: tf.DType) -> Attack:
        """The attack with the current value of the dual variable as multiplier."""
        attack = super().training_attack(dtype)
        return replace(attack, step_rule=replace(attack.step_rule, multiplier=self.dual.value))

    def after_update(self, x: Images, x_adv: Images) -> None:
        """Updates the dual variable from the perturbations of the whole batch."""
        attack = self.attack_at(self.step - 1, x.dtype)  # the step has been counted
        radius = tf.cast(attack.ball.radius, tf.float32)
        rule: Any = attack.step_rule
        tau = 2 * rule.size if rule.tau is None else rule.tau
        ball = attack.ball
        delta = in_fractions(ball, tf.cast(x_adv - x, tf.float32))
        pixels = None if mask_of(ball) is None else pixels_of(ball, x)
        costs = self.dual_rule.measure(delta, radius, tau, pixels)
        count = collectives.global_sum(tf.cast(tf.shape(costs)[0], tf.float32))
        mean = collectives.global_sum(tf.reduce_sum(costs)) / count
        # The released code updates at the first batch, then after every `period` batches.
        total, batches = self._costs + mean, self._batches + 1
        due = tf.equal((self.step - 1) % self.dual_rule.period, 0)
        moved = self.dual_rule.updated(tf.convert_to_tensor(self.dual), radius, total / batches)
        self.dual.assign(tf.where(due, moved, self.dual))
        self._costs.assign(tf.where(due, 0.0, total))
        self._batches.assign(tf.where(due, 0.0, batches))

    def state_logs(self) -> dict[str, tf.Tensor]:
        """The dual variable."""
        return {"dual": tf.convert_to_tensor(self.dual)}

    def parts(self) -> dict[str, Any]:
        """The arguments of the constructor that rebuild the model."""
        return {**super().parts(), "dual_rule": self.dual_rule}


@defense
def udr(
    classifier: keras.Model,
    ball: Ball,
    *,
    base: str | Callable[..., RobustModel],
    tau: float | None = None,
    penalty: str = "elementwise",
    push: str = "steepest",
    dual: DualVariable | None = None,
    **options: Any,
) -> RobustModel:
    """Trains another defense in a soft ball: its loss and objective, distributionally robust.

    The perturbation starts uniformly in the ball, uses the base's step size and number of steps,
    and is penalized by the dual variable outside the ball. Validation uses the base's validation
    attack, in the hard ball. `keras_robust.evaluation.distributional_risk` bounds the loss over all
    distributions near the data.

    Args:
        ball: the threat model, a `LinfBall`; perturbations beyond its radius are penalized.
        base: a defense whose attack is PGD, or its name, such as `"pgd_at"`, `"trades"`, `"mart"`.
        tau: temperature, > 0, in the units of the images; default twice the step size.
        penalty: `"elementwise"`, `"pixelwise"`, `"l1"`, `"l2"` or `"linf"`; see the step rule
            `SoftBallStep`.
        push: `"steepest"`, or `"gradient"` to move along the gradient itself, without its sign.
        dual: update of the dual variable; default `DualVariable()`.
        **options: options of the base, such as `beta`, `steps`, `step_size`.

    Raises:
        TypeError: base is not a defense, ball is not a `LinfBall`.
        ValueError: a base whose attack is not PGD, tau is not > 0, or what the base refuses.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> ball = kr.LinfBall(8 / 255)
        >>> model = udr(classifier, ball, base="trades", beta=6.0)
        >>> model.robust_loss.term_names, model.dual_rule.initial_value
        (('clean', 'divergence'), 1.0)

    Reference: Bui et al., "A Unified Wasserstein Distributional Robustness Framework for
    Adversarial Training" (2022), Algorithm 1; UDR-MART of the thesis is `base="mart"` with
    `boosted_on="clean"`.

    Differs: the default penalty acts on each pixel outside the radius, as in the released code; the
    paper uses the gradient of the smoothed cost (`penalty="linf"`, `"l2"` or `"pixelwise"`, the L2
    cost with a radius of each pixel, as its Appendix G describes the step). With `"linf"` only
    the largest pixel moves back, by `lambda * step_size / tau`, half the range of an image by
    default: perturbations of small radii are not held, and a warning says so. Lambda starts at 1
    and stays >= 0; the paper does not specify either.
    """
    check_norm("udr", ball, [math.inf])
    base = defense_factory.get(base)
    model = base(classifier, ball, **options)
    rule = None if model.attack is None else model.attack.step_rule
    if not isinstance(rule, FixedStep):  # momentum would be lost, and a penalty is soft already
        raise ValueError(
            f"udr: the attack of the base {getattr(base, '__name__', base)!r} does not take fixed "
            "steps in a ball; expected a base such as pgd_at, trades, mart, ensemble_at or adp."
        )
    if type(model) is not RobustModel:
        raise ValueError(
            f"udr: with these options the base {getattr(base, '__name__', base)!r} trains a model "
            "of its own, which UDR would replace; expected a base without options such as "
            "grad_align, helper or divergence='ikl'."
        )
    soft = SoftBallStep(rule.size, tau=tau, penalty=penalty, push=push)
    _warn_of_overshoot(soft, ball, dual or DualVariable())
    attack = replace(model.attack, step_rule=soft, initialization=Uniform(), name="soft_ball")
    return SoftBallModel(**{**model.parts(), "attack": attack, "dual_rule": dual})


def _warn_of_overshoot(rule: SoftBallStep, ball: Ball, dual: DualVariable) -> None:
    """Warns if a step back of the Linf penalty throws a pixel out on the other side of the ball."""
    numbers = (rule.size, ball.radius, 1.0 if rule.tau is None else rule.tau)
    if rule.penalty != "linf" or not all(map(is_number, numbers)):
        return
    size, radius, tau = map(float, (*numbers[:2], 2 * rule.size if rule.tau is None else rule.tau))
    back = dual.initial_value * size / tau if tau else 0.0
    if back > 2 * radius:
        warnings.warn(
            f"udr: penalty='linf' moves the largest pixel back by lambda * step_size / tau = "
            f"{back:.3g} and no other pixel, but the ball's diameter is {2 * radius:.3g}: the "
            "perturbations will leave the ball by several radii. Use penalty='elementwise', or a "
            f"tau above {dual.initial_value * size / (2 * radius):.3g}.",
            stacklevel=4,
        )
