"""Trains a recipe into a run directory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable

import keras
from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.core.atomic_files import replacing
from keras_robust.core.validation import lookup
from keras_robust.experiments.flags.recipe_flags import leaves
from keras_robust.experiments.recipes import build, detector_spec
from keras_robust.experiments.recipes.epoch_callbacks import epoch_callbacks
from keras_robust.experiments.runs.recipe_stamp import check_stamp
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.runs.run_lock import RunLock
from keras_robust.experiments.training import callbacks, checkpoint
from keras_robust.experiments.training.averaging import AveragedValidation, Averages
from keras_robust.experiments.training.chance import chance_warning
from keras_robust.experiments.training.checkpoint import Progress
from keras_robust.experiments.training.devices import Devices
from keras_robust.experiments.training.resume_check import check_resumable
from keras_robust.experiments.training.session_log import session
from keras_robust.experiments.training.training_state import Training
from keras_robust.models.loading import load_model

Log = Callable[[str], None]


def train(
    config: ConfigDict,
    output_dir: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    verbose: int | str = "auto",
    log: Log = print,
) -> RunDirectory:
    """Trains a recipe.

    Args:
        config: the recipe.
        output_dir: the run directory.
        resume: resume an existing run from its last checkpoint; start it if there is none.
        overwrite: delete an existing run and start over.
        command: the command of the user, for `run.json`.
        verbose: as for Keras's `fit`.
        log: called with lines of text.

    Returns:
        The run directory.

    Raises:
        ValueError, OSError: see `prepare`.
        FloatingPointError: the training diverged.
    """
    training = prepare(config, output_dir, resume=resume, overwrite=overwrite, log=log)
    return complete(training, command=command, verbose=verbose, log=log)


def prepare(
    config: ConfigDict,
    output_dir: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    devices: Devices | None = None,
    log: Log = print,
) -> Training:
    """Checks a recipe and its directory, reads the data and builds the model; writes nothing.

    Args:
        config: the recipe.
        output_dir: the run directory.
        resume: resume an existing run from its last checkpoint; start it if there is none.
        overwrite: delete an existing run and start over.
        devices: the devices of the training; default one device.
        log: called with lines of text.

    Raises:
        ValueError: an invalid recipe; a run to resume that has another recipe, or only damaged
            checkpoints.
        OSError: the directory cannot be written or holds other files; the dataset is missing.
    """
    devices = devices or Devices()
    run = RunDirectory(output_dir, writes=devices.chief)
    build.check(config)
    # Before anything is read: progress, model and recipe have to be of one state.
    lock = RunLock(run.path) if run.writes and run.path.is_dir() else None
    try:
        training = _prepare(config, run, devices, resume=resume, overwrite=overwrite, log=log)
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    return dataclasses.replace(training, lock=lock)


def _prepare(
    config: ConfigDict,
    run: RunDirectory,
    devices: Devices,
    *,
    resume: bool,
    overwrite: bool,
    log: Log,
) -> Training:
    resumed = resume and run.is_run
    if resumed:
        check_resumable(run.recipe(), config)
    else:
        run.check_new(overwrite)
    file, progress = checkpoint.newest(run, log) if resumed else (None, Progress())
    if file:
        check_stamp(file, config)
    splits = build.data(config)
    _check_batches(splits, config, devices.replicas)
    if file and progress.replicas != devices.replicas:
        log(
            f"The run resumes with {devices.replicas} replicas instead of {progress.replicas}: its "
            "results will differ from those of an uninterrupted training."
        )
    # Before models are built, which takes all workers, and before the chief writes what the others
    # have yet to read.
    place = [_portable(config), dataclasses.asdict(splits.info), progress.step, resumed]
    devices.agree("the recipe, or the progress of the run", json.dumps(place))
    with devices.scope():
        if file:
            model = load_model(file, compile=True)
        else:
            model = build.robust_model(config, splits.info, len(splits.train))
    _check_monitor(config, model)
    build.check_score(config, model.classifier)
    # Now, as they read validation images and refuse invalid settings.
    measuring = tuple(epoch_callbacks(config, model, splits.validation))
    return Training(config, run, splits, model, devices, progress, file, resumed, measuring)


def complete(
    training: Training, *, command: str = "", verbose: int | str = "auto", log: Log = print
) -> RunDirectory:
    """Trains the remaining epochs, then calibrates the detector.

    Args:
        training: from `prepare`.
        command: the command of the user, for `run.json`.
        verbose: as for Keras's `fit`.
        log: called with lines of text.

    Returns:
        The run directory.

    Raises:
        FloatingPointError: the training diverged.
        KeyboardInterrupt: the user stopped it.
    """
    lock = training.lock
    if training.run.writes and lock is None:
        training.run.path.mkdir(parents=True, exist_ok=True)
        lock = RunLock(training.run.path)
    try:
        if training.lock is None and training.run.writes:
            training.run.check_new()  # another training may have come and gone since
        return _complete(training, command, verbose, log)
    finally:
        if lock is not None:
            lock.release()


def _complete(training: Training, command: str, verbose: int | str, log: Log) -> RunDirectory:
    run, config, devices = training.run, training.config, training.devices
    if run.writes:
        if not training.resumed:
            run.clear()
        run.remove_drafts()
        run.resume_from(training.progress.rows, training.file)
        run.write_recipe(config, training.splits.info.class_names)
    with session(training, command) if run.writes else contextlib.nullcontext():
        if not training.trained:
            if run.writes:  # its model may not stay the best
                run.detector_file.unlink(missing_ok=True)
            fit(training, verbose)
            if run.writes:
                _warn_of_chance(training, log)
        elif run.detector_file.is_file():
            log(
                f"{run.path} is already trained for {len(training.progress.rows)} epochs; train it "
                "longer with a larger --config.epochs."
            )
        if run.writes and not run.detector_file.is_file():
            calibrate(training, log)
        devices.wait()
    return run


def fit(training: Training, verbose: int | str = "auto") -> None:
    """Trains the remaining epochs, writing metrics and checkpoints.

    Args:
        training: from `prepare`.
        verbose: as for Keras's `fit`.

    Raises:
        FloatingPointError: the training diverged.
    """
    epoch, done = divmod(training.progress.step, training.steps_per_epoch)
    log = callbacks.EpochLog(training.run, training.progress.rows, training.progress.epoch)
    averages = Averages(training.model, training.splits.stream)
    with callbacks.stopped_by_signals() as stop:
        parts = [
            # Before what reads the logs, and what saves or remembers the weights.
            *training.measuring,
            AveragedValidation(averages),
            log,
            # Before the checkpoint: after a kill between the two, points are duplicated, not lost.
            *([callbacks.EventFiles(training.run)] if training.run.writes else []),
            callbacks.Checkpoints(training, log, stop, averages),
            stop,
        ]
        if done:  # all epochs of one `fit` have the same number of steps
            _fit_epochs(training, parts, epoch, epoch + 1, done, verbose)
            epoch += 1
        if epoch < training.config.epochs and not training.model.stop_training:
            _fit_epochs(training, parts, epoch, training.config.epochs, 0, verbose)


def _fit_epochs(
    training: Training,
    parts: list[keras.callbacks.Callback],
    first: int,
    last: int,
    done: int,
    verbose: int | str,
) -> None:
    """Trains epochs; `done` steps of the first one are done already."""
    training.model.fit(
        training.splits.stream(start_step=first * training.steps_per_epoch + done),
        steps_per_epoch=training.steps_per_epoch - done,
        initial_epoch=first,
        epochs=last,
        validation_data=training.splits.validation,
        callbacks=parts,
        verbose=verbose,
    )


def _warn_of_chance(training: Training, log: Log) -> None:
    """Says so if the network collapsed, which no exit status tells."""
    rows = training.run.rows()
    found = chance_warning(rows[-1], training.splits.info) if rows else None
    if found:
        log(
            f"Warning: {found} Try a warm-up (defense.options.radius_warmup), another optimizer or "
            "a smaller optimizer.learning_rate."
        )


def calibrate(training: Training, log: Log) -> None:
    """Calibrates the detector of the best model on the validation images."""
    rate, score = training.config.detector.false_alarm_rate, training.config.detector.score
    validation = training.splits.validation
    if validation is None or training.splits.info.validation_size * rate < 1:
        log(
            f"No detector: {training.splits.info.validation_size} validation images are too few "
            f"for a false-alarm rate of {rate:g}."
        )
        return
    model = load_model(training.run.checkpoint())
    detector = detector_spec.build(score, model)
    detector = detector_spec.fitted(detector, training.splits.train, validation, rate)
    if isinstance(detector, kr.detection.FittedDetector):  # first: the other file says which it is
        detector.save(training.run.statistics_file)
    with replacing(training.run.detector_file) as draft:
        detector.calibration.save(draft)


def _check_monitor(config: ConfigDict, model: kr.RobustModel) -> None:
    names = [name for name in model.evaluated_names() if model.directions.get(name)]
    lookup("metric (monitor)", config.monitor, [f"val_{name}" for name in names])


def _portable(config: ConfigDict) -> dict[str, str]:
    """The fields of a recipe that are the same on all machines."""
    return {k: repr(v) for k, v in leaves(config.to_dict()).items() if k != "dataset.data_dir"}


def _check_batches(splits: kr.data.Splits, config: ConfigDict, replicas: int) -> None:
    """Raises for steps that do not divide an epoch, and batches that replicas cannot share."""
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
            f"expected a multiple of {replicas}. It is the size of the whole batch."
        )
    rest = splits.info.validation_size % size
    if 0 < rest < replicas:
        raise ValueError(
            f"The last batch of the {splits.info.validation_size} validation images holds {rest}, "
            f"too few for {replicas} replicas; choose another dataset.validation or "
            "dataset.batch_size."
        )
