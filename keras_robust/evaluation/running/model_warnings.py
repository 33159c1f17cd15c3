"""Warnings about a model that follow from its clean outputs and its first layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np

from keras_robust.attacks.crafting.base import Attack
from keras_robust.core.classifier import members_of
from keras_robust.core.first_layers import NARROW, WIDE, scale_of, scaling_layers
from keras_robust.evaluation.rendering.wording import joined, percent
from keras_robust.evaluation.running.batching import Model

_Z_95_ONE_SIDED = 1.645  # the 95 % point of the standard normal distribution
_REPEATABLE = 1e-4  # standard deviations; the order of a sum may change its last digits


def logits_warnings(logits: np.ndarray) -> list[str]:
    """Warnings about logits that are not finite, or probabilities."""
    if not np.isfinite(logits).all():
        return [
            "The model's logits are not finite for some clean images; these count as misclassified."
        ]
    if are_probabilities(logits):
        return [
            "The model's logits look like probabilities (they sum to 1). A softmax before the loss "
            "saturates gradients, and attacks look weaker than they are. Return the logits."
        ]
    return []


def are_probabilities(rows: np.ndarray) -> bool:
    """Whether outputs `[n, classes]` look like probabilities, also those of quantized models.

    Example:
        >>> are_probabilities(np.array([[0.2, 0.8]])), are_probabilities(np.array([[2.0, -1.0]]))
        (True, False)
    """
    return bool((rows >= 0).all() and np.allclose(rows.sum(1), 1, rtol=0, atol=1e-3))


def chance_warnings(correct: np.ndarray, classes: int) -> list[str]:
    """A warning if the clean accuracy is not significantly above guessing (5 %, one-sided)."""
    accuracy, chance = float(correct.mean()), 1 / classes
    spread = math.sqrt(chance * (1 - chance) / len(correct))
    if accuracy == 1 or accuracy > chance + _Z_95_ONE_SIDED * spread:
        return []
    return [
        f"The clean accuracy of {percent(accuracy)} on {len(correct)} images is not above chance "
        f"({percent(chance)} with {classes} classes), so the other accuracies say nothing about "
        "robustness. Check the labels, the range of the pixels that the model expects, and its "
        "weights."
    ]


def repeat_gap(first: np.ndarray, second: np.ndarray) -> float:
    """The largest difference of two passes, in standard deviations of the finite outputs."""
    finite = first[np.isfinite(first).all(axis=1)]
    difference = (first - second)[np.isfinite(first - second).all(axis=1)]
    spread = max(float(finite.std()) if len(finite) else 0.0, 1e-30)
    return float(np.abs(difference).max(initial=0)) / spread


def is_random(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two passes over the same images differ by more than rounding."""
    return repeat_gap(first, second) > _REPEATABLE


def random_warning(first: np.ndarray, second: np.ndarray, attacks: Sequence[Attack]) -> str:
    """The warning about a random model, with the attacks that do not average gradients."""
    changed = float((first.argmax(1) != second.argmax(1)).mean())
    single = [attack.name for attack in attacks if not _averages(attack)]
    how = (
        f"Gradients are not averaged over passes by {joined(single)}, which may look weaker than "
        "they are; average them (EOT), as `attacks.apgd(eot_iter=20)` does."
        if single
        else "The attacks average gradients over passes (EOT)."
    )
    return (
        f"The model is random: between two passes over the clean images {percent(changed)} of the "
        f"predictions change, and the outputs differ by {repeat_gap(first, second):.2g} standard "
        "deviations. Each attempt of an attack is another chance of a misclassification, whatever "
        f"the perturbation, so accuracies are those of one draw. {how}"
    )


def _averages(attack: Attack) -> bool:
    """Whether all rounds of an attack average gradients over several passes."""
    parts = [part.attack.inner for part in attack.rounds(2 if attack.takes_targets else 10)]
    return all(getattr(part, "eot_iter", 1) > 1 for part in parts)


def range_warnings(model: Model, bounds: tuple[float, float]) -> list[str]:
    """A warning if the first layers rescale the pixels of the bounds to another range."""
    for part in members_of(model) or (model,):
        layers = scaling_layers(part)
        if not layers or not all(map(math.isfinite, bounds)):
            continue
        width = (bounds[1] - bounds[0]) * scale_of(layers)
        normalizes = any(isinstance(layer, keras.layers.Normalization) for layer in layers)
        if width < NARROW or (normalizes and width > WIDE):
            names = joined([f"{layer.name} ({type(layer).__name__})" for layer in layers])
            return [
                f"The model's first layers, {names}, map the pixel range {bounds[0]:g} to "
                f"{bounds[1]:g} to a range of width {width:.2g}: they expect other pixels, such as "
                "0 to 255 instead of 0 to 1. Adapt the model with `preprocess`, such as "
                "`keras.layers.Rescaling(255)`, or give the ball the bounds of its images."
            ]
    return []
