"""CCE: each member's adversarial examples are promoted or demoted on the other members."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_robust.attacks.per_member import per_member
from keras_robust.attacks.pgd import pgd
from keras_robust.core.classifier import check_ensemble
from keras_robust.core.config import serializable
from keras_robust.core.types import Ball, Labels, Logits, Outputs, PerExample, RobustLoss
from keras_robust.core.validation import check_number
from keras_robust.losses import classification as losses
from keras_robust.losses.classification import member_cross_entropies
from keras_robust.training.robust_model import RobustModel

# Weights of promoting and of demoting.
MODES = {"robustness": (1.0, 1.0), "detection": (0.0, 5.0), "base": (0.0, 0.0)}


@serializable
class CollaborativeCrossEntropy(RobustLoss):
    """The sum over members `n` of their losses on clean images, their own and others' attacks.

    `CE(f_n(x)) + CE(f_n(x_n)) + 1/(N-1) sum_{i != n} promote * w * CE(f_n(x_i))
    - demote * (1 - w) * H(f_n(x_i))`, where `x_i` was crafted on member `i`, and `w` is the
    probability of the label that member `n` gives to `x_i`: a value, through which no gradient
    flows.

    On images of one source, such as those of a validation attack on the ensemble as a whole, the
    attack is every member's own and the others' too.

    Args:
        promote: the weight of learning others' attacks that a member withstands.
        demote: the weight of being uncertain of those that it does not.

    Raises:
        ValueError: a negative weight.

    Reference: Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
    Adversarial Robustness" (2021), Eq. 5.

    Differs: the released code lets the gradient flow through `w`, and takes the softmax of
    probabilities in both crossing terms; this is the paper's text.
    """

    per_member = True

    promote: float = 1.0
    demote: float = 1.0

    def __post_init__(self) -> None:
        check_number("CollaborativeCrossEntropy: promote", self.promote)
        check_number("CollaborativeCrossEntropy: demote", self.demote)

    @property
    def term_names(self) -> tuple[str, ...]:
        """The terms of the loss."""
        weighted = (("promoting", self.promote), ("demoting", self.demote))
        return ("clean", "adversarial", *(name for name, weight in weighted if weight))

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted terms of each image, summed over the members."""
        member_logits = _with_sources(adversarial["member_logits"])
        hard = member_cross_entropies(member_logits, y)
        own, crossing = _shares(member_logits.shape[0], member_logits.shape[2], hard.dtype)
        terms = {
            "clean": tf.reduce_sum(member_cross_entropies(clean["member_logits"], y), axis=1),
            "adversarial": _over_members(own, hard),
        }
        indicator = tf.stop_gradient(tf.exp(-hard))
        if self.promote:
            terms["promoting"] = self.promote * _over_members(crossing, indicator * hard)
        if self.demote:
            uncertainty = (1 - indicator) * losses.entropy(member_logits)
            terms["demoting"] = -self.demote * _over_members(crossing, uncertainty)
        return terms


def _with_sources(member_logits: Logits) -> Logits:
    """`[sources, batch, members, classes]`, of one source where there is no axis for them."""
    return member_logits if member_logits.shape.rank == 4 else member_logits[None]


def _shares(sources: int, members: int, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
    """What each source is to each member, `[sources, members]`: its own, and another's."""
    if sources == 1:
        return tf.ones([1, members], dtype), tf.ones([1, members], dtype)
    own = tf.eye(members, dtype=dtype)
    return own, (1 - own) / (members - 1)


def _over_members(shares: tf.Tensor, values: tf.Tensor) -> PerExample:
    """The sum of `[sources, batch, members]` with a share for each source and member."""
    return tf.einsum("sm,sbm->b", shares, values)


def cce(
    classifier: keras.Model,
    ball: Ball,
    *,
    mode: str = "robustness",
    promote: float | None = None,
    demote: float | None = None,
    steps: int = 10,
    step_size: float | None = None,
    seed: int = 0,
    **options: Any,
) -> RobustModel:
    """CCE: PGD on each member alone; its examples are promoted or demoted on the other members.

    A member learns its own attacks; of another's attack it learns what it withstands already
    (promoting), and is made uncertain of what fools it (demoting), so that the member that knows
    decides. The `robust_accuracy` of training is that of the ensemble on the images crafted on its
    members, all of them; validation attacks the ensemble as a whole.

    Args:
        classifier: an ensemble, such as `keras_robust.models.ensemble` makes.
        ball: the threat model.
        mode: `"robustness"`; `"detection"`, whose ensemble is uncertain of attacked images, so that
            the entropy of its prediction tells them; or `"base"`, without the crossing terms.
        promote: the weight of promoting; default 1 for robustness, else 0.
        demote: the weight of demoting; default 1 for robustness, 5 for detection, 0 for base.
        steps: the steps of PGD.
        step_size: their length, in the units of the images; default `2.5 radius / steps`.
        seed: of the random starts.
        **options: of `RobustModel`, such as `crafting_dtype`, `microbatches`, `radius_warmup`.

    Returns:
        A model to `compile` and `fit`.

    Raises:
        TypeError: a classifier that is no ensemble.
        ValueError: another mode, a negative weight, or settings that `keras_robust.attacks.pgd`
            refuses.

    Example:
        >>> import keras_robust as kr
        >>> ensemble = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(3)])
        >>> cce(ensemble, kr.LinfBall(8 / 255), mode="detection").robust_loss
        CollaborativeCrossEntropy(promote=0.0, demote=5.0)

    Reference: Bui et al. (2021), section 3.3.

    Differs: the released code attacks the members' own predictions; here it is the true label.
    """
    check_ensemble("cce", classifier)
    if mode not in MODES:
        raise ValueError(f"cce: mode is {mode!r}; expected one of {', '.join(MODES)}.")
    weights = [
        usual if given is None else given
        for usual, given in zip(MODES[mode], (promote, demote), strict=True)
    ]
    attack = pgd(ball, steps, step_size)
    return RobustModel(
        classifier,
        per_member(attack),
        CollaborativeCrossEntropy(*weights),
        validation_attack=attack,
        seed=seed,
        **options,
    )
