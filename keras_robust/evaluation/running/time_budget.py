"""Time budget of an evaluation, and the message if it was too short."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from keras_robust.core.validation import check_number
from keras_robust.evaluation.rendering.wording import joined, seconds_text


class TimeBudget:
    """A time limit in seconds, counted from construction; None for no limit.

    Raises:
        ValueError: not a number > 0.

    Example:
        >>> times = iter([0.0, 4.0, 6.0])
        >>> budget = TimeBudget(5, clock=lambda: next(times))
        >>> budget.expired, budget.expired
        (False, True)
    """

    def __init__(
        self, seconds: float | None = None, clock: Callable[[], float] = time.perf_counter
    ):
        if seconds is not None:
            check_number("time_budget", seconds, above=0, hint=" of seconds, or None for no limit")
        self.seconds, self.clock = seconds, clock
        self._end = math.inf if seconds is None else clock() + float(seconds)

    @property
    def expired(self) -> bool:
        """Whether the time is over."""
        return self._end < math.inf and self.clock() >= self._end

    def summary(self, interrupted: Sequence[str], skipped: Sequence[str], resumable: bool) -> str:
        """What was left out, and how to resume; empty for a complete evaluation.

        Args:
            interrupted: where each interrupted attack stopped, `"PGD-20 stopped after ..."`.
            skipped: names of what was not started.
            resumable: whether a later evaluation can resume from here.
        """
        if not interrupted and not skipped:
            return ""
        sentences = [
            f"The time budget of {seconds_text(self.seconds or 0)} expired before the evaluation "
            "was complete.",
            *(f"{clause}." for clause in interrupted),
            *([f"Not started: {joined(skipped)}."] if skipped else []),
            "Accuracies of unfinished attacks, and the worst case, are upper bounds of the robust "
            "accuracy; unfinished radii and detectors are omitted.",
            "Run the same evaluation again, with any time budget, to resume from here."
            if resumable
            else "Nothing was saved to resume from; pass `resume_dir` to save checkpoints.",
        ]
        return " ".join(sentences)
