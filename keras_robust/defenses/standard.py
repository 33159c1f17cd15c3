"""Standard training on clean images, for comparison."""

from __future__ import annotations

import keras
from typing_extensions import Unpack

from keras_robust.attacks.pgd import pgd
from keras_robust.core.types import Ball
from keras_robust.losses.robust_loss import Clean
from keras_robust.training.defense_factory import RobustModelOptions, defense, validated_by
from keras_robust.training.robust_model import RobustModel


@defense
def standard(
    classifier: keras.Model,
    ball: Ball | None = None,
    *,
    steps: int = 10,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """Minimizes the cross-entropy on clean images, without a defense.

    Args:
        ball: threat model of validation and `evaluate`, which attack with PGD; None for no attack.
        steps: number of steps of that attack.

    Example:
        >>> import keras_robust as kr
        >>> standard(kr.models.mlp((2, 2, 1), classes=3)).robust_loss.term_names
        ('clean',)
    """
    attack = None if ball is None else pgd(ball, steps)
    return RobustModel(classifier, None, Clean(), **validated_by(options, attack))
