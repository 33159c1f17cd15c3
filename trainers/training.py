"""Trains a recipe into a run directory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import keras
from ml_collections import ConfigDict

import keras_robust as kr
from trainers import build, callbacks, checkpoint
from trainers.checkpoint import Progress
from trainers.devices import Devices
from trainers.files import replacing
from trainers.names import chosen
from trainers.recipe_flags import leaves
from trainers.resumable import check_same
from trainers.run_directory import RunDirectory
from trainers.sessions import session

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """A training that is ready to go.

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

    def fit(self, verbose: int | str = "auto") -> None:
        """Trains the epochs that are left, keeping metrics and checkpoints.

        Args:
            verbose: as for Keras's `fit`.

        Raises:
            FloatingPointError: the loss or the weights are no numbers any more.
        """
        epoch, done = divmod(self.progress.step, self.steps_per_epoch)
        log = callbacks.EpochLog(self.run, self.progress.rows, self.progress.epoch)
        with callbacks.stopped_by_signals() as stop:
            parts = [
                callbacks.AveragedValidation(),
                log,
                # Before the checkpoint: after a kill between the two, points come twice rather
                # than not at all.
                *([callbacks.EventFiles(self.run)] if self.run.writes else []),
                callbacks.Checkpoints(self, log, stop),
                stop,
            ]
            if done:  # Keras gives all epochs of one `fit` as many steps
                self._fit(parts, epoch, epoch + 1, done, verbose)
                epoch += 1
            if epoch < self.config.epochs:
                self._fit(parts, epoch, self.config.epochs, 0, verbose)

    def _fit(
        self,
        parts: list[keras.callbacks.Callback],
        first: int,
        last: int,
        done: int,
        verbose: int | str,
    ) -> None:
        """Trains epochs; `done` steps of the first one are over."""
        self.model.fit(
            self.splits.stream(start_step=first * self.steps_per_epoch + done),
            steps_per_epoch=self.steps_per_epoch - done,
            initial_epoch=first,
            epochs=last,
            validation_data=self.splits.validation,
            callbacks=parts,
            verbose=verbose,
        )

    def calibrate(self, say: Say) -> None:
        """Sets the detector's threshold on the validation images, for the best model."""
        rate, score = self.config.detector.false_alarm_rate, self.config.detector.score
        validation = self.splits.validation
        if validation is None or self.splits.info.validation_size * rate < 1:
            say(
                f"No detector: {self.splits.info.validation_size} validation images are too few "
                f"for a false-alarm rate of {rate:g}."
            )
            return
        model = keras.saving.load_model(self.run.checkpoint(), compile=False)
        detector = kr.detection.Detector(model, scored_by=score).calibrate(validation, rate)
        with replacing(self.run.detector_file) as draft:
            detector.calibration.save(draft)


def train(
    config: ConfigDict,
    output_dir: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    verbose: int | str = "auto",
    say: Say = print,
) -> RunDirectory:
    """Trains a recipe.

    Args:
        config: the recipe.
        output_dir: the run directory.
        resume: go on with the run that is there, after its last checkpoint; begin it if there is
            none.
        overwrite: lose the run that is there.
        command: what the user typed, to be kept.
        verbose: as for Keras's `fit`.
        say: called with lines of text.

    Returns:
        The run directory.

    Raises:
        ValueError, OSError: see `prepare`.
        FloatingPointError: the loss is no number any more.
    """
    training = prepare(config, output_dir, resume=resume, overwrite=overwrite, say=say)
    return complete(training, command=command, verbose=verbose, say=say)


def prepare(
    config: ConfigDict,
    output_dir: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    devices: Devices | None = None,
    say: Say = print,
) -> Training:
    """Checks a recipe and its directory, reads the data and builds the model; writes nothing yet.

    Args:
        config: the recipe.
        output_dir: the run directory.
        resume: go on with the run that is there, after its last checkpoint; begin it if there is
            none.
        overwrite: lose the run that is there.
        devices: on what to train; default one device.
        say: called with lines of text.

    Returns:
        The training.

    Raises:
        ValueError: names, numbers or options of the recipe that cannot be; a resumed run that has
            another recipe, or no whole checkpoint.
        OSError: the directory cannot be written or is not free; the data is not there.
    """
    devices = devices or Devices()
    run = RunDirectory(output_dir, writes=devices.chief)
    build.check(config)
    resumed = resume and run.is_run
    if resumed:
        check_same(run.recipe(), config)
    else:
        run.check_new(overwrite)
    file, progress = checkpoint.newest(run, say) if resumed else (None, Progress())
    splits = build.data(config)
    _check_batches(splits, config, devices.replicas)
    if file and progress.replicas != devices.replicas:
        say(
            f"The run goes on with {devices.replicas} replicas instead of {progress.replicas}: it "
            "will not end with the very numbers that it would have ended with."
        )
    # Before they build models, which takes all of them, and before one of them writes what the
    # others have yet to read.
    place = [_portable(config), dataclasses.asdict(splits.info), progress.step, resumed]
    devices.agree("the recipe, or where the run stands", json.dumps(place))
    with devices.scope():
        if file:
            model = keras.saving.load_model(file)
        else:
            model = build.robust_model(config, splits.info, len(splits.train))
    _check_monitor(config, model)
    build.check_score(config, model.classifier)
    return Training(config, run, splits, model, devices, progress, file, resumed)


def complete(
    training: Training, *, command: str = "", verbose: int | str = "auto", say: Say = print
) -> RunDirectory:
    """Trains what is left of a training, then calibrates the detector.

    Args:
        training: from `prepare`.
        command: what the user typed, to be kept.
        verbose: as for Keras's `fit`.
        say: called with lines of text.

    Returns:
        The run directory.

    Raises:
        FloatingPointError: the loss is no number any more.
        KeyboardInterrupt: the user stopped it; `run.json` says so.
    """
    run, config, devices = training.run, training.config, training.devices
    if run.writes:
        if not training.resumed:
            run.clear()
        run.sweep()
        run.go_on_from(training.progress.rows, training.file)
        run.write_recipe(config, training.splits.info.class_names)
    with session(training, command) if run.writes else contextlib.nullcontext():
        if not training.trained:
            if run.writes:  # it is of a model that may not stay the best
                run.detector_file.unlink(missing_ok=True)
            training.fit(verbose)
        elif run.detector_file.is_file():
            say(
                f"{run.path} has had its {len(training.progress.rows)} epochs; train it longer "
                "with a larger --config.epochs."
            )
        if run.writes and not run.detector_file.is_file():
            training.calibrate(say)
        devices.wait()
    return run


def _check_monitor(config: ConfigDict, model: kr.RobustModel) -> None:
    names = ["accuracy"] + ["robust_accuracy"] * (model.validation_attack is not None)
    chosen("metric (monitor)", config.monitor, [f"val_{name}" for name in names])


def _portable(config: ConfigDict) -> dict[str, str]:
    """The fields of a recipe that do not depend on the machine."""
    return {k: repr(v) for k, v in leaves(config.to_dict()).items() if k != "dataset.data_dir"}


def _check_batches(splits: kr.data.Splits, config: ConfigDict, replicas: int) -> None:
    """Refuses steps that make no epoch, and batches of which some replica would get less."""
    steps, size = len(splits.train), config.dataset.batch_size
    if steps % config.steps_per_execution:
        divisors = [n for n in range(1, steps + 1) if not steps % n]
        raise ValueError(
            f"steps_per_execution is {config.steps_per_execution}; expected a divisor of the "
            f"{steps} steps of an epoch: {', '.join(map(str, divisors))}."
        )
    if size % replicas:
        raise ValueError(
            f"dataset.batch_size is {size}, which {replicas} replicas cannot share equally; "
            f"expected a multiple of {replicas}. It is the size of the whole batch, not of a part."
        )
    rest = splits.info.validation_size % size
    if 0 < rest < replicas:
        raise ValueError(
            f"The last batch of the {splits.info.validation_size} validation images holds {rest}, "
            f"too few for {replicas} replicas; choose another dataset.validation or "
            "dataset.batch_size."
        )
