"""The time that an evaluation may take, and what is said where it was too short."""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Callable, Sequence

from keras_robust.evaluation.rendering.wording import joined, seconds_text


class TimeBudget:
    """Seconds that an evaluation may take, counted from now.

    Args:
        seconds: how many; None for no end.
        clock: tells the time in seconds.

    Raises:
        ValueError: no number above 0.

    Example:
        >>> times = iter([0.0, 4.0, 6.0])
        >>> budget = TimeBudget(5, clock=lambda: next(times))
        >>> budget.spent, budget.spent
        (False, True)
    """

    def __init__(
        self, seconds: float | None = None, clock: Callable[[], float] = time.perf_counter
    ):
        number = isinstance(seconds, numbers.Real) and not isinstance(seconds, bool)
        if seconds is not None and not (number and 0 < seconds < math.inf):
            raise ValueError(
                f"time_budget is {seconds!r}; expected a number of seconds > 0, or None for no end."
            )
        self.seconds, self.clock = seconds, clock
        self._end = math.inf if seconds is None else clock() + float(seconds)

    @property
    def spent(self) -> bool:
        """Whether the time is over; nothing new is begun then."""
        return self._end < math.inf and self.clock() >= self._end

    def told(self, stopped: Sequence[str], not_begun: Sequence[str], kept: bool) -> str:
        """What was left undone, and how to go on; empty where nothing was.

        Args:
            stopped: where each attack stopped that was begun, such as `"PGD-20 stopped after ..."`.
            not_begun: names of what was not begun.
            kept: whether a later evaluation can go on from here.

        Example:
            >>> print(TimeBudget(90).told(["PGD-20 stopped after 128 of its 900 images"], [], True))
            ... # doctest: +NORMALIZE_WHITESPACE
            The time budget of 1 min 30 s was spent before the evaluation came to its end. PGD-20
            stopped after 128 of its 900 images. Accuracies of unfinished attacks, and the worst
            case, are upper bounds of the robust accuracy; unfinished radii and detectors are left
            out. The same evaluation, started again with another time budget or none, goes on from
            here.
        """
        if not stopped and not not_begun:
            return ""
        how = (
            "The same evaluation, started again with another time budget or none, goes on from "
            "here."
            if kept
            else "Nothing was kept to go on from; give `keep`, a directory, to be able to."
        )
        sentences = [
            f"The time budget of {seconds_text(self.seconds or 0)} was spent before the evaluation "
            "came to its end.",
            *(f"{clause}." for clause in stopped),
            *([f"Not begun: {joined(not_begun)}."] if not_begun else []),
            "Accuracies of unfinished attacks, and the worst case, are upper bounds of the robust "
            "accuracy; unfinished radii and detectors are left out.",
            how,
        ]
        return " ".join(sentences)
