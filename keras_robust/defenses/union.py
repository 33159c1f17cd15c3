"""Adversarial training in a union of balls, on top of another defense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.union import as_union
from keras_robust.core.types import Ball
from keras_robust.threat_models.union_ball import UnionBall
from keras_robust.training import defense_factory
from keras_robust.training.defense_factory import defense
from keras_robust.training.robust_model import RobustModel


@defense
def union(
    classifier: keras.Model,
    ball: Ball,
    *,
    base: str | Callable[..., RobustModel],
    strategy: str = "msd",
    **options: Any,
) -> RobustModel:
    """Trains another defense against several norms at once: its loss, on the worst of the balls.

    The attack keeps the base's objective, initialization and number of steps. Validation attacks in
    each ball: its `val_robust_accuracy` is that in the union.

    Args:
        ball: the threat model, a `keras_robust.UnionBall`; a step size is a fraction of each
            radius.
        base: a defense whose attack is PGD, or its name, such as `"pgd_at"`, `"trades"`, `"mart"`.
        strategy: `"msd"`, `"max"` or `"average"`: see `keras_robust.attacks.union_pgd`.
        **options: options of the base, such as `beta`, `steps`, `step_size`.

    Raises:
        TypeError: base is not a defense, or ball not a union.
        ValueError: another strategy, a base whose attack is not PGD, or what the base refuses.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> ball = kr.UnionBall((kr.LinfBall(0.3), kr.L2Ball(2.0), kr.L1Ball(10.0)))
        >>> model = union(classifier, ball, base="trades", steps=40, step_size=0.1)
        >>> model.attack.name, model.validation_attack.name
        ('MSD-40', 'PGD-40 in each ball')

    Reference: Tramer and Boneh, "Adversarial Training and Robustness for Multiple Perturbations"
    (2019); Maini et al., "Adversarial Robustness Against the Union of Multiple Perturbation Models"
    (2020).
    """
    if not isinstance(ball, UnionBall):
        raise TypeError(
            f"union: ball is {ball!r}; expected a union of several, such as "
            "`keras_robust.UnionBall((LinfBall(0.3), L2Ball(2.0)))`."
        )
    base = defense_factory.get(base)
    model = base(classifier, ball, **options)
    name = getattr(base, "__name__", str(base))
    if type(model).craft is not RobustModel.craft:
        raise ValueError(
            f"union: the base {name!r} has a way of its own to craft, which the union would not "
            "change; expected a base such as pgd_at, trades or mart."
        )
    validation = options.get("validation_attack")
    return model.rebuilt(
        attack=_in_union(name, model.attack, strategy),
        validation_attack=validation or _in_union(name, model.validation_attack, "max"),
    )


def _in_union(base: str, attack: Attack | None, strategy: str) -> Attack:
    try:
        return as_union(attack, strategy)
    except ValueError as error:
        raise ValueError(f"union over {base}: {error}") from error
