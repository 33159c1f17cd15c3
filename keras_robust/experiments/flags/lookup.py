"""Checks of options and numbers that users type."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from keras_robust.core.validation import did_you_mean


def check_options(
    kind: str,
    name: str,
    function: Callable[..., Any],
    skip: int,
    options: Iterable[str],
) -> None:
    """Raises unless each option is an argument of a function.

    Args:
        kind: the kind of function, for the message.
        name: its name, for the message.
        function: takes the options as arguments.
        skip: number of leading arguments that are not options.
        options: the names received.

    Raises:
        ValueError: an unknown option; the message lists the valid ones.

    Example:
        >>> check_options("defense", "f", lambda classifier, beta: None, 1, ["beta"])
    """
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    valid = [p.name for p in parameters if p.name != "seed" and p.kind != p.VAR_KEYWORD]
    for option in options:
        if option not in valid:
            there = did_you_mean(option, valid) if valid else "none."
            raise ValueError(f"The {kind} {name!r} has no option {option!r}; there are {there}")


def number(kind: str, value: Any) -> float:
    """A number as typed in a shell, where it may be a fraction.

    Args:
        kind: the kind of number, for the message.
        value: a number, or text such as `"0.3"` or `"8/255"`.

    Raises:
        ValueError: not a number.

    Example:
        >>> number("radius", "8/255") == 8 / 255
        True
    """
    try:
        parts = [float(part) for part in str(value).split("/", 1)]
        return parts[0] / parts[1] if len(parts) == 2 else parts[0]
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"{value!r} is not a {kind}; expected a number such as 0.3, or a fraction such as "
            "8/255."
        ) from None
