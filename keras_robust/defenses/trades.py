"""TRADES: clean cross-entropy, and a divergence of clean and adversarial predictions."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from typing_extensions import Unpack

from keras_robust.attacks.pgd import pgd
from keras_robust.core import collectives
from keras_robust.core.classifier import classifier_of, contract_of
from keras_robust.core.config import register, serializable
from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Ball, Images, Labels, Outputs, PerExample, RobustLoss
from keras_robust.core.validation import check_choice, check_number
from keras_robust.losses import classification as losses
from keras_robust.losses.decoupled_kl import pairwise_mse
from keras_robust.losses.robust_loss import SumOfLosses
from keras_robust.training.defense_factory import RobustModelOptions, defense, validated_by
from keras_robust.training.precision_copy import copy_in
from keras_robust.training.robust_model import RobustModel
from keras_robust.training.training_loss import OutputsByKind

_DECAY = 0.99  # of the mean predictions of each class, per batch


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


@serializable
class DecoupledTrades(RobustLoss):
    """`CE(x) + beta * KL(stop(p(x)) || p(x_adv)) + mse_weight * MSE(z(x), z(x_adv))`: IKL.

    MSE is that of the differences of all pairs of logits, each weighted by the probabilities of its
    classes. By default these are the mean prediction of the images of the label, and gradients flow
    through both logits: the improved divergence. With `class_wise=False, symmetric=False` and equal
    weights the gradient is that of TRADES.

    Args:
        beta: weight of the divergence, which has no gradient through the clean prediction.
        mse_weight: weight of the squared differences.
        class_wise: weights by the mean prediction for the label, which the model provides
            (`"class_probabilities"`); else by the clean prediction of the image.
        symmetric: whether the gradient of the squared differences flows through the adversarial
            logits too.

    Raises:
        ValueError: a negative weight.

    Reference: Cui et al., "Decoupled Kullback-Leibler Divergence Loss" (2024), section 3.

    Differs: the entropy of the clean prediction is subtracted from the cross-entropy of soft
    labels, so that the term is 0 for equal predictions; it has no gradient.
    """

    beta: float = 6.0
    mse_weight: float = 6.0
    class_wise: bool = True
    symmetric: bool = True

    term_names = ("clean", "divergence", "mse")

    def __post_init__(self) -> None:
        check_number("DecoupledTrades: beta", self.beta)
        check_number("DecoupledTrades: mse_weight", self.mse_weight)

    @property
    def required_outputs(self) -> frozenset[str]:
        """Both outputs, and the mean predictions if they are the weights."""
        return frozenset({"clean", "adversarial", *["class_probabilities"] * self.class_wise})

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted terms, each `[batch]`."""
        logits, other = clean["logits"], adversarial["logits"]
        if self.class_wise:
            weights = tf.gather(adversarial["class_probabilities"], y)
        else:
            weights = tf.nn.softmax(upcast_half(logits))
        moved = other if self.symmetric else tf.stop_gradient(other)
        mse = pairwise_mse(logits, moved, tf.stop_gradient(weights))
        return {
            "clean": losses.cross_entropy(logits, y),
            "divergence": self.beta * losses.kl_divergence(tf.stop_gradient(logits), other),
            "mse": self.mse_weight * mse,
        }


@serializable
class HelperExamples(RobustLoss):
    """`weight * CE` of images beyond the ball, and the labels that another model gives: HAT.

    Args:
        weight: weight of the term; gamma of the paper.

    Raises:
        ValueError: a negative weight.

    Reference: Rade and Moosavi-Dezfooli, "Reducing Excessive Margin to Achieve a Better Accuracy
    vs. Robustness Trade-off" (2022), Eq. 4.
    """

    term_names = ("helper",)
    required_outputs = frozenset({"adversarial", "helper"})

    weight: float = 0.5

    def __post_init__(self) -> None:
        check_number("HelperExamples: weight", self.weight)

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted term, `[batch]`."""
        del y, clean
        logits, labels = adversarial["helper"]
        return {"helper": self.weight * losses.cross_entropy(logits, labels)}


@register
class TradesModel(RobustModel):
    """A robust model that provides mean predictions of each class, and helper examples.

    Args:
        *args, **kwargs: arguments of `RobustModel`.
        helper: a model for the labels of the helper examples; a frozen copy is part of this model,
            and saved with it.
        helper_scale: helper examples are `x + helper_scale * (x_adv - x)`.

    Raises:
        TypeError, ValueError: no helper that the loss needs, or one of other images or classes.
    """

    further_kinds = frozenset({"class_probabilities", "helper"})

    def __init__(
        self,
        *args: Any,
        helper: keras.Model | None = None,
        helper_scale: float = 2.0,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        check_number("trades: helper_scale", helper_scale)
        self.helper_scale = float(helper_scale)
        required = self.robust_loss.required_outputs
        self.helper = _frozen_copy(helper, self.classifier) if "helper" in required else None
        self.class_probabilities = None
        if "class_probabilities" in required:
            classes = self.classifier.output["logits"].shape[-1]
            self.class_probabilities = self.add_weight(
                shape=(classes, classes),
                initializer=keras.initializers.Constant(1 / classes),
                dtype="float32",
                trainable=False,
                aggregation="only_first_replica",
                name="class_probabilities",
            )

    def further_outputs(
        self, outputs: OutputsByKind, x: Images, y: Labels, x_adv: Images, training: bool
    ) -> Outputs:
        """`"class_probabilities"`, `[classes, classes]`; logits and labels of the `"helper"`."""
        del outputs, y
        found: Outputs = {}
        if self.class_probabilities is not None:
            found["class_probabilities"] = tf.convert_to_tensor(self.class_probabilities)
        if self.helper is not None:
            beyond = x + scalar(self.helper_scale, x.dtype) * (x_adv - x)
            labels = tf.argmax(self.helper(x_adv, training=False)["logits"], axis=1)
            found["helper"] = (self.classifier(beyond, training=training)["logits"], labels)
        return found

    def after_gradients(self, y: Labels, outputs: OutputsByKind) -> None:
        """Averages the clean predictions of each class."""
        if self.class_probabilities is None:
            return
        probabilities = tf.nn.softmax(upcast_half(outputs["clean"]["logits"]))
        is_label = tf.one_hot(y, probabilities.shape[-1], dtype=probabilities.dtype)
        sums = collectives.global_sum(tf.matmul(is_label, probabilities, transpose_a=True))
        counts = collectives.global_sum(tf.reduce_sum(is_label, axis=0))[:, None]
        before = tf.convert_to_tensor(self.class_probabilities)
        means = tf.cast(tf.math.divide_no_nan(sums, counts), before.dtype)
        moved = _DECAY * before + (1 - _DECAY) * means
        self.class_probabilities.assign(tf.where(counts > 0, moved, before))

    def parts(self) -> dict[str, Any]:
        """The arguments of the constructor that rebuild the model."""
        own = {"helper": self.helper, "helper_scale": self.helper_scale}
        return {**super().parts(), **own}


def _frozen_copy(helper: keras.Model | None, classifier: keras.Model) -> keras.Model:
    """A copy whose weights do not train."""
    model = classifier_of(helper)
    outputs = contract_of(model)
    if not isinstance(model, keras.Model) or not outputs or "logits" not in outputs:
        raise TypeError(
            f"trades: helper is {helper!r}; expected a model that returns 'logits', such as one "
            "trained by `keras_robust.defenses.standard`."
        )
    shapes = [(m.input_shape[1:], m.output["logits"].shape[1:]) for m in (model, classifier)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"trades: helper maps images {shapes[0][0]} to logits {shapes[0][1]}; expected those "
            f"of the classifier, {shapes[1][0]} and {shapes[1][1]}."
        )
    copy = copy_in(model, "float32", (), "A frozen helper", "Leave out helper")
    copy.set_weights(model.get_weights())
    copy.trainable = False
    return copy


@defense
def trades(
    classifier: keras.Model,
    ball: Ball,
    *,
    beta: float = 6.0,
    divergence: str = "kl",
    mse_weight: float | None = None,
    helper: keras.Model | None = None,
    helper_weight: float = 0.5,
    helper_scale: float = 2.0,
    steps: int = 10,
    step_size: float | None = None,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """TRADES: minimizes `CE(x) + beta * KL(p(x) || p(x_adv))`; the attack maximizes that KL.

    The default validation attack is PGD on the cross-entropy, to compare defenses under one attack.

    With `divergence="ikl"` the improved divergence takes the place of KL: no gradient through the
    clean prediction, and the squared differences of both logits, weighted by the mean prediction of
    each class, an average over about 100 batches. With a `helper`, helper-based training (HAT) adds
    `helper_weight * CE` of images twice as far away as the adversarial ones, and the labels that
    the helper gives to those: it limits the margin, and with it the loss of clean accuracy.

    Args:
        beta: weight of the divergence; 6 for CIFAR-10 in the paper, 1 for MNIST in the thesis, 2.5
            with a helper.
        divergence: `"kl"` or `"ikl"`.
        mse_weight: weight of the squared differences of `"ikl"`; default `beta`.
        helper: a model of the same images and classes by standard training; None for none.
        helper_weight: weight of the helper examples.
        helper_scale: their distance from the image, in perturbations.

    Raises:
        TypeError: a helper that is not a model.
        ValueError: a number out of range, another divergence, a helper of other images or classes,
            or what `keras_robust.attacks.pgd` refuses.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> trades(classifier, kr.LinfBall(8 / 255), beta=6.0).robust_loss.term_names
        ('clean', 'divergence')
        >>> standard = kr.models.mlp((2, 2, 1), classes=3)  # to be trained
        >>> model = trades(classifier, kr.LinfBall(8 / 255), divergence="ikl", helper=standard)
        >>> model.robust_loss.term_names
        ('clean', 'divergence', 'mse', 'helper')

    Reference: Zhang et al. (2019), Algorithm 1; Cui et al., "Decoupled Kullback-Leibler Divergence
    Loss" (2024), section 3; Rade and Moosavi-Dezfooli, "Reducing Excessive Margin to Achieve a
    Better Accuracy vs. Robustness Trade-off" (2022), Algorithm 1.

    Differs: Cui et al. average the predictions of the last epoch.
    """
    check_choice("trades: divergence", divergence, ("kl", "ikl"))
    loss: RobustLoss = Trades(beta)
    if divergence == "ikl":
        loss = DecoupledTrades(beta, beta if mse_weight is None else mse_weight)
    elif mse_weight is not None:
        raise ValueError(
            f"trades: mse_weight is {mse_weight!r}, and the divergence is 'kl'; expected None, or "
            "divergence='ikl'."
        )
    if helper is not None:
        loss = SumOfLosses((loss, HelperExamples(helper_weight)))
    attack = pgd(ball, steps, step_size, loss="kl", initialization="gaussian")
    options = validated_by(options, pgd(ball, steps, step_size))
    if not TradesModel.further_kinds & loss.required_outputs:
        return RobustModel(classifier, attack, loss, **options)
    return TradesModel(
        classifier, attack, loss, helper=helper, helper_scale=helper_scale, **options
    )
