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
    """Adversarial training: minimizes `CE(x_adv) + clean_weight * CE(x)`.

    Args:
        clean_weight: weight of the clean cross-entropy; 0 in the paper, 1 in the thesis.

    Raises:
        ValueError: a negative weight, or what `keras_robust.attacks.pgd` refuses.

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
