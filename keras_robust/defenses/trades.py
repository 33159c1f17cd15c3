"""TRADES: clean cross-entropy, and a KL divergence of clean and adversarial predictions."""

from __future__ import annotations

import keras
from typing_extensions import Unpack

from keras_robust.attacks.pgd import pgd
from keras_robust.core.config import serializable
from keras_robust.core.types import Ball, Labels, Outputs, PerExample, RobustLoss
from keras_robust.core.validation import check_number
from keras_robust.losses import classification as losses
from keras_robust.training.defense_factory import RobustModelOptions, defense, validated_by
from keras_robust.training.robust_model import RobustModel


@serializable
class Trades(RobustLoss):
    """`CE(x) + beta * KL(p(x) || p(x_adv))`; gradients flow through both predictions.

    Args:
        beta: weight of the divergence; 1 / lambda in the paper's notation.

    Raises:
        ValueError: a negative beta.

    Reference: Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy"
    (2019), Eq. 5.
    """

    term_names = ("clean", "divergence")

    beta: float = 6.0

    def __post_init__(self) -> None:
        check_number("Trades: beta", self.beta)

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted terms, each `[batch]`."""
        divergence = losses.kl_divergence(clean["logits"], adversarial["logits"])
        return {
            "clean": losses.cross_entropy(clean["logits"], y),
            "divergence": self.beta * divergence,
        }


@defense
def trades(
    classifier: keras.Model,
    ball: Ball,
    *,
    beta: float = 6.0,
    steps: int = 10,
    step_size: float | None = None,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """TRADES: minimizes `CE(x) + beta * KL(p(x) || p(x_adv))`; the attack maximizes that KL.

    The default validation attack is PGD on the cross-entropy, to compare defenses under one attack.

    Args:
        beta: weight of the divergence; 6 for CIFAR-10 in the paper, 1 for MNIST in the thesis.

    Raises:
        ValueError: a negative beta, or what `keras_robust.attacks.pgd` refuses.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> trades(classifier, kr.LinfBall(8 / 255), beta=6.0).robust_loss.term_names
        ('clean', 'divergence')

    Reference: Zhang et al. (2019), Algorithm 1.
    """
    return RobustModel(
        classifier,
        pgd(ball, steps, step_size, loss="kl", initialization="gaussian"),
        Trades(beta),
        **validated_by(options, pgd(ball, steps, step_size)),
    )
