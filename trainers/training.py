"""Trains a recipe into a run directory."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata

import keras
from ml_collections import ConfigDict

import keras_robust as kr
from trainers import build, callbacks
from trainers.names import chosen
from trainers.recipe_flags import leaves
from trainers.run_directory import RunDirectory, write_json

_PACKAGES = ("keras_robust", "tensorflow", "keras", "numpy", "tensorflow-datasets")
# What may differ when a run is resumed: nothing that its steps depend on.
_FREE = ("epochs", "evaluation.", "detector.", "dataset.data_dir", "name")
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """A training that is ready to go.

    Attributes:
        config: the recipe.
        run: where it goes.
        splits: the data.
        model: compiled, with the weights and the optimizer to begin with.
        rows: the metrics of the epochs that are over.
        resumed: whether it goes on with what is in the directory.
    """

    config: ConfigDict
    run: RunDirectory
    splits: kr.data.Splits
    model: kr.RobustModel
    rows: list[dict[str, float]]
    resumed: bool

    @property
    def monitor(self) -> str | None:
        """The metric that chooses the best checkpoint; None without validation images."""
        return self.config.monitor if self.splits.validation is not None else None

    def fit(self, verbose: int | str = "auto") -> None:
        """Trains the epochs that are left, keeping metrics and checkpoints after each.

        Args:
            verbose: as for Keras's `fit`.

        Raises:
            FloatingPointError: the loss is no number any more.
        """
        monitor = self.monitor
        best = max((row[monitor] for row in self.rows if monitor in row), default=-math.inf)
        with callbacks.stopped_by_signals() as stop:
            self.model.fit(
                self.splits.stream(start_step=int(self.model.optimizer.iterations)),
                steps_per_epoch=len(self.splits.train),
                initial_epoch=len(self.rows),
                epochs=self.config.epochs,
                validation_data=self.splits.validation,
                callbacks=[
                    callbacks.AveragedValidation(),
                    callbacks.EpochLog(self.run, self.rows),
                    callbacks.Checkpoints(self.run, monitor, best),
                    callbacks.EventFiles(self.run),
                    stop,
                ],
                verbose=verbose,
            )

    def calibrate(self, say: Say) -> None:
        """Sets the detector's threshold on the validation images, for the best model."""
        rate = self.config.detector.false_alarm_rate
        validation = self.splits.validation
        if validation is None or self.splits.info.validation_size * rate < 1:
            say(
                f"No detector: {self.splits.info.validation_size} validation images are too few "
                f"for a false-alarm rate of {rate:g}."
            )
            return
        model = keras.saving.load_model(self.run.checkpoint(), compile=False)
        detector = kr.detection.EntropyDetector(model).calibrate(validation, rate)
        detector.calibration.save(self.run.detector_file)


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
        resume: go on with the run that is there, after its last checkpoint.
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
    training = prepare(config, output_dir, resume=resume, overwrite=overwrite)
    return complete(training, command=command, verbose=verbose, say=say)


def prepare(
    config: ConfigDict,
    output_dir: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Training:
    """Checks a recipe and its directory, reads the data and builds the model; writes nothing yet.

    Args:
        config: the recipe.
        output_dir: the run directory.
        resume: go on with the run that is there, after its last checkpoint.
        overwrite: lose the run that is there.

    Returns:
        The training.

    Raises:
        ValueError: names, numbers or options of the recipe that cannot be; a resumed run that has
            another recipe, or no epochs left.
        OSError: the directory cannot be written or is not free; the data or the run is not there.
    """
    run = RunDirectory(output_dir)
    build.check(config)
    if resume:
        _check_same(run.recipe(), config)
    else:
        run.check_new(overwrite)
    splits = build.data(config)
    steps = len(splits.train)
    if steps % config.steps_per_execution:
        divisors = [n for n in range(1, steps + 1) if not steps % n]
        raise ValueError(
            f"steps_per_execution is {config.steps_per_execution}; expected a divisor of the "
            f"{steps} steps of an epoch: {', '.join(map(str, divisors))}."
        )
    if resume:
        model, rows = _restored(run, config, steps)
    else:
        model, rows = build.robust_model(config, splits.info, steps), []
    _check_monitor(config, model)
    return Training(config, run, splits, model, rows, resumed=resume)


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
    run, config, info = training.run, training.config, training.splits.info
    if not training.resumed:
        run.clear()
    run.write_recipe(config, info.class_names)
    with _session(training, command):
        if len(training.rows) < config.epochs:
            training.fit(verbose)
        training.calibrate(say)
    return run


def _check_same(kept: ConfigDict, config: ConfigDict) -> None:
    """Refuses to resume a run with another recipe."""
    before, now = leaves(kept.to_dict()), leaves(config.to_dict())
    different = [
        f"{name} ({before.get(name)!r}, not {now.get(name)!r})"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name) and not name.startswith(_FREE)
    ]
    if different:
        raise ValueError(
            f"--resume goes on with the recipe of the run, which differs in {', '.join(different)}."
            " Train it anew in another --output_dir, or leave those fields as they were."
        )
    if kept.epochs != config.epochs and config.optimizer.schedule.kind == "cosine":
        raise ValueError(
            f"The run was planned for {kept.epochs} epochs, and its cosine schedule with them; "
            "resume it without changing the epochs."
        )


def _restored(
    run: RunDirectory, config: ConfigDict, steps_per_epoch: int
) -> tuple[kr.RobustModel, list[dict[str, float]]]:
    """The model of the last checkpoint, and the metrics of the epochs until then."""
    model = keras.saving.load_model(run.checkpoint("last"))
    epochs = int(model.optimizer.iterations) // steps_per_epoch
    if epochs >= config.epochs and run.detector_file.is_file():
        raise ValueError(
            f"{run.path} has had its {epochs} epochs; train it longer with a larger "
            "--config.epochs."
        )
    # Weights restart where they were; the masks of dropout must not repeat those of epoch 1.
    keras.utils.set_random_seed(config.seed + epochs)
    return model, run.rows()[:epochs]


def _check_monitor(config: ConfigDict, model: kr.RobustModel) -> None:
    names = ["accuracy"] + ["robust_accuracy"] * (model.validation_attack is not None)
    chosen("metric (monitor)", config.monitor, [f"val_{name}" for name in names])


@contextmanager
def _session(training: Training, command: str) -> Iterator[None]:
    """Keeps in `run.json` what was run, when, and how it ended."""
    run, config, info = training.run, training.config, training.splits.info
    session = {
        "command": command,
        "first_epoch": len(training.rows) + 1,
        "started": _now(),
        "ended": None,
        "state": "running",
    }
    facts = {
        "recipe": config.name,
        "seed": config.seed,
        "data": dataclasses.asdict(info),
        "parameters": training.model.classifier.count_params(),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "system": platform.system(),
        "sessions": [*run.facts().get("sessions", []), session],
    }
    write_json(run.run_file, facts)
    state = "failed"
    try:
        yield
        state = "finished"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        session.update(ended=_now(), state=state)
        write_json(run.run_file, facts)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
