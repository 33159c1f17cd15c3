"""CCE: collaborative cross-entropy; members promote or demote each other's adversarial examples."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from typing_extensions import Unpack

from keras_robust.attacks.per_member import per_member
from keras_robust.attacks.pgd import pgd
from keras_robust.core.classifier import check_ensemble
from keras_robust.core.config import register, replace, serializable
from keras_robust.core.numerics import scalar
from keras_robust.core.types import Ball, Labels, Logits, Outputs, PerExample, RobustLoss, Scalar
from keras_robust.core.validation import check_choice, check_integer, check_number
from keras_robust.losses import classification as losses
from keras_robust.losses.classification import member_cross_entropies
from keras_robust.training.defense_factory import RobustModelOptions, defense, validated_by
from keras_robust.training.robust_model import RobustModel
from keras_robust.training.training_loss import TrainingLoss

# Weights of promoting and demoting.
MODES = {"robustness": (1.0, 1.0), "detection": (0.0, 5.0), "base": (0.0, 0.0)}


@serializable
class CollaborativeCrossEntropy(RobustLoss):
    """The sum over members `n` of losses on clean images and on attacks of all members.

    `CE(f_n(x)) + CE(f_n(x_n)) + 1/(N-1) sum_{i != n} promote * w * CE(f_n(x_i))
    - demote * (1 - w) * H(f_n(x_i))`, where `x_i` was crafted on member `i`, and `w` is the
    probability of the label that member `n` predicts for `x_i`; its gradient is stopped.

    A single batch of adversarial images, such as that of a validation attack on the ensemble,
    counts as every member's own attack and as another member's.

    Args:
        promote: weight of the cross-entropy on other members' attacks.
        demote: weight of the entropy on other members' attacks; a number, or a scalar tensor.

    Raises:
        ValueError: a negative weight.

    Reference: Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
    Adversarial Robustness" (2021), Eq. 5.

    Differs: the released code lets the gradient flow through `w`, and takes the softmax of
    probabilities in both crossing terms; this is the paper's text.
    """

    per_member = True

    promote: float = 1.0
    demote: Scalar = 1.0

    def __post_init__(self) -> None:
        check_number("CollaborativeCrossEntropy: promote", self.promote)
        if not tf.is_tensor(self.demote):
            check_number("CollaborativeCrossEntropy: demote", self.demote)

    @property
    def _demotes(self) -> bool:
        return tf.is_tensor(self.demote) or bool(self.demote)

    @property
    def term_names(self) -> tuple[str, ...]:
        """The terms of the loss."""
        weighted = (("promoting", self.promote), ("demoting", self._demotes))
        return ("clean", "adversarial", *(name for name, weight in weighted if weight))

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted terms, each `[batch]`, summed over the members."""
        member_logits = _with_sources(adversarial["member_logits"])
        hard = member_cross_entropies(member_logits, y)
        own, crossing = _source_weights(member_logits.shape[0], member_logits.shape[2], hard.dtype)
        terms = {
            "clean": tf.reduce_sum(member_cross_entropies(clean["member_logits"], y), axis=1),
            "adversarial": _over_members(own, hard),
        }
        labels = tf.broadcast_to(y[:, None], tf.shape(hard))
        likelihood = tf.exp(-losses.negative_log_likelihood(member_logits, labels))
        indicator = tf.stop_gradient(likelihood)
        if self.promote:
            terms["promoting"] = self.promote * _over_members(crossing, indicator * hard)
        if self._demotes:
            uncertainty = (1 - indicator) * losses.entropy(member_logits)
            demote = scalar(self.demote, hard.dtype)
            terms["demoting"] = -demote * _over_members(crossing, uncertainty)
        return terms


def _with_sources(member_logits: Logits) -> Logits:
    """Adds an axis of one source if there is none: `[sources, batch, members, classes]`."""
    return member_logits if member_logits.shape.rank == 4 else member_logits[None]


def _source_weights(sources: int, members: int, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
    """Weights of a member's own and of other sources, each `[sources, members]`."""
    if sources == 1:
        return tf.ones([1, members], dtype), tf.ones([1, members], dtype)
    own = tf.eye(members, dtype=dtype)
    return own, (1 - own) / (members - 1)


def _over_members(weights: tf.Tensor, values: tf.Tensor) -> PerExample:
    """The weighted sum of `[sources, batch, members]` over sources and members."""
    return tf.einsum("sm,sbm->b", weights, values)


@register
class RampedDemotion(RobustModel):
    """A robust model whose weight of demoting grows linearly over the first steps.

    Logs the present weight as `demote`. Validation has the whole weight.

    Args:
        *args, **kwargs: arguments of `RobustModel`; the loss is a `CollaborativeCrossEntropy`.
        demote_ramp_steps: number of steps until demoting has its whole weight.
    """

    state_names = ("demote",)

    def __init__(self, *args: Any, demote_ramp_steps: int = 1, **kwargs: Any):
        super().__init__(*args, **kwargs)
        check_integer("demote_ramp_steps", demote_ramp_steps, 1)
        self.demote_ramp_steps = demote_ramp_steps

    def _demote(self) -> tf.Tensor:
        """The weight of this step, which is counted from 0."""
        share = tf.cast(self.step + 1, tf.float32) / self.demote_ramp_steps
        loss: Any = self.robust_loss
        return tf.minimum(share, 1.0) * loss.demote

    def training_loss(self) -> TrainingLoss:
        """The loss with the weight of this step."""
        loss = replace(self.robust_loss, demote=self._demote())
        return TrainingLoss(self.classifier, loss, self.microbatches, self.weight_perturbation)

    def state_logs(self) -> dict[str, tf.Tensor]:
        """The weight of demoting."""
        return {"demote": self._demote()}

    def parts(self) -> dict[str, Any]:
        """The arguments of the constructor that rebuild the model."""
        return {**super().parts(), "demote_ramp_steps": self.demote_ramp_steps}


@defense
def cce(
    classifier: keras.Model,
    ball: Ball,
    *,
    mode: str = "robustness",
    promote: float | None = None,
    demote: float | None = None,
    demote_ramp_steps: int = 0,
    steps: int = 10,
    step_size: float | None = None,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """CCE: PGD on each member; its examples are promoted or demoted on the other members.

    Each member is trained on its own attacks. Attacks of another member are learned as far as the
    member predicts them correctly (promoting), and its entropy on them is raised as far as it does
    not (demoting), so that correct members decide the mean prediction. The `robust_accuracy` of
    training is that of the ensemble on the images crafted on all members; validation attacks the
    ensemble as a whole.

    Args:
        classifier: an ensemble, such as the result of `keras_robust.models.ensemble`.
        mode: `"robustness"`; `"detection"`, for an ensemble whose prediction has a high entropy on
            adversarial images; or `"base"`, without promoting and demoting.
        promote: weight of promoting; default 1 for robustness, else 0.
        demote: weight of demoting; default 1 for robustness, 5 for detection, 0 for base.
        demote_ramp_steps: number of first steps over which the weight of demoting grows from 0, so
            that members learn the classes before they learn to doubt; 0 for the whole weight from
            the start, as in the paper.

    Raises:
        TypeError: a classifier that is not an ensemble.
        ValueError: another mode, a negative weight, a ramp without demoting, or what
            `keras_robust.attacks.pgd` refuses.

    Example:
        >>> import keras_robust as kr
        >>> ensemble = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(3)])
        >>> cce(ensemble, kr.LinfBall(8 / 255), mode="detection").robust_loss
        CollaborativeCrossEntropy(promote=0.0, demote=5.0)

    Reference: Bui et al. (2021), section 3.3.

    Differs: the attack uses the true labels; the released code uses the members' predictions.
    """
    check_ensemble("cce", classifier)
    check_choice("cce: mode", mode, MODES)
    weights = [
        default if given is None else given
        for default, given in zip(MODES[mode], (promote, demote), strict=True)
    ]
    check_integer("cce: demote_ramp_steps", demote_ramp_steps)
    if demote_ramp_steps and not weights[1]:
        raise ValueError(
            f"cce: demote_ramp_steps is {demote_ramp_steps}, but demote is 0; expected a weight "
            "above 0, as in mode='detection'."
        )
    attack = pgd(ball, steps, step_size)
    parts = (classifier, per_member(attack), CollaborativeCrossEntropy(*weights))
    checked = validated_by(options, attack)
    if demote_ramp_steps:
        return RampedDemotion(*parts, demote_ramp_steps=demote_ramp_steps, **checked)
    return RobustModel(*parts, **checked)
