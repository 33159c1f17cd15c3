"""Recipes by name: `<data>/<defense>`, and `thesis/<chapter>/<setting>/<defense>`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

from ml_collections import ConfigDict

from keras_robust.core.validation import lookup
from trainers.recipes import (
    cifar10,
    cifar10_small,
    digits,
    digits_backbone,
    mnist,
    mnist_hour,
    mnist_thesis,
    toy,
)
from trainers.recipes.thesis import adr, ascl, cce, ta_moo, udr


class Family(NamedTuple):
    """Recipes that differ in the defense."""

    defenses: tuple[str, ...]
    get_config: Callable[[str], ConfigDict]


_DATA: dict[str, ModuleType] = {
    "digits": digits,
    "digits_backbone": digits_backbone,
    "toy": toy,
    "mnist": mnist,
    "mnist_hour": mnist_hour,
    "mnist_thesis": mnist_thesis,
    "cifar10": cifar10,
    "cifar10_small": cifar10_small,
}
_CHAPTERS: dict[str, ModuleType] = {
    "adr": adr,
    "ascl": ascl,
    "cce": cce,
    "ta_moo": ta_moo,
    "udr": udr,
}
FAMILIES = {name: Family(module.DEFENSES, module.get_config) for name, module in _DATA.items()} | {
    f"thesis/{name}/{setting}": Family(defenses, functools.partial(module.get_config, setting))
    for name, module in _CHAPTERS.items()
    for setting, defenses in module.SETTINGS.items()
}


def names(start: str = "") -> tuple[str, ...]:
    """The names of all recipes.

    Args:
        start: only those that start with this.

    Example:
        >>> names()[:2]
        ('digits/standard', 'digits/pgd_at')
        >>> len(names("thesis/adr/mnist_cnn/"))
        5
    """
    found = (f"{name}/{one}" for name, family in FAMILIES.items() for one in family.defenses)
    return tuple(name for name in found if name.startswith(start))


def listing() -> str:
    """The names of all recipes as a text; those of the thesis in short.

    Example:
        >>> listing().split(", ")[-2]
        'thesis/udr/cifar100_resnet18_eps8/{standard,pgd_at,trades,mart,udr_pgd_at,udr_trades,udr_mart}'
    """
    short = [
        f"{name}/{{{','.join(family.defenses)}}}"
        for name, family in FAMILIES.items()
        if name.startswith("thesis/")
    ]
    return ", ".join([*(name for name in names() if not name.startswith("thesis/")), *short])


def load(name: str) -> ConfigDict:
    """The recipe of a name, with all fields of `schema.defaults`.

    Args:
        name: one of `names()`.

    Returns:
        A recipe that can be changed.

    Raises:
        ValueError: an unknown recipe.

    Example:
        >>> load("mnist/trades").ball.radius
        0.3
    """
    family, _, defense = lookup("recipe", name, _beside(name)).rpartition("/")
    config = FAMILIES[family].get_config(defense)
    config.name = name
    return config


def _beside(name: str) -> tuple[str, ...]:
    """The names among which a name is searched: hundreds in an error would help nobody."""
    parts = str(name).split("/")
    if parts[0] != "thesis":
        return tuple(one for one in names() if not one.startswith("thesis/"))
    starts = ("/".join([*parts[:count], ""]) for count in (3, 2, 1))
    return next(found for found in map(names, starts) if found)
