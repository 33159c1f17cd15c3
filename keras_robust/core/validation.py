"""Checks of arguments; errors name the argument, what was received and what was expected."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

from keras_robust.core.types import Ball

_LARGEST = 2**63  # integers go into int64 tensors


def check_integer(what: str, value: Any, least: int | None = 0) -> None:
    """Raises ValueError unless `value` is an integer of Python or NumPy, at least `least`.

    Args:
        what: the argument, for the message.
        value: the value received; a boolean is not an integer.
        least: lower bound, or None.

    Example:
        >>> check_integer("Fab: steps", -1)
        Traceback (most recent call last):
        ...
        ValueError: Fab: steps is -1; expected an integer >= 0.
    """
    integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not integer or not (-_LARGEST if least is None else least) <= value < _LARGEST:
        bound = "" if least is None or least < 0 else f" >= {least}"
        raise ValueError(f"{what} is {value!r}; expected an integer{bound}.")


def check_number(
    what: str,
    value: Any,
    least: float = 0.0,
    most: float = math.inf,
    *,
    above: float | None = None,
    below: float | None = None,
    hint: str = "",
) -> None:
    """Raises ValueError unless `value` is a finite real number of Python or NumPy, within bounds.

    Args:
        what: the argument, for the message.
        value: the value received.
        least: inclusive lower bound.
        most: inclusive upper bound.
        above: exclusive lower bound, instead of `least`.
        below: exclusive upper bound, instead of `most`.
        hint: end of the message, such as `" in the units of the images"`.

    Example:
        >>> import numpy as np
        >>> check_number("Trades: beta", np.float32(6))
        >>> check_number("Trades: beta", -1)
        Traceback (most recent call last):
        ...
        ValueError: Trades: beta is -1; expected a finite number >= 0.
        >>> check_number("rate", 1, above=0, below=1)
        Traceback (most recent call last):
        ...
        ValueError: rate is 1; expected a number in (0, 1).
    """
    if is_number(value):
        number = float(value)
        low = number >= least if above is None else number > above
        high = number <= most if below is None else number < below
        if math.isfinite(number) and low and high:
            return
    raise ValueError(f"{what} is {value!r}; expected {_range(least, most, above, below)}{hint}.")


def is_number(value: Any) -> bool:
    """Whether `value` is a real number of Python or NumPy; booleans and tensors are not.

    Example:
        >>> is_number(2), is_number(True), is_number("2")
        (True, False, False)
    """
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _range(least: float, most: float, above: float | None, below: float | None) -> str:
    """The allowed numbers in words."""
    low = f">= {least:g}" if above is None else f"> {above:g}"
    if math.isinf(most) and below is None:
        unbounded = above is None and math.isinf(least)
        return "a finite number" if unbounded else f"a finite number {low}"
    start = f"[{least:g}" if above is None else f"({above:g}"
    end = f"{most:g}]" if below is None else f"{below:g})"
    return f"a number in {start}, {end}"


def check_choice(what: str, value: Any, valid: Iterable[Any]) -> None:
    """Raises ValueError unless `value` is one of the valid values, which the message lists.

    Example:
        >>> check_choice("MinNorm: first_weights", "best", ("solved", "uniform"))
        Traceback (most recent call last):
        ...
        ValueError: MinNorm: first_weights is 'best'; expected one of 'solved', 'uniform'.
    """
    valid = tuple(valid)
    if value not in valid:
        raise ValueError(f"{what} is {value!r}; expected one of {', '.join(map(repr, valid))}.")


def check_ball(ball: Any) -> Any:
    """Raises unless `ball` is a threat model; returns its radius.

    Raises:
        TypeError: anything else, such as a bare number; the message names the members that are
            missing from a ball of the user's own.

    Example:
        >>> from keras_robust import LinfBall
        >>> check_ball(LinfBall(0.25))
        0.25
    """
    # Not isinstance: since Python 3.12 it does not see what `__getattr__` hands on.
    members = [name for name in vars(Ball) if not name.startswith("_")]
    missing = [name for name in members if not hasattr(ball, name)]
    if missing:
        lacks = f", which lacks {', '.join(missing)}" if len(missing) < len(members) else ""
        raise TypeError(
            f"ball is {ball!r}{lacks}; expected a threat model, such as "
            "`keras_robust.LinfBall(8 / 255)`."
        )
    return ball.radius


def check_bounded(owner: str, ball: Any) -> None:
    """Raises ValueError unless the pixels of `ball` have a finite range.

    Args:
        owner: what needs it, for the message.
        ball: the threat model received.

    Example:
        >>> from keras_robust import L2Ball
        >>> check_bounded("The attack", L2Ball(1.0, bounds=(0, math.inf)))
        Traceback (most recent call last):
        ...
        ValueError: The attack needs a finite range of the pixels; ball has the bounds (0, inf). \
Give it the range of your images, such as `bounds=(0, 1)`.
    """
    check_ball(ball)
    if not math.isfinite(ball.bounds[1] - ball.bounds[0]):
        raise ValueError(
            f"{owner} needs a finite range of the pixels; ball has the bounds {ball.bounds}. Give "
            "it the range of your images, such as `bounds=(0, 1)`."
        )


def check_norm(owner: str, ball: Any, orders: Iterable[float]) -> None:
    """Raises unless the norm of `ball` is an Lp norm of one of these orders.

    Args:
        owner: what is defined in these norms only, for the message.
        ball: the threat model received.
        orders: the valid values of `ball.p`, such as `(2, math.inf)`.

    Raises:
        TypeError: a ball in another norm, or not a threat model.

    Example:
        >>> from keras_robust import L1Ball
        >>> check_norm("The attack", L1Ball(1.0), (2, math.inf))
        Traceback (most recent call last):
        ...
        TypeError: The attack is defined in L2 and Linf; ball is L1Ball(radius=1.0, \
bounds=(0.0, 1.0), density=0.05).
    """
    check_ball(ball)
    orders = tuple(orders)
    if ball.p not in orders:
        names = [f"L{order:g}" for order in orders]
        listed = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
        raise TypeError(f"{owner} is defined in {listed}; ball is {ball!r}.")


def lookup(kind: str, name: Any, valid: Iterable[str]) -> str:
    """Returns `name` if it is a valid name.

    Args:
        kind: the kind of object that is named, for the message.
        name: the name received.
        valid: the valid names.

    Raises:
        ValueError: an unknown name; the message lists the valid names and suggests the closest.

    Example:
        >>> lookup("defense", "tradse", ["pgd_at", "trades"])
        Traceback (most recent call last):
        ...
        ValueError: There is no defense 'tradse'; expected one of pgd_at, trades. \
Did you mean 'trades'?
    """
    valid = tuple(valid)
    if name in valid:
        return str(name)
    raise ValueError(f"There is no {kind} {name!r}; expected one of {did_you_mean(name, valid)}")


def did_you_mean(name: object, valid: Iterable[str], limit: int | None = None) -> str:
    """The end of an error message: the valid names, and a suggestion close to `name`.

    Args:
        name: the name received.
        valid: the valid names.
        limit: list only this many names, the last ones.

    Example:
        >>> did_you_mean("epoch", ["epochs", "seed"])
        "epochs, seed. Did you mean 'epochs'?"
    """
    names = list(dict.fromkeys(valid))
    close = difflib.get_close_matches(str(name), names, n=5)
    hint = f" Did you mean {min(close, key=lambda n: _edits(str(name), n))!r}?" if close else ""
    cut = limit is not None and len(names) > limit
    rest = f" (the last {limit} of {len(names)})" if cut else ""
    return f"{', '.join(names[-limit:] if limit and cut else names)}{rest}.{hint}"


def _edits(name: str, other: str) -> int:
    """How many insertions, deletions, replacements and swaps of neighbors lead to the other."""
    rows = [list(range(len(other) + 1))]
    for i, mine in enumerate(name, 1):
        row = [i]
        for j, theirs in enumerate(other, 1):
            edits = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (mine != theirs))
            if i > 1 and j > 1 and (mine, name[i - 2]) == (other[j - 2], theirs):
                edits = min(edits, rows[-2][j - 2] + 1)
            row.append(edits)
        rows.append(row)
    return rows[-1][-1]
