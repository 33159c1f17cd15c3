"""Attack objectives: functions of the perturbed images that an attack maximizes.

An objective is called once per batch, does the work on clean images there, and returns a function
of the perturbed images alone, which the crafting loop differentiates:

    value = objective(forward, x, y)
    value(x_adv)                        # [batch], larger is worse for the model

Settings out of range raise ValueError, as do targets that are missing or not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.types import Forward, Images, Labels, Objective, Outputs, PerExample
from keras_robust.core.validation import check_choice, check_number
from keras_robust.losses import classification as losses
from keras_robust.losses import uncertainty as scores

__all__ = ["AdaptiveObjective", "Divergence", "LabelLoss", "Targeted", "get"]


def __dir__() -> list[str]:
    return __all__


Value = Callable[[Images], PerExample]


class DetectionScore(Protocol):
    """A score that is no name, such as `adaptive_score` of a fitted detector; larger: suspicious.

    Attacks are compared and cached by their settings: two scores are equal only if they agree on
    all images.
    """

    def outputs_and_score(self, forward: Forward, x: Images) -> tuple[Outputs, PerExample]:
        """The outputs of a model, and the score of each image, `[batch]`."""


def check_score(score: str | DetectionScore) -> None:
    """Raises unless a score is a name of `keras_robust.detection.scores`, or a `DetectionScore`."""
    if isinstance(score, str) or not hasattr(score, "outputs_and_score"):
        scores.get(score)  # type: ignore[arg-type]


def outputs_and_score(
    score: str | DetectionScore, forward: Forward, x: Images
) -> tuple[Outputs, PerExample, float]:
    """The outputs of a model, a score to be lowered, and a bound of it.

    Of a score that is no name, the inverse hyperbolic sine is lowered: it has the same order and is
    bounded in float32, and a change counts in proportion to the score.
    """
    if isinstance(score, str):
        outputs = forward(x)
        return outputs, scores.get(score).of(outputs), math.log(outputs["logits"].shape[-1])
    outputs, found = score.outputs_and_score(forward, x)
    return outputs, tf.asinh(found), _MOST_ASINH


_MOST_ASINH = 90.0  # of a float32
_UNTARGETED = {
    "cross_entropy": losses.cross_entropy,
    "margin": losses.margin,
    "dlr": losses.dlr,
}
_TARGETED = {
    "cross_entropy": lambda logits, _, targets: -losses.cross_entropy(logits, targets),
    "margin": losses.targeted_margin,
    "dlr": losses.targeted_dlr,
}


def refuse_targets(owner: str, targets: Labels | None) -> None:
    """Raises if targets are passed to an attack or objective that ignores them."""
    if targets is not None:
        raise ValueError(
            f"{owner} was called with targets, which it does not use. Leave them out, or build a "
            "targeted attack: `keras_robust.attacks.pgd(ball, targeted=True)`."
        )


def require_targets(targets: Labels | None) -> Labels:
    """Returns the targets of a targeted attack; raises if there are none."""
    if targets is None:
        raise ValueError(
            "A targeted attack was called without targets. Pass `targets`, one class per "
            "image, or wrap the attack in `keras_robust.attacks.multi_targeted`."
        )
    return targets


def get(loss: str | Objective, targeted: bool = False) -> Objective:
    """The objective that maximizes a loss.

    Args:
        loss: `"cross_entropy"`, `"margin"`, `"dlr"`, `"kl"`, or an objective, which is returned.
        targeted: whether to approach targets instead of leaving the label.

    Raises:
        ValueError: an unknown loss, or `targeted` with a loss that uses no targets.

    Example:
        >>> get("margin", targeted=True)
        Targeted(loss='margin')
    """
    if not isinstance(loss, str):
        if targeted and not isinstance(loss, Targeted):
            raise ValueError(
                f"targeted=True was received with the objective {loss!r}; expected the name of a "
                "loss. Leave `targeted` out, or pass `keras_robust.objectives.Targeted(...)`."
            )
        return loss
    if loss == "kl":
        if targeted:
            raise ValueError("loss is 'kl', which uses no labels and therefore has no targets.")
        return Divergence()
    return Targeted(loss) if targeted else LabelLoss(loss)


@serializable
class LabelLoss:
    """Maximizes a loss of the true label.

    Args:
        loss: `"cross_entropy"`, `"margin"` (Carlini-Wagner) or `"dlr"` (AutoAttack).
        labels: `"true"`, or `"predicted"` for the clean prediction, which overestimates robustness
            because misclassified images are corrected.

    Example:
        >>> value = LabelLoss("margin")(lambda x: {"logits": x}, tf.zeros([1, 3]), tf.constant([0]))
        >>> value(tf.constant([[1.0, 3.0, 0.0]])).numpy().tolist()
        [2.0]
    """

    loss: str = "cross_entropy"
    labels: str = "true"

    def __post_init__(self) -> None:
        check_choice("LabelLoss: loss", self.loss, _UNTARGETED)
        check_choice("LabelLoss: labels", self.labels, ("true", "predicted"))

    def __call__(
        self, forward: Forward, x: Images, y: Labels, targets: Labels | None = None
    ) -> Value:
        """Returns `x_adv -> loss of the label`."""
        refuse_targets("LabelLoss", targets)
        loss = _UNTARGETED[self.loss]
        if self.labels == "predicted":
            y = tf.argmax(forward(x)["logits"], axis=1, output_type=y.dtype)
        return lambda x_adv: loss(forward(x_adv)["logits"], y)


@serializable
class Targeted:
    """Approaches a target class, one per example, passed to the attack as `targets`.

    Args:
        loss: `"cross_entropy"` (minus that of the target), `"margin"` or `"dlr"`.

    Example:
        >>> y, targets = tf.constant([0]), tf.constant([2])
        >>> value = Targeted("margin")(lambda x: {"logits": x}, tf.zeros([1, 3]), y, targets)
        >>> value(tf.constant([[1.0, 3.0, 0.0]])).numpy().tolist()
        [-3.0]
    """

    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        check_choice("Targeted: loss", self.loss, _TARGETED)

    def __call__(
        self, forward: Forward, x: Images, y: Labels, targets: Labels | None = None
    ) -> Value:
        """Returns `x_adv -> closeness to the target`."""
        goals = require_targets(targets)
        loss = _TARGETED[self.loss]
        return lambda x_adv: loss(forward(x_adv)["logits"], y, goals)


@serializable
class Divergence:
    """Maximizes `KL(p(x) || p(x_adv))`, the divergence from the clean prediction; uses no label.

    The clean prediction is computed once and held fixed. At `x_adv = x` the divergence is minimal
    and its gradient zero, so the attack must start elsewhere.

    Example:
        >>> value = Divergence()(lambda x: {"logits": x}, tf.zeros([1, 3]), tf.constant([0]))
        >>> value(tf.zeros([1, 3])).numpy().tolist()
        [0.0]

    Reference: Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy"
    (TRADES, 2019), Algorithm 1.
    """

    def __call__(
        self, forward: Forward, x: Images, y: Labels, targets: Labels | None = None
    ) -> Value:
        """Returns `x_adv -> KL(p(x) || p(x_adv))`."""
        del y
        refuse_targets("Divergence", targets)
        clean = tf.stop_gradient(forward(x)["logits"])
        return lambda x_adv: losses.kl_divergence(clean, forward(x_adv)["logits"])


@serializable
class AdaptiveObjective:
    """Adaptive objective: misclassify, and keep a detector's score low.

    Until the best wrong class is ahead of the label by `confidence`, only that margin is
    maximized; from then on the score is lowered. So no weight between the two has to be tuned:

    `margin` where `margin < confidence`, else `confidence + log(classes) - score +
    keep * (margin - confidence)`. Of a fitted detector, `asinh(score)` is lowered, bounded by 90
    in the place of `log(classes)`.

    Args:
        score: the name of the score, as for `keras_robust.detection.Detector`; or the
            `adaptive_score` of a fitted detector of the attacked model.
        confidence: the required lead of a wrong class over the label, in logits.
        keep: the weight of the margin beyond `confidence`. With 0 an image may oscillate between
            misclassified and undetected.

    Example:
        >>> objective = AdaptiveObjective("entropy", confidence=1.0)
        >>> value = objective(lambda x: {"logits": x}, tf.zeros([2, 2]), tf.constant([0, 0]))
        >>> value(tf.constant([[3.0, 1.0], [0.0, 50.0]])).numpy().round(2).tolist()
        [-2.0, 11.489999771118164]

    Reference: Bryniarski et al., "Evading Adversarial Example Detection Defenses with Orthogonal
    Projected Gradient Descent" (2022), selective gradient descent, section 4.1; Carlini and Wagner,
    "Adversarial Examples Are Not Easily Detected" (2017).

    Differs: uses the margin instead of the cross-entropy, because its gradient does not vanish; and
    `keep`, as with their `keep=0` fewer images ended both misclassified and undetected.
    """

    score: str | DetectionScore = "entropy"
    confidence: float = 0.1
    keep: float = 0.2

    def __post_init__(self) -> None:
        check_score(self.score)
        check_number("AdaptiveObjective: confidence", self.confidence, below=1e30)
        check_number("AdaptiveObjective: keep", self.keep, below=1e30)

    def __call__(
        self, forward: Forward, x: Images, y: Labels, targets: Labels | None = None
    ) -> Value:
        """Returns `x_adv -> the margin, or the lead and the score combined`."""
        refuse_targets("AdaptiveObjective", targets)

        def value(x_adv: Images) -> PerExample:
            outputs, score, most = outputs_and_score(self.score, forward, x_adv)
            margin = losses.margin(outputs["logits"], y)
            # Scores are at most `most`: a misclassified image has the larger value.
            least = self.confidence + most
            ahead = margin - self.confidence
            undetected = least + self.keep * ahead - tf.cast(score, margin.dtype)
            return tf.where(ahead < 0, margin, undetected)

        return value
