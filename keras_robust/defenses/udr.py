"""UDR: adversarial training in a soft ball, whose pull-back is a dual variable that is learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_robust.attacks.crafting.initialization import Uniform
from keras_robust.attacks.crafting.step_rules import FixedStep, SoftBallStep
from keras_robust.core import collectives
from keras_robust.core.config import register, replace
from keras_robust.core.types import Ball, Images
from keras_robust.core.validation import check_norm
from keras_robust.defenses.dual_variable import DualVariable
from keras_robust.training.robust_model import RobustModel


@register
class SoftBallModel(RobustModel):
    """A robust model whose training attack is held by a dual variable instead of a projection.

    Logs `dual` beside what `RobustModel` logs. The variable is a weight of the model: it is saved
    with it, and the same on all replicas.

    Args:
        *args, **kwargs: of `RobustModel`; the rule of the attack is a `SoftBallStep`.
        dual_rule: how the dual variable is learned.
    """

    state_names = ("dual",)

    def __init__(self, *args: Any, dual_rule: DualVariable | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.dual_rule = dual_rule or DualVariable()
        self.dual = self._number("dual", self.dual_rule.start)
        self._costs = self._number("sum_of_costs", 0.0)
        self._batches = self._number("batches_in_sum", 0.0)

    def _number(self, name: str, value: float) -> Any:
        return self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(value),
            dtype="float32",
            trainable=False,
            aggregation="only_first_replica",
            name=name,
        )

    def training_attack(self, dtype: tf.DType) -> Any:
        """The attack with the multiplier as it stands."""
        attack = super().training_attack(dtype)
        return replace(attack, step_rule=replace(attack.step_rule, multiplier=self.dual.value))

    def after_update(self, x: Images, x_adv: Images) -> None:
        """A step of the dual variable, by the perturbations of the whole batch."""
        attack = super().training_attack(x.dtype)
        radius = tf.cast(attack.ball.radius, tf.float32)
        tau = 2 * attack.step_rule.size if attack.step_rule.tau is None else attack.step_rule.tau
        costs = self.dual_rule.measure(tf.cast(x_adv - x, tf.float32), radius, tau)
        count = collectives.global_sum(tf.cast(tf.shape(costs)[0], tf.float32))
        mean = collectives.global_sum(tf.reduce_sum(costs)) / count
        # The released code steps at the first batch, then after every `period` more.
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
        """The parts of the model, and the rule of its dual variable."""
        return {**super().parts(), "dual_rule": self.dual_rule}


def udr(
    classifier: keras.Model,
    ball: Ball,
    *,
    base: Callable[..., RobustModel],
    tau: float | None = None,
    pull: str = "elementwise",
    dual: DualVariable | None = None,
    **options: Any,
) -> RobustModel:
    """Distributional robustness over another defense: its loss, its objective, a soft ball.

    The perturbation begins uniformly in the ball, takes the base's number and length of steps, and
    is drawn back by the dual variable. Validation attacks with the base's validation attack, in the
    hard ball.

    Args:
        classifier: a built functional model that maps images to `{"logits", "features"}`.
        ball: the threat model, a `LinfBall`; its radius is where the soft ball begins.
        base: the defense: `keras_robust.defenses.pgd_at`, `trades`, `mart`, or a function of a
            classifier and a ball like them.
        tau: the temperature, > 0, in the units of the images; default twice the step size.
        pull: `"elementwise"`, `"l1"`, `"l2"` or `"linf"`; `keras_robust.step_rules` tells them.
        dual: how the dual variable is learned; default `DualVariable()`.
        **options: of the base, such as `beta`, `steps`, `step_size`, `seed`, `weight_perturbation`.

    Returns:
        A model to `compile` and `fit`.

    Raises:
        TypeError: a base that is no function, a ball that is no `LinfBall`.
        ValueError: a base without a gradient attack, a temperature that is not > 0, what the base
            refuses.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> ball = kr.LinfBall(8 / 255)
        >>> model = udr(classifier, ball, base=kr.defenses.trades, beta=6.0)
        >>> model.robust_loss.term_names, model.dual_rule.start
        (('clean', 'divergence'), 1.0)

    Reference: Bui et al., "A Unified Wasserstein Distributional Robustness Framework for
    Adversarial Training" (2022), Algorithm 1; UDR-MART of the thesis is
    `base=keras_robust.defenses.mart` with `boosted_on="clean"`.

    Differs: the default pull acts on each pixel outside the radius, as the released code does; the
    paper follows the gradient of the smoothed cost (`pull="linf"` or `"l2"`). Lambda starts at 1
    and is kept >= 0, of which the paper says nothing.
    """
    check_norm("UDR", ball, [math.inf])
    if not callable(base):
        raise TypeError(
            f"UDR: base is {base!r}; expected a defense, such as `keras_robust.defenses.trades`."
        )
    model = base(classifier, ball, **options)
    rule = None if model.attack is None else model.attack.step_rule
    if not isinstance(rule, FixedStep):  # momentum would be lost, and a price is soft already
        raise ValueError(
            f"UDR: the base {getattr(base, '__name__', base)!r} trains on no gradient attack with "
            "steps in a ball, so there is nothing to soften. Use pgd_at, trades, mart, ensemble_at "
            "or adp."
        )
    soft = SoftBallStep(rule.size, tau=tau, pull=pull)
    attack = replace(model.attack, step_rule=soft, initialization=Uniform(), name="soft_ball")
    return SoftBallModel(**{**model.parts(), "attack": attack, "dual_rule": dual})
