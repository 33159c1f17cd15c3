"""ASCL: adversarial supervised contrastive learning with a selection of pairs."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf
from typing_extensions import Unpack

from keras_robust.attacks.crafting.objectives import refuse_targets
from keras_robust.attacks.pgd import pgd
from keras_robust.core.config import serializable
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import (
    Ball,
    Forward,
    Images,
    Labels,
    Outputs,
    PerExample,
    RobustLoss,
)
from keras_robust.core.validation import check_choice, check_number
from keras_robust.losses.contrastive import SIMILARITIES, Contrastive, Views, contrast, select
from keras_robust.losses.robust_loss import Adversarial, KLConsistency, SumOfLosses
from keras_robust.training.defense_factory import (
    RobustModelOptions,
    defense,
)
from keras_robust.training.robust_model import RobustModel

HEADS = ("linear", "mlp")
MODES = ("joint", "pretraining")


@serializable
class ContrastiveLoss:
    """An attack objective: the contrastive loss of the images with their perturbed versions.

    Args:
        loss: the loss; its weight is not used.

    Reference: Kim et al., "Adversarial Self-Supervised Contrastive Learning" (2020), section 3.2.

    Differs: by default images of one class are positives too; each replica contrasts its own.
    """

    loss: Contrastive

    def __call__(
        self, forward: Forward, x: Images, y: Labels, targets: Labels | None = None
    ) -> Callable[[Images], PerExample]:
        """Returns `x_adv -> the loss of both views of each image`."""
        refuse_targets("ContrastiveLoss", targets)
        clean = self._view(forward(x), y, 0)

        def value(x_adv: Images) -> PerExample:
            views = self._view(forward(x_adv), y, 1)
            both = Views(*(tf.concat(parts, axis=0) for parts in zip(clean, views, strict=True)))
            similarity = SIMILARITIES[self.loss.similarity](both.latents, both.latents)
            masks = select(self.loss.selection, both, both)
            found = contrast(similarity, *masks, self.loss.temperature)
            return tf.reduce_sum(tf.reshape(found, [2, -1]), axis=0)

        return value

    def _view(self, outputs: Outputs, y: Labels, side: int) -> Views:
        return Views(
            upcast_half(outputs[self.loss.latent]),
            y,
            tf.argmax(outputs["logits"], axis=1, output_type=y.dtype),
            tf.range(tf.shape(y)[0]),
            tf.fill(tf.shape(y), side),
        )


@defense
def ascl(
    classifier: keras.Model,
    ball: Ball,
    *,
    mode: str = "joint",
    selection: str | None = None,
    similarity: str = "cosine",
    temperature: float = 0.07,
    scl: float = 1.0,
    vat: float = 2.0,
    head: str | None = None,
    clean_term: bool = True,
    steps: int = 10,
    step_size: float | None = None,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """PGD-AT with a contrastive term on clean and adversarial latents: `AT + scl SCL + vat VAT`.

    Logs the mean numbers of positives and negatives of an anchor as `positives` and `negatives`,
    and of the adversarial ones among them as `adversarial_positives` and `adversarial_negatives`.
    The latent is the classifier's `"features"`; `keras_robust.models.adapt(classifier,
    features=...)` selects another layer.

    With `mode="pretraining"` the contrast is the whole loss, and the attack maximizes it: the
    adversarial pretraining that the paper compares with. The logits are not trained: in a second
    stage train a head on the features, or everything, by adversarial training.

    Args:
        mode: `"joint"`, or `"pretraining"` for the contrastive term alone.
        selection: `"global"`, `"hard"`, `"soft"`, `"leaked"` or `"instance"`: see
            `keras_robust.losses.select`. Default `"leaked"`; in pretraining, without predictions,
            `"global"`. Pretraining with `"instance"` needs no labels.
        similarity: `"cosine"`, `"dot"`, `"l1"`, `"l2"` or `"linf"`.
        temperature: divisor of the similarities, > 0.
        scl: weight of the contrastive term; 0 leaves it out (adversarial training with VAT).
        vat: weight of `KL(p(x) || p(x_adv))`; 0 leaves it out.
        head: projection of the latent for the contrastive term: None, `"linear"` (128 units) or
            `"mlp"` (200 units, ReLU, then 128; no biases). It becomes an output `"projection"` of
            the trained classifier.
        clean_term: whether the cross-entropy of clean images is added.

    Returns:
        A model to `compile` and `fit`; it takes no sample weights.

    Raises:
        ValueError: another name, a number out of range, or what `keras_robust.attacks.pgd` refuses.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> model = ascl(classifier, kr.LinfBall(8 / 255), selection="leaked")
        >>> model.robust_loss.term_names
        ('adversarial', 'clean', 'contrastive', 'smoothness')

    Reference: Bui et al., "Understanding and Achieving Efficient Robustness with Adversarial
    Supervised Contrastive Learning" (2021), Eq. 6; pretraining: Kim et al., "Adversarial
    Self-Supervised Contrastive Learning" (2020), here with labels.

    Differs: defaults are those of the paper's text. The released code divides the regularizers by
    the two views and by the number of classes, and uses the Linf similarity at temperature 0.2, a
    linear head and two augmented views.
    """
    check_choice("ascl: mode", mode, MODES)
    check_number("ascl: scl", scl)
    check_number("ascl: vat", vat)
    latent = "features"
    if head is not None:
        classifier, latent = _with_head(classifier, head), "projection"
    if selection is None:
        selection = "leaked" if mode == "joint" else "global"
    contrastive = Contrastive(selection, similarity, temperature, scl, latent)
    if mode == "pretraining":
        attack = pgd(ball, steps, step_size, loss=ContrastiveLoss(contrastive))
        return RobustModel(classifier, attack, contrastive, **options)
    parts: list[RobustLoss] = [Adversarial(clean_weight=float(clean_term))]
    parts += [contrastive] if scl else []
    parts += [KLConsistency(vat)] if vat else []
    return RobustModel(
        classifier, pgd(ball, steps, step_size), SumOfLosses(tuple(parts)), **options
    )


def _with_head(classifier: keras.Model, head: str) -> keras.Model:
    """Adds an output `"projection"`, computed from the features."""
    check_choice("ascl: head", head, (None, *HEADS))
    outputs = dict(classifier.output)
    x = outputs["features"]
    if head == "mlp":
        x = keras.layers.Dense(200, activation="relu", use_bias=False, name="projection_hidden")(x)
    x = keras.layers.Dense(128, use_bias=head == "linear", dtype="float32", name="projection")(x)
    return keras.Model(classifier.input, {**outputs, "projection": x}, name=classifier.name)
