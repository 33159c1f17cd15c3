"""The state of a training: its recipe, directory, data, model, devices and progress."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.training.checkpoint import Progress
from keras_robust.experiments.training.devices import Devices


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """A prepared training.

    Attributes:
        config: the recipe.
        run: where it goes.
        splits: the data.
        model: compiled, with the weights and the optimizer to begin with.
        devices: on what it is trained.
        progress: how far it is.
        file: the checkpoint that it goes on from; None if it begins.
        resumed: whether what is in the directory is its own.
    """

    config: ConfigDict
    run: RunDirectory
    splits: kr.data.Splits
    model: kr.RobustModel
    devices: Devices
    progress: Progress
    file: Path | None
    resumed: bool

    @property
    def monitor(self) -> str | None:
        """The metric that chooses the best checkpoint; None without validation images."""
        return self.config.monitor if self.splits.validation is not None else None

    @property
    def steps_per_epoch(self) -> int:
        """How many steps an epoch has."""
        return len(self.splits.train)

    @property
    def trained(self) -> bool:
        """Whether it has had its epochs."""
        return len(self.progress.rows) >= self.config.epochs
