"""Attacks by name, with the settings that the programs have flags for."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.core.types import Ball, Objective
from keras_robust.core.validation import lookup
from keras_robust.experiments.flags.lookup import check_options, number

MULTI_TARGETED = "multi_targeted"  # PGD towards every class but the label
MULTI_TASK = "multi_task"
_OF_THEIR_OWN = ("auto_attack",)  # restarts
_FIXED = {("steps", "auto_attack")}  # published results take 100
LOSSES = ("cross_entropy", "margin", "dlr", "kl")
# What one climbs who knows the score of a run's detector; see `Opened.attack`.
DETECTOR_AWARE = "detector_aware"
TASKS = ("members", "universal", "transformations")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a user can set of an attack; each attack takes what it has.

    Args:
        steps: of iterated attacks; None for the attack's own.
        step_size: in units of the [0, 1] pixel range; None for the attack's own.
        restarts: how often attacks with a random start are repeated.
        loss: what is climbed, one of `LOSSES`, or an objective; None for the attack's own.
        queries: of attacks by random search; None for the attack's own.
        tasks: what one perturbation is to fool, one of `TASKS`.
        group: how many images share a universal perturbation; None for a batch.
        stochastic: whether the strength of transformations is drawn in each step.
        solver: what weighs the tasks' gradients, one of `keras_robust.solvers.NAMES`, with settings
            as in `task_oriented:lam=10:balance=20`.
    """

    steps: int | None = 20
    step_size: float | None = None
    restarts: int = 1
    loss: str | Objective | None = None
    queries: int | None = None
    tasks: str = "members"
    group: int | None = None
    stochastic: bool = False
    solver: str = "task_oriented"


def from_recipe(config: ConfigDict, name: str) -> Settings:
    """The settings of a recipe's evaluation, as far as they are meant for an attack of that name.

    A recipe's number of steps is of attacks that follow the gradient by steps of one length. Others
    need another one altogether: twenty steps of a random walk lead nowhere.
    """
    evaluation = config.evaluation
    own = name in names() and name != MULTI_TARGETED and "step_size" not in _parameters(name)
    steps = None if own else evaluation.steps
    return Settings(steps, evaluation.step_size, evaluation.restarts)


def names() -> tuple[str, ...]:
    """The names of the attacks: those that are made of a ball, and `multi_targeted`.

    Example:
        >>> "pgd" in names()
        True
    """
    factories = (name for name in kr.attacks.__all__ if _first(name) == "ball")
    return (*factories, MULTI_TARGETED)


def _first(name: str) -> str | None:
    return next(iter(_parameters(name)), None)


def _parameters(name: str) -> tuple[str, ...]:
    factory = getattr(kr.attacks, name)
    return tuple(inspect.signature(factory).parameters) if callable(factory) else ()


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
    if lookup("attack", name, names()) == MULTI_TARGETED:
        if targeted:
            raise ValueError(f"{MULTI_TARGETED} chooses its targets itself; give no target.")
        return kr.attacks.multi_targeted(attack("pgd", ball, settings, targeted=True))
    factory = getattr(kr.attacks, name)
    has = _parameters(name)
    given: dict[str, Any] = {"step_size": settings.step_size}
    for setting in ("steps", "queries"):
        if getattr(settings, setting) is not None and (setting, name) not in _FIXED:
            given[setting] = getattr(settings, setting)
    if settings.loss is not None:
        named = isinstance(settings.loss, str)
        given["loss"] = lookup("loss", settings.loss, LOSSES) if named else settings.loss
    if name == MULTI_TASK:
        given |= {"tasks": tasks(settings), "solver": _solver(settings)}
    if targeted:
        given["targeted"] = True
        if "targeted" not in has:
            raise ValueError(f"The attack {name!r} has no targets.")
    if "restarts" in has:  # it repeats itself, in its own way
        given["restarts"] = settings.restarts
    made = factory(ball, **{key: value for key, value in given.items() if key in has})
    if "restarts" in has:
        return made
    if settings.restarts != 1 and made.is_random and name not in _OF_THEIR_OWN:
        return kr.attacks.restarts(made, settings.restarts)
    return made


def tasks(settings: Settings) -> Any:
    """What one perturbation is to fool: of `keras_robust.tasks`.

    Args:
        settings: of these, `tasks`, `group` and `stochastic`.

    Returns:
        The kind of tasks; transformations are those of `keras_robust.transforms.ALL`.

    Raises:
        ValueError: there are no such tasks, or a setting is of others.

    Example:
        >>> tasks(Settings(tasks="universal", group=12))
        Universal(group=12)
    """
    name = lookup("kind of tasks", settings.tasks, TASKS)
    if settings.group is not None and name != "universal":
        raise ValueError(f"A group is of the tasks 'universal'; the tasks are {name!r}.")
    if settings.stochastic and name != "transformations":
        raise ValueError(f"Strengths are drawn of 'transformations'; the tasks are {name!r}.")
    if name == "transformations":
        return kr.tasks.Transformations(kr.transforms.ALL, settings.stochastic)
    return kr.tasks.Universal(settings.group) if name == "universal" else kr.tasks.Members()


def _solver(settings: Settings) -> Any:
    """A solver from its name, or from its name with settings: `task_oriented:lam=10:balance=20`."""
    if settings.restarts != 1:
        raise ValueError(
            f"{MULTI_TASK} is not repeated: of several results the worst of each image would be "
            "kept, by the model as a whole and not by the tasks. Leave restarts at 1."
        )
    name, *given = settings.solver.split(":")
    solver = kr.solvers.NAMES[lookup("solver", name, kr.solvers.NAMES)]
    options = dict(option.partition("=")[::2] for option in given)
    check_options("solver", name, solver, 0, options)
    usual = solver()
    return solver(**{key: _like(getattr(usual, key), key, text) for key, text in options.items()})


def _like(usual: Any, name: str, text: str) -> Any:
    """A setting as typed, of the type that it usually is of."""
    if isinstance(usual, bool):
        return lookup(name, text.lower(), ("true", "false")) == "true"
    if isinstance(usual, int):
        return int(number(name, text))
    return number(name, text) if isinstance(usual, float) else text
