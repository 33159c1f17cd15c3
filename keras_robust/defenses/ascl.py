"""ASCL: adversarial supervised contrastive learning with a selection of pairs."""

from __future__ import annotations

import keras
from typing_extensions import Unpack

from keras_robust.attacks.pgd import pgd
from keras_robust.core.types import Ball, RobustLoss
from keras_robust.core.validation import check_choice, check_number
from keras_robust.losses.contrastive import Contrastive
from keras_robust.losses.robust_loss import Adversarial, KLConsistency, SumOfLosses
from keras_robust.training.defense_factory import (
    RobustModelOptions,
    defense,
)
from keras_robust.training.robust_model import RobustModel

HEADS = ("linear", "mlp")


@defense
def ascl(
    classifier: keras.Model,
    ball: Ball,
    *,
    selection: str = "leaked",
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

    Args:
        selection: `"global"`, `"hard"`, `"soft"` or `"leaked"`: see `keras_robust.losses.select`.
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
    Supervised Contrastive Learning" (2021), Eq. 6.

    Differs: defaults are those of the paper's text. The released code divides the regularizers by
    the two views and by the number of classes, and uses the Linf similarity at temperature 0.2, a
    linear head and two augmented views.
    """
    check_number("ascl: scl", scl)
    check_number("ascl: vat", vat)
    latent = "features"
    if head is not None:
        classifier, latent = _with_head(classifier, head), "projection"
    contrastive = Contrastive(selection, similarity, temperature, scl, latent)
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
