"""PGD-AT: adversarial training on PGD examples (Madry et al., 2018)."""

from __future__ import annotations

import keras
from typing_extensions import Unpack

from keras_robust.attacks.pgd import pgd
from keras_robust.core.types import Ball
from keras_robust.losses.robust_loss import Adversarial
from keras_robust.training.defense_factory import (
    RobustModelOptions,
    defense,
)
from keras_robust.training.robust_model import RobustModel


@defense
def pgd_at(
    classifier: keras.Model,
    ball: Ball,
    *,
    clean_weight: float = 0.0,
    steps: int = 10,
    step_size: float | None = None,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """Adversarial training: minimises `CE(x_adv) + clean_weight * CE(x)`.

    Args:
        classifier: a built functional model that maps images to `{"logits", "features"}`.
        ball: the threat model.
        clean_weight: weight of the clean cross-entropy; 0 in the paper, 1 in the thesis.
        steps: number of PGD steps.
        step_size: length of a step, in the units of the images; default `2.5 * radius / steps`.
        **options: options of `keras_robust.RobustModel`, such as `validation_attack` and `seed`.

    Returns:
        A model to `compile` and `fit`.

    Raises:
        ValueError: a negative weight, or arguments that
            `keras_robust.attacks.pgd` refuses.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> pgd_at(classifier, kr.LinfBall(0.3), steps=40, step_size=0.01).robust_loss.term_names
        ('adversarial',)

    Reference: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (2018),
    Eq. 2.1.
    """
    attack = pgd(ball, steps, step_size)
    return RobustModel(classifier, attack, Adversarial(clean_weight), **options)
