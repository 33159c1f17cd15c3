"""Interleaved timing: all implementations in one process, round after round."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Work = Callable[[], Any]


class Spread(NamedTuple):
    """The median over the rounds, the smallest and the largest round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def spread(values: Sequence[float]) -> Spread:
    """The spread of some values.

    Example:
        >>> print(spread([3.0, 1.0, 2.0]))
        2 (1 to 3)
    """
    return Spread(statistics.median(values), min(values), max(values))


def seconds(work: Work) -> float:
    """The duration of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def interleaved(
    implementations: Mapping[str, Work],
    repeats: int,
    measure: Callable[[Work], float] = seconds,
    warm_ups: int = 2,
) -> dict[str, list[float]]:
    """Measures implementations in turn, so that a slow spell of the machine affects all of them.

    Each round starts with another implementation, so that none always runs after the same one,
    whose data fill the caches.

    Args:
        implementations: name -> the work, done once by a call.
        repeats: number of rounds that count.
        measure: measures an implementation in a round.
        warm_ups: calls of each implementation that do not count; the first ones trace and allocate.

    Returns:
        Name -> one value per round.
    """
    names = list(implementations)
    for name in names:
        for _ in range(warm_ups):
            implementations[name]()
    measured: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            measured[name].append(measure(implementations[name]))
    return measured


def ratio(values: Sequence[float], to: Sequence[float]) -> Spread:
    """The spread of the ratios of two implementations, round by round.

    Example:
        >>> print(ratio([2.0, 4.0, 9.0], to=[1.0, 2.0, 3.0]))
        2 (2 to 3)
    """
    return spread([value / base for value, base in zip(values, to, strict=True)])
