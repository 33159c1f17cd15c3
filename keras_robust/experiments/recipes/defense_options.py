"""Arguments of a defense from the names and numbers of a recipe."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras_robust as kr
from keras_robust.core.validation import check_number, did_you_mean, lookup
from keras_robust.experiments.flags.lookup import check_options, number

# Parameters of defenses that are objects, or that a recipe holds elsewhere.
_NOT_OPTIONS = ("classifier", "ball", "base", "dual", "seed", "name", "validation_attack")
_DUAL = {f"dual_{field.name}": field.name for field in dataclasses.fields(kr.DualVariable)}
# Options that recipes of release 0.1 hold under other names.
_FORMER_OPTIONS = {
    "confidence": "confidence_weight",
    "dual_rate": "dual_learning_rate",
    "dual_start": "dual_initial_value",
    "global_": "global_weight",
    "local": "local_weight",
    "pull": "penalty",
    "smoothness": "smoothness_weight",
}
AUGMENTATIONS: dict[str, Callable[..., kr.data.Augmentation]] = {
    "pad_crop_flip": kr.data.pad_crop_flip,
    "shift_flip": kr.data.shift_flip,
    "shift": functools.partial(kr.data.shift_flip, flip=False),  # for digits
}
RADIUS_SCHEDULES: dict[str, type[kr.training.RadiusSchedule]] = {
    "linear": kr.training.LinearRadius,
    "random": kr.training.RandomRadius,
}
# Options that are objects: text of a recipe says which.
_FROM_TEXT: dict[str, tuple[str, Mapping[str, Callable[..., Any]]]] = {
    "radius_schedule": ("radius schedule (defense.options.radius_schedule)", RADIUS_SCHEDULES),
    "mixing": (
        "mixing (defense.options.mixing)",
        {"cutmix": kr.data.cutmix, "mixup": kr.data.mixup},
    ),
}


def defenses() -> tuple[str, ...]:
    """The names of the defenses.

    Example:
        >>> "trades" in defenses()
        True
    """
    return tuple(kr.defenses.__all__)


def bases() -> tuple[str, ...]:
    """The names of the defenses that another one can be built over."""
    return tuple(name for name in defenses() if "base" not in _parameters(name))


def resolved(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a defense that a recipe's options stand for.

    `weight_perturbation` is AWP's gamma, 0 for none; `radius_schedule` is text such as
    `random:low=0.01:high=0.05` or `linear:start=8/255:end=16/255:steps=1000`; `mixing` is `cutmix`
    or `mixup`, or text such as `cutmix:alpha=0.5`; `base` is the name of a defense; `augment` is
    one of `AUGMENTATIONS`; `helper` is a `.keras` file, which is not read here; `dual_FIELD` is a
    field of `keras_robust.DualVariable`.

    Args:
        name: the defense.
        options: the options of a recipe.

    Returns:
        Arguments by name, without classifier, ball and seed.

    Raises:
        ValueError: an unknown defense, option or base, or an invalid value.

    Example:
        >>> resolved("pgd_at", {"steps": 3, "weight_perturbation": 0.01})
        {'steps': 3, 'weight_perturbation': AWP(gamma=0.01)}
    """
    arguments = dict(options)
    valid, described = _options(lookup("defense", name, defenses())), name
    if "base" in _parameters(name):
        if "base" not in arguments:
            raise ValueError(
                f"The defense {name!r} needs the option 'base': one of {', '.join(bases())}."
            )
        base = lookup(f"base of {name}", arguments["base"], bases())
        valid, described = ["base", *_options(base), *valid], f"{name} over {base}"
    for option in options:
        current = _FORMER_OPTIONS.get(option)
        if current in valid and current not in arguments:
            arguments[current] = arguments.pop(option)
    if "multiplier" in arguments and "gamma" in valid and "gamma" not in arguments:
        # WRM of release 0.1 subtracted `multiplier * |d|^2 / 2`, the paper `gamma * |d|^2`.
        price = arguments.pop("multiplier")
        check_number("wrm: multiplier", price)
        arguments["gamma"] = price / 2
    for option in arguments:
        if option not in valid:
            raise ValueError(
                f"The defense {described!r} has no option {option!r}; there are "
                f"{did_you_mean(option, valid)}"
            )
    dual = {_DUAL[key]: arguments.pop(key) for key in list(arguments) if key in _DUAL}
    if dual:
        arguments["dual"] = kr.DualVariable(**dual)
    if "augment" in arguments:
        arguments["augment"] = AUGMENTATIONS[
            lookup("augmentation", arguments["augment"], AUGMENTATIONS)
        ]()
    for option, (kind, choices) in _FROM_TEXT.items():
        if arguments.get(option):
            arguments[option] = from_text(kind, choices, arguments[option])
    gamma = arguments.pop("weight_perturbation", 0)
    return arguments | ({"weight_perturbation": kr.AWP(gamma)} if gamma else {})


def from_text(kind: str, choices: Mapping[str, Callable[..., Any]], text: str) -> Any:
    """The object that a text such as `linear:start=0:end=1/4:steps=100` stands for.

    Args:
        kind: what it is, for messages.
        choices: name -> a function of numbers.
        text: the name of a choice, and its arguments.

    Raises:
        ValueError: an unknown name or argument, a missing one, or an invalid value.

    Example:
        >>> from_text("radius schedule", RADIUS_SCHEDULES, "linear:start=0:end=1/4:steps=100")
        LinearRadius(start=0, end=0.25, steps=100, delay=0)
    """
    name, *given = str(text).split(":")
    choice = choices[lookup(kind, name, choices)]
    values = {key: number(key, value) for key, _, value in (one.partition("=") for one in given)}
    check_options(kind, name, choice, 0, values)
    try:
        return choice(**{key: int(v) if v == int(v) else v for key, v in values.items()})
    except TypeError as error:  # a missing one
        raise ValueError(f"The {kind} {text!r}: {error}") from error


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(getattr(kr.defenses, name)).parameters


def _options(name: str) -> list[str]:
    """The options of a defense that a recipe may hold."""
    parameters = _parameters(name)
    own = [p.name for p in parameters.values() if p.kind == p.KEYWORD_ONLY]
    learned = _DUAL if "dual" in parameters else ()
    return [*(option for option in own if option not in _NOT_OPTIONS), *learned]
