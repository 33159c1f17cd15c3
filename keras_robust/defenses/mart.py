"""MART: adversarial training that gives misclassified examples more weight."""

from __future__ import annotations

import keras
import tensorflow as tf
from typing_extensions import Unpack

from keras_robust.attacks.pgd import pgd
from keras_robust.core.config import serializable
from keras_robust.core.types import Ball, Labels, Outputs, PerExample, RobustLoss
from keras_robust.core.validation import check_choice, check_number
from keras_robust.losses import classification as losses
from keras_robust.training.defense_factory import RobustModelOptions, defense, validated_by
from keras_robust.training.robust_model import RobustModel


@serializable
class Mart(RobustLoss):
    """`BCE(x_adv) + beta * KL(p(x) || p(x_adv)) * (1 - p_y(x))`; gradients flow through all parts.

    Args:
        beta: weight of the divergence.
        boosted_on: images of the boosted cross-entropy. `"adversarial"` is the published MART.
            Differs: the thesis (Eq. 7 of its chapter 2) writes `"clean"`.

    Raises:
        ValueError: a negative beta, or another `boosted_on`.

    Reference: Wang et al., "Improving Adversarial Robustness Requires Revisiting Misclassified
    Examples" (2020), Eq. 11.
    """

    term_names = ("boosted", "divergence")

    beta: float = 5.0
    boosted_on: str = "adversarial"

    def __post_init__(self) -> None:
        check_number("Mart: beta", self.beta)
        check_choice("Mart: boosted_on", self.boosted_on, ("adversarial", "clean"))

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted terms, each `[batch]`."""
        boosted = adversarial if self.boosted_on == "adversarial" else clean
        # 1 - p_y, from the logarithm, which is at least float32.
        error_probability = -tf.math.expm1(-losses.negative_log_likelihood(clean["logits"], y))
        divergence = losses.kl_divergence(clean["logits"], adversarial["logits"])
        return {
            "boosted": losses.boosted_cross_entropy(boosted["logits"], y),
            "divergence": self.beta * error_probability * divergence,
        }


@defense
def mart(
    classifier: keras.Model,
    ball: Ball,
    *,
    beta: float = 5.0,
    boosted_on: str = "adversarial",
    steps: int = 10,
    step_size: float | None = None,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """MART: boosted cross-entropy, and a KL divergence weighted by the clean error probability.

    Args:
        beta: weight of the divergence; 5 in the paper, 1 for MNIST in the thesis.
        boosted_on: `"adversarial"` (the paper) or `"clean"` (the thesis).

    Raises:
        ValueError: a negative beta, another `boosted_on`, or what
            `keras_robust.attacks.pgd` refuses.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> mart(classifier, kr.LinfBall(8 / 255)).robust_loss.term_names
        ('boosted', 'divergence')

    Reference: Wang et al. (2020), Algorithm 1.
    """
    return RobustModel(
        classifier,
        pgd(ball, steps, step_size, initialization="gaussian"),
        Mart(beta, boosted_on),
        **validated_by(options, pgd(ball, steps, step_size)),
    )
