"""Builds attacks from names and options."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import keras_robust as kr
from keras_robust.core.types import Ball, Solver
from keras_robust.core.validation import check_integer, check_number, did_you_mean, lookup
from keras_robust.experiments.flags.lookup import check_options, number
from keras_robust.experiments.recipes.attack_spec import attack_spec

MULTI_TARGETED = "multi_targeted"  # an attack, by default PGD, toward every class but the label
MULTI_TASK = "multi_task"
# Attacks that restarts do not apply to: one has a schedule of its own; of several results of the
# other, the worst image by image would be kept by the whole model and not by the tasks.
_NOT_REPEATED = ("auto_attack", MULTI_TASK)
# Options that only the attack's own specification sets: published AutoAttack takes 100 steps,
# whatever the others take.
_NOT_SHARED = {("auto_attack", "steps")}
LOSSES = ("cross_entropy", "margin", "dlr", "kl")
# The loss of an adaptive attack on a run with a detector; see `LoadedRun.attack`.
DETECTOR_AWARE = "detector_aware"
TASKS = ("members", "universal", "transformations")
# Attacks that are built in a union of balls; of all others, one in each of the balls.
_IN_UNION = ("union_pgd", MULTI_TASK)


def names() -> tuple[str, ...]:
    """The names of the attacks: the factories that take a ball, and `multi_targeted`.

    Example:
        >>> "pgd" in names()
        True
    """
    factories = (name for name in kr.attacks.__all__ if _parameters(name)[:1] == ("ball",))
    return (*factories, MULTI_TARGETED)


def _parameters(name: str) -> tuple[str, ...]:
    return tuple(inspect.signature(getattr(kr.attacks, name)).parameters)


def option_names(name: str, repeated: str = "pgd") -> tuple[str, ...]:
    """The options of an attack: arguments of its factory, and `restarts` if it is random.

    Args:
        name: the attack.
        repeated: of `multi_targeted`, the attack that it repeats, whose options it takes.

    Raises:
        ValueError: an unknown attack.

    Example:
        >>> option_names("fgsm"), "restarts" in option_names("pgd")
        (('loss',), True)
    """
    if lookup("attack", name, names()) == MULTI_TARGETED:
        return (*option_names(_targetable(repeated)), *_parameters(MULTI_TARGETED))
    own = tuple(option for option in _parameters(name)[1:] if option != "targeted")
    if name == MULTI_TASK:
        own += ("group", "stochastic")
    if "restarts" in own or name in _NOT_REPEATED:
        return own
    return (*own, "restarts") if _example(name).is_random else own


def _example(name: str) -> kr.Attack:
    """An attack with its default settings, in a norm in which it is defined."""
    factory = getattr(kr.attacks, name)
    for ball in (kr.L2Ball(1.0), kr.L0Ball(1.0)):
        try:
            return factory(ball)
        except TypeError:  # another norm
            continue
    return factory(kr.LinfBall(1.0))


def _targetable(name: str) -> str:
    """Returns the name of an attack that `multi_targeted` can repeat; raises for others."""
    factories = [name for name in names() if name != MULTI_TARGETED]
    return lookup(
        "targeted attack", name, [one for one in factories if "targeted" in _parameters(one)]
    )


def check(name: str, options: Iterable[str]) -> None:
    """Raises unless an attack takes all options.

    Args:
        name: the attack.
        options: names of options, or the options; the attack that `multi_targeted` repeats is
            `options["attack"]`.

    Raises:
        ValueError: an unknown attack, or an option that it does not take; the message names those
            that it takes.

    Example:
        >>> check("fgsm", ["steps", "queries"])
        Traceback (most recent call last):
        ...
        ValueError: The attack 'fgsm' does not take steps, queries; it takes loss.
    """
    repeated = options.get("attack", "pgd") if isinstance(options, Mapping) else "pgd"
    valid = option_names(name, repeated)
    unknown = [option for option in options if option not in valid]
    if unknown:
        raise ValueError(
            f"The attack {name!r} does not take {', '.join(unknown)}; it takes "
            f"{did_you_mean(unknown[0], valid)}"
        )


def taken(attacks: Iterable[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Options that are given for several attacks at once, divided among those that take them.

    Args:
        attacks: names of attacks.
        options: the options.

    Returns:
        For each attack the options that it takes.

    Raises:
        ValueError: an unknown attack, or an option that none of the attacks takes.

    Example:
        >>> taken(["pgd", "fgsm", "auto_attack"], {"steps": 3})
        {'pgd': {'steps': 3}, 'fgsm': {}, 'auto_attack': {}}
    """
    valid = {
        name: tuple(option for option in option_names(name) if (name, option) not in _NOT_SHARED)
        for name in attacks
    }
    for option in options:
        if not any(option in there for there in valid.values()):
            takes = "; ".join(f"{name} takes {', '.join(there)}" for name, there in valid.items())
            raise ValueError(f"None of the attacks takes {option}: {takes}.")
    return {
        name: {key: value for key, value in options.items() if key in there}
        for name, there in valid.items()
    }


def build_attack(
    name: str, ball: Ball, options: Mapping[str, Any], *, targeted: bool = False
) -> kr.Attack:
    """Builds an attack.

    Args:
        name: one of `names()`.
        ball: the threat model; in a union, the attack in each ball, except for `union_pgd`.
        options: of `option_names(name)`. `loss` is one of `LOSSES` or an objective. Of
            `multi_task`, `tasks`, `group` and `stochastic` are as for `build_tasks`, and `solver`
            as for `build_solver`. `attack` of `multi_targeted` is the name of an attack, by default
            `"pgd"`. `start`, of attacks that walk along a decision boundary, is an attack as in
            `"pgd+steps=20+step_size=2/255+radius=16/255"`; its radius is by default the ball's.
        targeted: whether it moves toward given classes.

    Returns:
        The attack.

    Raises:
        ValueError: an unknown attack, an option that it does not take, or an invalid value.

    Example:
        >>> build_attack("pgd", kr.LinfBall(0.1), {"steps": 5}).gradient_steps
        5
    """
    check(name, options)
    if isinstance(ball, kr.UnionBall) and name not in _IN_UNION:
        return _in_each_ball(name, ball, options, targeted)
    arguments = dict(options)
    for key in ("steps", "queries", "restarts"):
        if key in arguments:
            check_integer(f"{name}: {key}", arguments[key])
    if arguments.get("step_size") is not None:
        check_number(f"{name}: step_size", arguments["step_size"])
    if isinstance(arguments.get("loss"), str):
        lookup("loss", arguments["loss"], LOSSES)
    if name == MULTI_TASK:
        kind = {key: arguments.pop(key) for key in ("tasks", "group", "stochastic")
                if key in arguments}  # fmt: skip
        arguments["tasks"] = build_tasks(**kind)
        arguments["solver"] = build_solver(arguments.get("solver", "task_oriented"))
    if isinstance(arguments.get("start"), str):
        arguments["start"] = _start(ball, arguments["start"])
    own = _parameters(name)
    count = 1 if "restarts" in own else arguments.pop("restarts", 1)
    try:
        if name == MULTI_TARGETED:
            attack = _multi_targeted(ball, arguments, targeted)
        else:
            attack = getattr(kr.attacks, name)(ball, **arguments, **_targeted(name, targeted))
        return attack if count == 1 else kr.attacks.restarts(attack, count)
    except TypeError as error:  # such as an option that stands for an object
        raise ValueError(f"The attack {name!r}: {error}") from error


def _in_each_ball(
    name: str, ball: kr.UnionBall, options: Mapping[str, Any], targeted: bool
) -> kr.Attack:
    if targeted:
        raise ValueError(
            f"The attack {name!r} keeps the worst of the balls of a union for the true label, and "
            "cannot be targeted in it; use 'union_pgd', or one of the norms."
        )
    size = options.get("step_size")
    check_number(f"{name}: step_size", 0 if size is None else size)
    return kr.attacks.in_each_ball(
        lambda own, **sized: build_attack(name, own, {**options, **sized}),
        ball,
        **({} if size is None else {"step_size": size}),
    )


def _targeted(name: str, targeted: bool) -> dict[str, bool]:
    if targeted and "targeted" not in _parameters(name):
        raise ValueError(f"The attack {name!r} cannot be targeted; give no target.")
    return {"targeted": True} if targeted else {}


def _multi_targeted(ball: Ball, options: Mapping[str, Any], targeted: bool) -> kr.Attack:
    if targeted:
        raise ValueError(f"{MULTI_TARGETED} chooses its targets itself; give no target.")
    own = {key: options[key] for key in _parameters(MULTI_TARGETED)[1:] if key in options}
    inner = {key: value for key, value in options.items() if key not in (*own, "attack")}
    attack = build_attack(options.get("attack", "pgd"), ball, inner, targeted=True)
    return kr.attacks.multi_targeted(attack, **own)


def _start(ball: Ball, text: str) -> kr.Attack:
    """The attack that provides a starting point, such as `pgd+steps=20+radius=16/255`."""
    spec = attack_spec(text.replace("+", ":"))
    options = dict(spec["options"])
    if "radius" in options:
        radius = options.pop("radius")
        check_number("start: radius", radius)
        ball = ball.replace(radius=radius)
    return build_attack(spec["name"], ball, options)


def build_tasks(
    tasks: str = "members", group: int | None = None, stochastic: bool = False
) -> kr.tasks.TaskKind:
    """Builds the tasks of a perturbation, of `keras_robust.tasks`.

    Args:
        tasks: one of `TASKS`.
        group: how many images share a universal perturbation; None for a batch.
        stochastic: whether each step draws the strength of the transformations.

    Returns:
        The tasks; transformations are those of `keras_robust.transforms.ALL`.

    Raises:
        ValueError: unknown tasks, or an option of other tasks.

    Example:
        >>> build_tasks("universal", group=12)
        Universal(group=12)
    """
    name = lookup("kind of tasks", tasks, TASKS)
    if group is not None and name != "universal":
        raise ValueError(f"group is an option of the tasks 'universal'; the tasks are {name!r}.")
    if stochastic and name != "transformations":
        raise ValueError(
            f"stochastic is an option of the tasks 'transformations'; the tasks are {name!r}."
        )
    if name == "transformations":
        return kr.tasks.Transformations(kr.transforms.ALL, stochastic)
    return kr.tasks.Universal(group) if name == "universal" else kr.tasks.Members()


def build_solver(text: str) -> Solver:
    """Builds a solver from its name, or its name and options.

    Args:
        text: one of `keras_robust.solvers.NAMES`, or as in `task_oriented:lam=10:balance=20`;
            initial weights as in `min_norm:initial=0.2+0.3+0.5`.

    Raises:
        ValueError: an unknown solver or option, or an invalid value.

    Example:
        >>> build_solver("min_norm:exact=true").exact
        True
    """
    name, *given = text.split(":")
    solver = kr.solvers.NAMES[lookup("solver", name, kr.solvers.NAMES)]
    options = dict(option.partition("=")[::2] for option in given)
    check_options("solver", name, solver, 0, options)
    default = solver()
    return solver(**{key: _like(getattr(default, key), key, text) for key, text in options.items()})


def _like(default: Any, name: str, text: str) -> Any:
    """The typed value of an option, of the type of its default; without one, numbers in a tuple."""
    if default is None:
        return tuple(number("number", part) for part in text.split("+"))
    if isinstance(default, bool):
        return lookup(name, text.lower(), ("true", "false")) == "true"
    if isinstance(default, int):
        return int(number(name, text))
    return number(name, text) if isinstance(default, float) else text
