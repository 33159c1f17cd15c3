"""ADP: adversarial training of an ensemble with a regularizer that promotes diversity."""

from __future__ import annotations

import keras
import tensorflow as tf
from typing_extensions import Unpack

from keras_robust.attacks.pgd import pgd
from keras_robust.core.classifier import check_ensemble
from keras_robust.core.config import serializable
from keras_robust.core.labels import of_other_classes
from keras_robust.core.types import Ball, Labels, Logits, Outputs, PerExample, RobustLoss
from keras_robust.core.validation import check_number
from keras_robust.losses import classification as losses
from keras_robust.losses.classification import member_cross_entropies
from keras_robust.training.defense_factory import (
    RobustModelOptions,
    defense,
)
from keras_robust.training.robust_model import RobustModel

# Keeps the determinant positive if two members agree; value of the published implementation.
_OFFSET = 1e-6


@serializable
class AdaptiveDiversity(RobustLoss):
    """`sum_n CE_n - alpha * H(mean p) - beta * log det(M M^T)`, on clean and adversarial images.

    The rows of `M` are the members' probabilities of the wrong classes, normalized to length 1: the
    determinant is the squared volume that they span.

    Args:
        alpha: weight of the entropy of the mean probability.
        beta: weight of the diversity.

    Raises:
        ValueError: a negative weight.

    Reference: Pang et al., "Improving Adversarial Robustness via Promoting Ensemble Diversity"
    (2019), Eq. 3 to 6.
    """

    alpha: float = 2.0
    beta: float = 0.5

    def __post_init__(self) -> None:
        check_number("AdaptiveDiversity: alpha", self.alpha)
        check_number("AdaptiveDiversity: beta", self.beta)

    @property
    def term_names(self) -> tuple[str, ...]:
        """The terms of the loss."""
        weighted = (("entropy", self.alpha), ("diversity", self.beta))
        return ("clean", "adversarial", *(name for name, weight in weighted if weight))

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted terms, each `[batch]`."""
        members = [outputs["member_logits"] for outputs in (clean, adversarial)]
        easy, hard = (tf.reduce_sum(member_cross_entropies(z, y), axis=1) for z in members)
        terms = {"clean": easy, "adversarial": hard}
        if self.alpha:
            entropies = [losses.entropy(losses.log_mean_probability(z)) for z in members]
            terms["entropy"] = -self.alpha * tf.add_n(entropies)
        if self.beta:
            terms["diversity"] = -self.beta * tf.add_n([log_det_diversity(z, y) for z in members])
        return terms


def log_det_diversity(member_logits: Logits, y: Labels) -> PerExample:
    """`log det(M M^T + 1e-6 I)`; rows of `M`: normalized probabilities of the wrong classes.

    Args:
        member_logits: `[batch, members, classes]`.
        y: labels `[batch]`.

    Returns:
        `[batch]`: at most about 0, the value for orthogonal rows.

    Example:
        >>> z = tf.constant([[[0.0, 50.0, -50.0], [0.0, -50.0, 50.0]]])
        >>> log_det_diversity(z, tf.constant([0])).numpy().round(4).tolist()
        [0.0]
    """
    # Only directions matter, so the softmax is over the wrong classes alone, which does not
    # underflow if the member is certain of the label.
    others = of_other_classes(member_logits, y[:, None])
    directions = tf.math.l2_normalize(tf.nn.softmax(others), axis=-1)
    # In float64: rounding would make the determinant negative if members agree.
    directions = tf.cast(directions, tf.float64)
    gram = tf.matmul(directions, directions, transpose_b=True)
    gram += _OFFSET * tf.eye(member_logits.shape[-2], dtype=tf.float64)
    return tf.cast(tf.linalg.logdet(gram), member_logits.dtype)


@defense
def adp(
    classifier: keras.Model,
    ball: Ball,
    *,
    alpha: float = 2.0,
    beta: float = 0.5,
    steps: int = 10,
    step_size: float | None = None,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """ADP: adversarial training of an ensemble with diverse predictions of the wrong classes.

    Args:
        classifier: an ensemble, such as the result of `keras_robust.models.ensemble`; PGD attacks
            it as a whole.
        alpha: weight of the entropy of the mean probability.
        beta: weight of the members' diversity.

    Raises:
        TypeError: a classifier that is not an ensemble.
        ValueError: a negative weight, not fewer members than classes, or what
            `keras_robust.attacks.pgd` refuses.

    Example:
        >>> import keras_robust as kr
        >>> ensemble = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(2)])
        >>> adp(ensemble, kr.LinfBall(8 / 255)).robust_loss.term_names
        ('clean', 'adversarial', 'entropy', 'diversity')

    Reference: Pang et al. (2019), Algorithm 1.

    Differs: attacks all images of a batch, not half of them, as in the comparison of Bui et al.
    (2021).
    """
    members = check_ensemble("adp", classifier)
    loss = AdaptiveDiversity(alpha, beta)
    classes = classifier.output["logits"].shape[1]
    if beta and members > classes - 1:
        raise ValueError(
            f"adp: there are {members} members and {classes} classes; expected fewer members than "
            "classes, or their predictions of the wrong classes cannot be orthogonal. Use fewer "
            "members, or set beta=0."
        )
    return RobustModel(classifier, pgd(ball, steps, step_size), loss, **options)
