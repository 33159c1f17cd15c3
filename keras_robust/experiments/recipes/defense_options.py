"""A defense from the names and numbers of a recipe, some of which stand for objects."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras_robust as kr
from keras_robust.core.validation import lookup
from keras_robust.experiments.flags.lookup import check_options

# Options of every defense.
CRAFTING = (
    "crafting_mode",
    "crafting_dtype",
    "radius_warmup",
    "microbatches",
    "weight_perturbation",
)
AUGMENTATIONS: dict[str, Callable[..., kr.data.Augmentation]] = {
    "pad_crop_flip": kr.data.pad_crop_flip,
    "shift_flip": kr.data.shift_flip,
    "shift": functools.partial(kr.data.shift_flip, flip=False),  # for digits
}
_DUAL = {f"dual_{field.name}": field.name for field in dataclasses.fields(kr.DualVariable)}


def defenses() -> tuple[str, ...]:
    """The names of the defenses.

    Example:
        >>> "trades" in defenses()
        True
    """
    return tuple(
        name
        for name in kr.defenses.__all__
        if inspect.isfunction(getattr(kr.defenses, name))
        and next(iter(inspect.signature(getattr(kr.defenses, name)).parameters)) == "classifier"
    )


def bases() -> tuple[str, ...]:
    """The defenses that another one can be built over."""
    return tuple(name for name in defenses() if not _takes_a_base(name))


def resolved(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a defense that a recipe's options mean.

    `weight_perturbation` is AWP's gamma, 0 for none; `base` is the name of a defense; `augment` is
    one of `AUGMENTATIONS`; `dual_start`, `dual_rate` and so on are the fields of
    `keras_robust.DualVariable`.

    Args:
        name: of the defense.
        options: as a recipe holds them.

    Returns:
        Arguments by name, without classifier, ball and seed.

    Raises:
        ValueError: no such defense, option or base; an option that cannot be.

    Example:
        >>> resolved("pgd_at", {"steps": 3, "weight_perturbation": 0.01})
        {'steps': 3, 'weight_perturbation': AWP(gamma=0.01)}
    """
    factory = getattr(kr.defenses, lookup("defense", name, defenses()))
    arguments = dict(options)
    if _takes_a_base(name):
        if "base" not in arguments:
            raise ValueError(
                f"The defense {name!r} needs the option 'base': one of {', '.join(bases())}."
            )
        base = lookup(f"base of {name}", arguments.pop("base"), bases())
        learned = _DUAL if "dual" in inspect.signature(factory).parameters else {}
        own = [*_own_options(factory), *learned]
        passed = [option for option in arguments if option not in own]
        check_options(
            "defense",
            f"{name} over {base}",
            getattr(kr.defenses, base),
            2,
            passed,
            (*CRAFTING, *own),
        )
        dual = {_DUAL[key]: arguments.pop(key) for key in list(arguments) if key in _DUAL}
        arguments = {**arguments, "base": getattr(kr.defenses, base)}
        if dual:
            arguments["dual"] = kr.DualVariable(**dual)
    else:
        check_options("defense", name, factory, 2, arguments, CRAFTING)
    if "augment" in arguments:
        arguments["augment"] = AUGMENTATIONS[
            lookup("augmentation", arguments["augment"], AUGMENTATIONS)
        ]()
    gamma = arguments.pop("weight_perturbation", 0)
    return arguments | ({"weight_perturbation": kr.AWP(gamma)} if gamma else {})


def _takes_a_base(name: str) -> bool:
    return "base" in inspect.signature(getattr(kr.defenses, name)).parameters


def _own_options(factory: Any) -> list[str]:
    """The options of a defense over another one that are no object."""
    parameters = list(inspect.signature(factory).parameters.values())[2:]
    return [
        p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.name not in ("base", "dual")
    ]
