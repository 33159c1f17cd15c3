"""Recipes by name: `<dataset>/<defense>`, one file per dataset."""

from __future__ import annotations

from types import ModuleType

from ml_collections import ConfigDict

from keras_robust.core.validation import lookup
from trainers.recipes import (
    cifar10,
    cifar10_small,
    digits,
    digits_backbone,
    mnist,
    mnist_thesis,
    toy,
)

FAMILIES: dict[str, ModuleType] = {
    "digits": digits,
    "digits_backbone": digits_backbone,
    "toy": toy,
    "mnist": mnist,
    "mnist_thesis": mnist_thesis,
    "cifar10": cifar10,
    "cifar10_small": cifar10_small,
}


def names() -> tuple[str, ...]:
    """The names of all recipes.

    Example:
        >>> names()[:2]
        ('digits/standard', 'digits/pgd_at')
    """
    return tuple(f"{name}/{defense}" for name, family in FAMILIES.items() for defense in
                 family.DEFENSES)  # fmt: skip


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
    dataset, _, defense = lookup("recipe", name, names()).partition("/")
    config = FAMILIES[dataset].get_config(defense)
    config.name = name
    return config
