"""Accuracy under common corruptions as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from keras_robust.evaluation.results.fields import fraction, integer, sequence, set_fields


@dataclasses.dataclass(frozen=True)
class CorruptionData:
    """Accuracy under corruptions.

    Args:
        accuracy: corruption -> accuracy at each severity.
        severities: the severities.
        clean: accuracy on the clean images.
        samples: number of images.
        seed: seed of the corruptions.
    """

    accuracy: Mapping[str, tuple[float, ...]]
    severities: tuple[int, ...]
    clean: float
    samples: int
    seed: int

    def __post_init__(self) -> None:
        if not isinstance(self.accuracy, Mapping) or not self.accuracy:
            raise ValueError(f"accuracy is {self.accuracy!r}; expected corruptions with values.")
        set_fields(
            self,
            accuracy={
                str(name): tuple(fraction(name, value) for value in sequence(name, values))
                for name, values in self.accuracy.items()
            },
            severities=tuple(integer("severities", s, 1) for s in self.severities),
            clean=fraction("clean", self.clean),
            samples=integer("samples", self.samples, 1),
            seed=integer("seed", self.seed),
        )
        counts = sorted({len(values) for values in self.accuracy.values()})
        if counts != [len(self.severities)]:
            raise ValueError(
                f"accuracy has {counts} values per corruption; expected {len(self.severities)}, "
                "one per severity."
            )

    @property
    def mean(self) -> float:
        """The mean over all corruptions and severities."""
        return float(np.mean(list(self.accuracy.values())))
