"""What an attack climbs.

An objective is called once per batch with the model, the clean images and the true labels; it does
the work on clean images there and returns a function of the perturbed images alone, which the
crafting loop differentiates:

    value = objective(forward, x, y)
    value(x_adv)                        # [batch], larger is worse for the model
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.types import Forward, Images, Labels, Objective, PerExample
from keras_robust.losses import classification as losses
from keras_robust.losses.uncertainty import score_called

Value = Callable[[Images], PerExample]

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


def _check_loss(owner: str, loss: str, table: dict[str, Callable]) -> None:
    if loss not in table:
        raise ValueError(f"{owner}: loss is {loss!r}; expected one of {', '.join(sorted(table))}.")


def refuse_targets(owner: str, targets: Labels | None) -> None:
    """Raises where targets are passed to what would ignore them."""
    if targets is not None:
        raise ValueError(
            f"{owner} was called with targets, which it does not use. Leave them out, or build a "
            "targeted attack: `keras_robust.attacks.pgd(ball, targeted=True)`."
        )


def objective_called(loss: str | Objective, targeted: bool = False) -> Objective:
    """The objective that climbs a loss.

    Args:
        loss: `"cross_entropy"`, `"margin"`, `"dlr"`, `"kl"`, or an objective, which is handed back.
        targeted: towards targets, not away from the label.

    Returns:
        The objective.

    Raises:
        ValueError: an unknown loss, or `targeted` with one that has no targets.

    Example:
        >>> objective_called("margin", targeted=True)
        Targeted(loss='margin')
    """
    if not isinstance(loss, str):
        if targeted and not isinstance(loss, Targeted):
            raise ValueError(
                f"targeted=True goes with the name of a loss; {loss!r} decides for itself. "
                "Leave `targeted` out, or pass `keras_robust.objectives.Targeted(...)`."
            )
        return loss
    if loss == "kl":
        if targeted:
            raise ValueError("loss is 'kl', which uses no labels and so cannot be targeted.")
        return Divergence()
    return Targeted(loss) if targeted else LabelLoss(loss)


@serializable
class LabelLoss:
    """Climbs a loss of the true label: away from it, towards any other class.

    Args:
        loss: `"cross_entropy"`, `"margin"` (Carlini-Wagner) or `"dlr"` (AutoAttack).
        labels: `"true"`, or `"predicted"` for the model's prediction on the clean image. Climbing
            from the prediction repairs images that were misclassified, which flatters a model.

    Raises:
        ValueError: an unknown loss or kind of labels; or, when called, targets.

    Example:
        >>> import tensorflow as tf
        >>> value = LabelLoss("margin")(lambda x: {"logits": x}, tf.zeros([1, 3]), tf.constant([0]))
        >>> value(tf.constant([[1.0, 3.0, 0.0]])).numpy().tolist()
        [2.0]
    """

    loss: str = "cross_entropy"
    labels: str = "true"

    def __post_init__(self) -> None:
        _check_loss("LabelLoss", self.loss, _UNTARGETED)
        if self.labels not in ("true", "predicted"):
            raise ValueError(
                f"LabelLoss: labels is {self.labels!r}; expected 'true' or 'predicted'."
            )

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
    """Climbs towards a target class, one per example, passed to the attack as `targets`.

    Args:
        loss: `"cross_entropy"` (minus that of the target), `"margin"` or `"dlr"`.

    Raises:
        ValueError: an unknown loss; or, when called, no targets.

    Example:
        >>> import tensorflow as tf
        >>> y, targets = tf.constant([0]), tf.constant([2])
        >>> value = Targeted("margin")(lambda x: {"logits": x}, tf.zeros([1, 3]), y, targets)
        >>> value(tf.constant([[1.0, 3.0, 0.0]])).numpy().tolist()
        [-3.0]
    """

    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        _check_loss("Targeted", self.loss, _TARGETED)

    def __call__(
        self, forward: Forward, x: Images, y: Labels, targets: Labels | None = None
    ) -> Value:
        """Returns `x_adv -> closeness to the target`."""
        if targets is None:
            raise ValueError(
                "A targeted attack was called without targets. Pass `targets`, one class per "
                "image, or wrap the attack in `keras_robust.attacks.multi_targeted`."
            )
        loss = _TARGETED[self.loss]
        return lambda x_adv: loss(forward(x_adv)["logits"], y, targets)


@serializable
class Divergence:
    """Climbs `KL(p(x) || p(x_adv))`: away from the model's own clean prediction; no label is used.

    The clean prediction is computed once and held fixed. At `x_adv = x` the divergence is at its
    minimum and its gradient is zero, so the ascent must start elsewhere.

    Example:
        >>> import tensorflow as tf
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
    """Fools the prediction, and lowers a detector's score: the attacker who knows of the detector.

    While the best wrong class is not ahead of the label by `confidence`, an image climbs that
    margin and nothing else; as soon as it is, the score is lowered. So no weight between the two
    has to be found for each model, and the prediction is fooled first:

    `margin` where `margin < confidence`, else `confidence + log(classes) - score +
    keep * (margin - confidence)`.

    Args:
        score: the name of the score, as for `keras_robust.detection.Detector`.
        confidence: how far a wrong class has to be ahead of the label, in logits.
        keep: what the margin still counts where it is ahead. With 0 an image may swing between
            fooling and hiding, and end on the wrong side.

    Raises:
        ValueError: an unknown score, a negative number; or, when called, targets.

    Example:
        >>> import tensorflow as tf
        >>> aware = AdaptiveObjective("entropy", confidence=1.0)
        >>> value = aware(lambda x: {"logits": x}, tf.zeros([2, 2]), tf.constant([0, 0]))
        >>> value(tf.constant([[3.0, 1.0], [0.0, 50.0]])).numpy().round(2).tolist()
        [-2.0, 11.489999771118164]

    Reference: Bryniarski et al., "Evading Adversarial Example Detection Defenses with Orthogonal
    Projected Gradient Descent" (2022), selective gradient descent, section 4.1; Carlini and Wagner,
    "Adversarial Examples Are Not Easily Detected" (2017).

    Differs: the margin in the place of the cross-entropy, as its gradient vanishes nowhere; and
    `keep`, without which (their `keep=0`) fewer images ended both fooled and unseen.
    """

    score: str = "entropy"
    confidence: float = 0.1
    keep: float = 0.2

    def __post_init__(self) -> None:
        score_called(self.score)
        for name in ("confidence", "keep"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value < 1e30:
                raise ValueError(f"AdaptiveObjective: {name} is {value!r}; expected a number >= 0.")

    def __call__(
        self, forward: Forward, x: Images, y: Labels, targets: Labels | None = None
    ) -> Value:
        """Returns `x_adv -> how far the attack has come`."""
        refuse_targets("AdaptiveObjective", targets)
        score = score_called(self.score).of

        def value(x_adv: Images) -> PerExample:
            outputs = forward(x_adv)
            margin = losses.margin(outputs["logits"], y)
            # No score exceeds the logarithm: an image that fools is worth more than one that does
            # not, and the more the lower its score.
            least = self.confidence + math.log(outputs["logits"].shape[-1])
            ahead = margin - self.confidence
            hidden = least + self.keep * ahead - tf.cast(score(outputs), margin.dtype)
            return tf.where(ahead < 0, margin, hidden)

        return value
