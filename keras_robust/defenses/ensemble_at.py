"""Adversarial training of an ensemble as a whole (ADV-EN)."""

from __future__ import annotations

import keras
import tensorflow as tf
from typing_extensions import Unpack

from keras_robust.attacks.pgd import pgd
from keras_robust.core.classifier import check_ensemble
from keras_robust.core.config import serializable
from keras_robust.core.types import Ball, Labels, Outputs, PerExample, RobustLoss
from keras_robust.core.validation import check_number
from keras_robust.losses.classification import member_cross_entropies
from keras_robust.training.defense_factory import (
    RobustModelOptions,
    defense,
)
from keras_robust.training.robust_model import RobustModel


@serializable
class EnsembleAdversarial(RobustLoss):
    """`sum_n clean_weight * CE(f_n(x)) + CE(f_n(x_adv))`, over the members `f_n`.

    Args:
        clean_weight: weight of the clean terms.

    Raises:
        ValueError: a negative weight.
    """

    clean_weight: float = 1.0

    def __post_init__(self) -> None:
        check_number("EnsembleAdversarial: clean_weight", self.clean_weight)

    @property
    def term_names(self) -> tuple[str, ...]:
        """The terms of the loss."""
        return ("adversarial", "clean") if self.clean_weight else ("adversarial",)

    @property
    def required_outputs(self) -> frozenset[str]:
        """Clean outputs only if they have a weight."""
        return frozenset(self.term_names)

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The terms, each `[batch]`, summed over the members."""
        hard = member_cross_entropies(adversarial["member_logits"], y)
        terms = {"adversarial": tf.reduce_sum(hard, axis=-1)}
        if self.clean_weight:
            easy = member_cross_entropies(clean["member_logits"], y)
            terms["clean"] = self.clean_weight * tf.reduce_sum(easy, axis=-1)
        return terms


@defense
def ensemble_at(
    classifier: keras.Model,
    ball: Ball,
    *,
    clean_weight: float = 1.0,
    steps: int = 10,
    step_size: float | None = None,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """Adversarial training of an ensemble: PGD on the ensemble, cross-entropy of every member.

    Args:
        classifier: an ensemble, such as the result of `keras_robust.models.ensemble`. The attack
            maximizes the cross-entropy of its `"logits"`, by default of the mean probability.
        clean_weight: weight of the clean cross-entropies; 1 in the thesis.

    Raises:
        TypeError: a classifier that is not an ensemble.
        ValueError: a negative weight, or what `keras_robust.attacks.pgd` refuses.

    Example:
        >>> import keras_robust as kr
        >>> ensemble = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(2)])
        >>> ensemble_at(ensemble, kr.LinfBall(8 / 255)).robust_loss.term_names
        ('adversarial', 'clean')

    Reference: ADV-EN of Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and
    Demoting Adversarial Robustness" (2021), section 4.1.
    """
    check_ensemble("ensemble_at", classifier)
    return RobustModel(
        classifier,
        pgd(ball, steps, step_size),
        EnsembleAdversarial(clean_weight),
        **options,
    )
