"""The state of a training: its recipe, directory, data, model, devices and progress."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.runs.run_lock import RunLock
from keras_robust.experiments.training.checkpoint import Progress
from keras_robust.experiments.training.devices import Devices


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """A prepared training.

    Attributes:
        config: the recipe.
        run: the run directory.
        splits: the data.
        model: the compiled model, with initial or resumed weights and optimizer.
        devices: the devices that train it.
        progress: the steps and epochs done.
        file: the checkpoint to resume from; None for a new training.
        resumed: whether the directory already belongs to this training.
        measuring: the callbacks of the recipe, which measure validation images.
        lock: the right to write the directory; None while there is no directory.
    """

    config: ConfigDict
    run: RunDirectory
    splits: kr.data.Splits
    model: kr.RobustModel
    devices: Devices
    progress: Progress
    file: Path | None
    resumed: bool
    measuring: tuple[keras.callbacks.Callback, ...] = ()
    lock: RunLock | None = None

    @property
    def monitor(self) -> str | None:
        """The metric that selects the best checkpoint; None without validation images."""
        return self.config.monitor if self.splits.validation is not None else None

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in an epoch."""
        return len(self.splits.train)

    @property
    def trained(self) -> bool:
        """Whether all epochs are done."""
        return len(self.progress.rows) >= self.config.epochs

    def summary(self) -> str:
        """What is going to be trained, in two lines."""
        config, info = self.config, self.splits.info
        done = self.progress.step % self.steps_per_epoch
        replicas = self.devices.replicas
        epochs = f"epochs {len(self.progress.rows) + 1} to {config.epochs}"
        if self.trained:
            epochs = f"all {config.epochs} epochs done,"
        return (
            f"{config.name}: {config.defense.name} of {config.model.name} "
            f"({self.model.classifier.count_params():,} parameters) on {info.name}, "
            f"{config.ball.norm} radius {config.ball.radius:.4g}\n"
            f"{info.train_size:,} training, {info.validation_size:,} validation images; {epochs} "
            f"of {self.steps_per_epoch} steps"
            + (f", {done} of them done" if done else "")
            + (f", on {replicas} replicas" if replicas > 1 else "")
        )
