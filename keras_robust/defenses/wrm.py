"""WRM: training on the images that a fixed price of moving allows (Sinha et al., 2018)."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.attacks.crafting import initialization, objectives
from keras_robust.attacks.crafting.gradient_ascent import GradientAttack
from keras_robust.attacks.crafting.step_rules import PenalizedStep
from keras_robust.attacks.pgd import pgd
from keras_robust.core.types import Ball
from keras_robust.losses.robust_loss import Adversarial
from keras_robust.training.robust_model import RobustModel


def wrm(
    classifier: keras.Model,
    ball: Ball,
    *,
    multiplier: float = 1.3,
    clean_weight: float = 0.0,
    steps: int = 15,
    step_size: float | None = None,
    seed: int = 0,
    **options: Any,
) -> RobustModel:
    """Minimises `CE(x_adv)` where `x_adv` maximises `CE - multiplier * ||x_adv - x||^2 / 2`.

    No ball holds the training images: the price of moving does. `ball` is what validation attacks
    in, by PGD.

    Args:
        classifier: a built functional model that maps images to `{"logits", "features"}`.
        ball: the threat model of validation.
        multiplier: gamma of the paper, the price of moving, >= 0.
        clean_weight: the weight of the clean cross-entropy.
        steps: the steps of ascent; 15 in the paper.
        step_size: the length of the first step, times the gradient; default `1 / multiplier`. Later
            ones shrink with the square root of their number.
        seed: of the random starts of validation; training starts at the images.
        **options: of `RobustModel`, such as `crafting_dtype`, `microbatches`, `radius_warmup`.

    Returns:
        A model to `compile` and `fit`.

    Raises:
        ValueError: a number below 0, or what `keras_robust.attacks.pgd` refuses.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> wrm(classifier, kr.L2Ball(1.0), multiplier=1.3).attack.step_rule.multiplier
        1.3

    Reference: Sinha, Namkoong, Duchi, "Certifying Some Distributional Robustness with Principled
    Adversarial Training" (2018), Algorithm 1.
    """
    if step_size is None:
        step_size = 1 / multiplier if multiplier > 0 else 1.0
    attack = GradientAttack(
        ball,
        objectives.LabelLoss("cross_entropy"),
        PenalizedStep(step_size, multiplier),
        steps,
        initialization=initialization.AtInput(),
        name="wrm",
    )
    return RobustModel(
        classifier,
        attack,
        Adversarial(clean_weight),
        validation_attack=pgd(ball, steps),
        seed=seed,
        **options,
    )
