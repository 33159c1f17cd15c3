"""ASCL: adversarial supervised contrastive learning, with a choice of which pairs count."""

from __future__ import annotations

from typing import Any

import keras

from keras_robust.attacks.pgd import pgd
from keras_robust.core.types import Ball
from keras_robust.core.validation import check_number
from keras_robust.losses.contrastive import Contrastive
from keras_robust.losses.robust_loss import Adversarial, KLConsistency, SumOfLosses
from keras_robust.training.robust_model import RobustModel

HEADS = ("linear", "mlp")


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
    seed: int = 0,
    **options: Any,
) -> RobustModel:
    """PGD-AT with a contrast between clean and adversarial latents: `AT + scl SCL + vat VAT`.

    Logs the mean numbers of positives and negatives of an anchor as `positives` and `negatives`.
    The latent is the classifier's `"features"`; `keras_robust.models.adapt(classifier,
    features=...)` names another layer.

    Args:
        classifier: a built functional model that maps images to `{"logits", "features"}`.
        ball: the threat model.
        selection: `"global"`, `"hard"`, `"soft"` or `"leaked"`: see `keras_robust.losses.select`.
        similarity: `"cosine"`, `"dot"`, `"l1"`, `"l2"` or `"linf"`.
        temperature: what similarities are divided by, > 0.
        scl: weight of the contrast; 0 leaves it out (adversarial training with VAT).
        vat: weight of `KL(p(x) || p(x_adv))`; 0 leaves it out.
        head: what the contrast sees instead of the latent: None, `"linear"` (128 units) or `"mlp"`
            (200 units, rectified, then 128; no biases). It is a part of the trained classifier,
            its output `"projection"`.
        clean_term: whether the cross-entropy of clean images is minimised too.
        steps: the steps of PGD.
        step_size: their length, in the units of the images; default `2.5 radius / steps`.
        seed: of the random starts.
        **options: of `RobustModel`, such as `crafting_dtype`, `microbatches`, `radius_warmup`.

    Returns:
        A model to `compile` and `fit`; sample weights are refused, as the contrast is of a batch.

    Raises:
        ValueError: a name or a number that cannot be, or settings that `keras_robust.attacks.pgd`
            refuses.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> model = ascl(classifier, kr.LinfBall(8 / 255), selection="leaked")
        >>> model.robust_loss.term_names
        ('adversarial', 'clean', 'contrastive', 'smoothness')

    Reference: Bui et al., "Understanding and Achieving Efficient Robustness with Adversarial
    Supervised Contrastive Learning" (2021), Eq. 6.

    Differs: the released code divides both regularisers by more (by two views and by the number of
    classes), takes the Linf similarity at temperature 0.2, a linear head and two augmented views;
    here the defaults are the paper's text.
    """
    check_number("ASCL: scl", scl)
    check_number("ASCL: vat", vat)
    latent = "features"
    if head is not None:
        classifier, latent = _with_head(classifier, head), "projection"
    contrastive = Contrastive(selection, similarity, temperature, scl, latent)
    parts: list[Any] = [Adversarial(clean_weight=float(clean_term))]
    parts += [contrastive] if scl else []
    parts += [KLConsistency(vat)] if vat else []
    return RobustModel(
        classifier, pgd(ball, steps, step_size), SumOfLosses(tuple(parts)), seed=seed, **options
    )


def _with_head(classifier: keras.Model, head: str) -> keras.Model:
    """The classifier with one more output, `"projection"`, made of its features."""
    if head not in HEADS:
        raise ValueError(f"ASCL: head is {head!r}; expected None, {', '.join(map(repr, HEADS))}.")
    outputs = dict(classifier.output)
    x = outputs["features"]
    if head == "mlp":
        x = keras.layers.Dense(200, activation="relu", use_bias=False, name="projection_hidden")(x)
    x = keras.layers.Dense(128, use_bias=head == "linear", dtype="float32", name="projection")(x)
    return keras.Model(classifier.input, {**outputs, "projection": x}, name=classifier.name)
