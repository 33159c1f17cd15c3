"""The numbers that an experiment measured: their mean, spread and interval over the seeds."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from keras_robust.evaluation.results.parts import wilson_interval
from keras_robust.experiments.reproduction.experiment import (
    Column,
    Experiment,
)
from keras_robust.experiments.reproduction.scales import Scale

if TYPE_CHECKING:
    from keras_robust.experiments.runs.loaded_run import LoadedRun

# Fractions that are means over tasks, and so no fractions of images.
_MEANS = ("average", "transferability", "non_transferable")
Numbers = dict[str, float]  # of one measurement, by name


@dataclasses.dataclass(frozen=True)
class Spread:
    """A number that was measured with several seeds.

    Args:
        mean: its mean.
        deviation: its standard deviation; None for one seed.
        interval: its 95 % interval: Student's over the seeds; for one seed Wilson's of a fraction
            of images; else None.
    """

    mean: float
    deviation: float | None
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, values: Sequence[float], samples: float | None = None) -> Spread:
        """The spread of values.

        Args:
            values: one for each seed.
            samples: the number of images, if a value is a fraction of images.

        Example:
            >>> spread = Spread.of([0.7, 0.8])
            >>> print(f"{spread.mean:.2f} {spread.deviation:.4f} {spread.interval[1]:.3f}")
            0.75 0.0707 1.385
        """
        mean = statistics.fmean(values)
        if len(values) > 1:
            from scipy.stats import t  # takes a second to import

            deviation = statistics.stdev(values)
            half = float(t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
            return cls(mean, deviation, (mean - half, mean + half))
        if samples and 0 <= mean <= 1:
            return cls(mean, None, wilson_interval(mean, int(samples)))
        return cls(mean, None, None)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The results of an experiment.

    Args:
        experiment: the experiment.
        seeds: number of seeds.
        cells: for each part: (row, column) -> the measured numbers of each seed.
        scale: their scale.
        load: loads the run of a training, of the first seed or of the one given as second argument.
    """

    experiment: Experiment
    seeds: int
    cells: tuple[dict[tuple[str, str], list[Numbers]], ...]
    scale: Scale
    load: Callable[..., LoadedRun]

    def values(self, part: int, row: str, column: Column) -> list[float] | None:
        """The values of a cell, one for each seed; None for an empty one."""
        measured = self.cells[part].get((row, column.title))
        return None if measured is None else [numbers[column.value] for numbers in measured]

    def spread(self, part: int, row: str, column: Column) -> Spread | None:
        """The spread of a cell; None for an empty one."""
        values = self.values(part, row, column)
        if values is None:
            return None
        samples = self.cells[part][row, column.title][0].get("samples")
        counted = column.percent and column.value not in _MEANS
        return Spread.of(values, samples if counted else None)

    def gain(self, part: int, row: str) -> Spread | None:
        """The mean gain of a row over the row that it is compared with, seed by seed.

        Returns:
            Its spread over the seeds; None for a row that is not compared.
        """
        table = self.experiment.parts[part]
        base = table.gain_over.get(row)
        if base is None:
            return None
        gains = []
        for column in table.columns:
            mine, theirs = (self.values(part, title, column) for title in (row, base))
            counts = column.percent and column.value != "clean"
            if counts and mine is not None and theirs is not None:
                gains.append([a - b for a, b in zip(mine, theirs, strict=True)])
        means = [statistics.fmean(seed) for seed in zip(*gains, strict=True)]
        return Spread.of(means) if means else None
