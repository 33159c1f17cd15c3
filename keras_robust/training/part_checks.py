"""Checks that the classifier, the attacks and the loss of a robust model fit together."""

from __future__ import annotations

from typing import Any

from keras_robust.attacks.crafting.base import Attack, check_attack
from keras_robust.core.classifier import classifier_of, contract_of
from keras_robust.core.types import RobustLoss
from keras_robust.losses.robust_loss import check_loss


def check_parts(
    classifier: Any,
    attack: Attack | None,
    validation_attack: Attack | None,
    loss: RobustLoss,
    has_bounds: bool = False,
    further_kinds: frozenset[str] = frozenset(),
) -> None:
    """Raises unless a robust model can be made of the parts.

    Args:
        classifier: expected to be a built functional model with `{"logits", "features"}`.
        attack: the attack of training, or None.
        validation_attack: the attack of validation, or None for the attack of training.
        loss: the robust loss.
        has_bounds: whether the model bounds the worst case of its outputs.
        further_kinds: further kinds of outputs that the model computes.

    Raises:
        TypeError: a part of another kind.
        ValueError: a loss that needs adversarial images without an attack, or bounds or further
            outputs without a model that computes them; one batch per member of an ensemble where a
            single batch is expected.
    """
    _check_classifier(classifier)
    check_loss(loss)
    for name, part in (("attack", attack), ("validation_attack", validation_attack)):
        if part is not None:
            check_attack(name, part)
    if attack is None and "adversarial" in loss.required_outputs:
        raise ValueError(
            f"The loss {type(loss).__name__} needs adversarial images, but attack is None. Pass "
            "one, such as `keras_robust.attacks.pgd(ball)`."
        )
    _check_bounds(loss, has_bounds)
    missing = loss.required_outputs - {"clean", "adversarial", "bounds"} - further_kinds
    if missing:
        raise ValueError(
            f"The loss {type(loss).__name__} requires the outputs {sorted(missing)}, which this "
            "model does not compute. Use the defense of that loss, and not over another one."
        )
    validated = validation_attack or attack
    if validated is not None and validated.per_member:
        raise ValueError(
            f"Validation attack {validated.name} returns one batch per member; expected an attack "
            "on the ensemble as a whole. Pass `validation_attack`, such as "
            "`keras_robust.attacks.pgd(ball)`."
        )
    if attack is not None and attack.per_member and not loss.per_member:
        raise ValueError(
            f"Attack {attack.name} returns one batch per member, but loss {type(loss).__name__} "
            "expects a single batch. Pass the inner attack, or a per-member loss such as that of "
            "`keras_robust.defenses.cce`."
        )


def _check_bounds(loss: RobustLoss, has_bounds: bool) -> None:
    name, required = type(loss).__name__, loss.required_outputs
    if {"bounds", "adversarial"} <= required:
        raise ValueError(
            f"The loss {name} requires 'bounds' and 'adversarial' outputs; expected one of the "
            "two, since both would be the second argument of its call."
        )
    if "bounds" in required and not has_bounds:
        raise ValueError(
            f"The loss {name} needs certified bounds, which this model does not compute. Use a "
            "defense that does, such as `keras_robust.defenses.ibp(classifier, ball)`."
        )
    if has_bounds and "bounds" not in required:
        raise ValueError(
            f"The loss {name} does not read certified bounds, for which this model is; expected a "
            "loss that requires 'bounds', such as `keras_robust.losses.WorstCase()`."
        )


def _check_classifier(classifier: Any) -> None:
    if classifier_of(classifier) is not classifier:
        raise TypeError(
            f"The classifier is a {type(classifier).__name__}; expected the classifier inside it. "
            "Pass `model.classifier`."
        )
    outputs = contract_of(classifier)
    if not outputs or not {"logits", "features"} <= set(outputs):
        received = f"a model with outputs {sorted(outputs)}" if outputs else repr(classifier)
        raise TypeError(
            f"The classifier is {received}; expected a built functional model that returns "
            "{'logits', 'features'}. Wrap a Keras model of your own with "
            "`keras_robust.models.adapt(model)`."
        )
