"""Validated fields of results, as plain Python values."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from keras_robust.core.validation import check_integer, check_number, is_number


def set_fields(part: Any, **values: Any) -> None:
    """Sets validated fields of a frozen dataclass from its `__post_init__`."""
    for name, value in values.items():
        object.__setattr__(part, name, value)


def check_fields(part: Any, **checks: Callable[[str, Any], Any]) -> None:
    """Replaces fields of a frozen dataclass by what their checks, functions below, return."""
    set_fields(part, **{name: check(name, getattr(part, name)) for name, check in checks.items()})


def finite(name: str, value: Any) -> float:
    """`value` as a finite Python float."""
    if not (is_number(value) and abs(value) < math.inf and abs(value) <= sys.float_info.max):
        raise ValueError(f"{name} is {value!r}; expected a finite number.")
    return float(value)


def nonnegative(name: str, value: Any) -> float:
    """`value` as a finite Python float >= 0."""
    check_number(name, value)
    return float(value)


def fraction(name: str, value: Any) -> float:
    """`value` as a Python float in [0, 1]."""
    check_number(name, value, 0, 1, hint=" (a fraction, not a percentage)")
    return float(value)


def integer(name: str, value: Any, least: int = 0) -> int:
    """`value` as a Python int >= `least`."""
    check_integer(name, value, least)
    return int(value)


def text(name: str, value: Any) -> str:
    """`value`, a string."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}; expected a string.")
    return value


def truth(name: str, value: Any) -> bool:
    """`value` as a Python bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} is {value!r}; expected true or false.")
    return bool(value)


def sequence(name: str, values: Any) -> tuple[Any, ...]:
    """`values` as a tuple; a string is not one."""
    if isinstance(values, (str, bytes, dict)) or not isinstance(values, Iterable):
        raise ValueError(f"{name} is {values!r}; expected several values.")
    return tuple(values)


def strings(name: str, values: Any) -> tuple[str, ...]:
    """`values` as a tuple of strings."""
    return tuple(str(value) for value in sequence(name, values))
