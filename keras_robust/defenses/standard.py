"""Plain training, for comparison."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.attacks.pgd import pgd
from keras_robust.core.types import Ball
from keras_robust.losses.robust_loss import Clean
from keras_robust.training.robust_model import RobustModel


def standard(
    classifier: keras.Model,
    ball: Ball | None = None,
    *,
    steps: int = 10,
    seed: int = 0,
    **options: Any,
) -> RobustModel:
    """Cross-entropy on clean images: no defense.

    Args:
        classifier: a built functional model that maps images to `{"logits", "features"}`.
        ball: where `evaluate` and validation attack the model with PGD; None for no attack.
        steps: the steps of that attack.
        seed: of the random starts.
        **options: of `RobustModel`, such as `crafting_dtype`, `microbatches`, `radius_warmup`.

    Returns:
        A model to `compile` and `fit`.

    Example:
        >>> import keras_robust as kr
        >>> standard(kr.models.mlp((2, 2, 1), classes=3)).robust_loss.term_names
        ('clean',)
    """
    attack = None if ball is None else pgd(ball, steps)
    return RobustModel(classifier, None, Clean(), validation_attack=attack, seed=seed, **options)
