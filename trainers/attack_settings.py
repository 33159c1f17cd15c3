"""Attacks by name, with the settings that the programs have flags for."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.types import Ball
from trainers.names import chosen

MULTI_TARGETED = "multi_targeted"  # PGD towards every class but the label
LOSSES = ("cross_entropy", "margin", "dlr", "kl")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a user can set of an attack; each attack takes what it has.

    Args:
        steps: of iterated attacks.
        step_size: in units of the [0, 1] pixel range; None for the attack's own.
        restarts: how often attacks with a random start are repeated.
        loss: what is climbed, one of `LOSSES`.
    """

    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    loss: str = "cross_entropy"


def from_recipe(config: ConfigDict) -> Settings:
    """The settings of a recipe's evaluation."""
    evaluation = config.evaluation
    return Settings(evaluation.steps, evaluation.step_size, evaluation.restarts)


def names() -> tuple[str, ...]:
    """The names of the attacks: those that are made of a ball, and `multi_targeted`.

    Example:
        >>> "pgd" in names()
        True
    """
    factories = (name for name in kr.attacks.__all__ if _first(name) == "ball")
    return (*factories, MULTI_TARGETED)


def _first(name: str) -> str | None:
    factory = getattr(kr.attacks, name)
    if not inspect.isfunction(factory):
        return None
    return next(iter(inspect.signature(factory).parameters), None)


def attack(name: str, ball: Ball, settings: Settings, *, targeted: bool = False) -> kr.Attack:
    """An attack.

    Args:
        name: one of `names()`.
        ball: the threat model.
        settings: of these, the attack takes what it has.
        targeted: whether it climbs towards given classes.

    Returns:
        The attack.

    Raises:
        ValueError: there is no such attack, or it refuses a setting.

    Example:
        >>> attack("pgd", kr.LinfBall(0.1), Settings(steps=5)).steps
        5
    """
    if chosen("attack", name, names()) == MULTI_TARGETED:
        if targeted:
            raise ValueError(f"{MULTI_TARGETED} chooses its targets itself; give no target.")
        return kr.attacks.multi_targeted(attack("pgd", ball, settings, targeted=True))
    factory = getattr(kr.attacks, name)
    has = inspect.signature(factory).parameters
    given: dict[str, Any] = {"steps": settings.steps, "step_size": settings.step_size}
    given["loss"] = chosen("loss", settings.loss, LOSSES)
    if targeted:
        given["targeted"] = True
        if "targeted" not in has:
            raise ValueError(f"The attack {name!r} has no targets.")
    if "restarts" in has:  # it repeats itself, in its own way
        given["restarts"] = settings.restarts
    made = factory(ball, **{key: value for key, value in given.items() if key in has})
    if "restarts" in has:
        return made
    # Repeating an attack that always starts at the image itself would repeat its result.
    random = not isinstance(getattr(made, "start", None), kr.starts.Clean)
    if settings.restarts != 1 and random:
        return kr.attacks.restarts(made, settings.restarts)
    return made
