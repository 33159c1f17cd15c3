"""WRM: distributionally robust training with a fixed Lagrangian penalty (Sinha et al., 2018)."""

from __future__ import annotations

import keras
from typing_extensions import Unpack

from keras_robust.attacks.crafting import initialization, objectives
from keras_robust.attacks.crafting.gradient_ascent import GradientAttack
from keras_robust.attacks.crafting.step_rules import PenalizedStep
from keras_robust.attacks.pgd import pgd
from keras_robust.core.types import Ball
from keras_robust.core.validation import check_number
from keras_robust.losses.robust_loss import Adversarial
from keras_robust.training.defense_factory import RobustModelOptions, defense, validated_by
from keras_robust.training.robust_model import RobustModel


@defense
def wrm(
    classifier: keras.Model,
    ball: Ball,
    *,
    gamma: float = 0.5 / 1.3,
    clean_weight: float = 0.0,
    steps: int = 15,
    step_size: float | None = None,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """Minimizes `CE(x_adv)` where `x_adv` maximizes `CE - gamma * ||x_adv - x||^2`.

    The penalty bounds the perturbations of training, not the ball, which is the threat model of
    validation, by PGD. `keras_robust.evaluation.distributional_risk` has the paper's certificate.

    Args:
        ball: the threat model of validation.
        gamma: the price of a unit of squared distance, >= 0, in the units of the images; gamma of
            the paper. The released code has `eps = 0.5 / gamma`; the default is its eps of 1.3 for
            MNIST. Images scaled by `s` have the price `gamma / s^2`.
        clean_weight: weight of the clean cross-entropy.
        steps: number of ascent steps; 15 in the paper.
        step_size: factor of the gradient in the first step; default `0.5 / gamma`. It decays with
            the square root of the step's number.

    Raises:
        ValueError: a negative number, or what `keras_robust.attacks.pgd` refuses.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> rule = wrm(classifier, kr.L2Ball(1.0), gamma=2.0).attack.step_rule
        >>> rule.size, rule.multiplier  # the gradient of the penalty is 2 gamma (x_adv - x)
        (0.25, 4.0)

    Reference: Sinha, Namkoong, Duchi, "Certifying Some Distributional Robustness with Principled
    Adversarial Training" (2018), Algorithm 1.

    Differs: the released code does not count its first step; its 15 steps are `steps=16`.
    """
    check_number("wrm: gamma", gamma)
    if step_size is None:
        step_size = 0.5 / gamma if gamma > 0 else 1.0
    attack = GradientAttack(
        ball,
        objectives.LabelLoss("cross_entropy"),
        PenalizedStep(step_size, 2 * gamma),
        steps,
        initialization=initialization.AtInput(),
        name="wrm",
    )
    return RobustModel(
        classifier,
        attack,
        Adversarial(clean_weight),
        **validated_by(options, pgd(ball, steps)),
    )
