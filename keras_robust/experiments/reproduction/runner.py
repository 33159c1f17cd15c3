"""Runs experiments: trains, measures and writes; what is finished is not done again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from keras_robust.core.atomic_files import write_json, write_text
from keras_robust.core.quiet_tensorflow import quiet_logger
from keras_robust.experiments.flags.recipe_flags import leaves
from keras_robust.experiments.measuring.pictures import write_pictures
from keras_robust.experiments.recipes.schema import defaults
from keras_robust.experiments.reproduction import tables
from keras_robust.experiments.reproduction.experiment import (
    Experiment,
    Measurement,
    Row,
    Setting,
    Training,
    changed,
    measurement,
)
from keras_robust.experiments.reproduction.outcome import Numbers, Outcome
from keras_robust.experiments.reproduction.scales import Scale, differences, short
from keras_robust.experiments.runs.run_directory import RunDirectory

if TYPE_CHECKING:
    from keras_robust.experiments.runs.loaded_run import LoadedRun

Log = Callable[[str], None]
_LOADED = 8  # runs that stay in memory: an ensemble has up to five
_NAME = 60  # characters of a run directory
# Fields on which a run does not depend; measurements name their attacks.
_FREE = ("name", "evaluation.", "checkpoint.", "dataset.data_dir")


class Reproduction:
    """An experiment at a scale, in a directory.

    Trainings and measurements are named after everything they depend on, so that experiments with
    the same output directory share them.

    Args:
        experiment: the experiment.
        scale: its scale.
        recipe: loads a recipe by its name.
        output_dir: the directory of all runs and results.
        seeds: number of seeds of each training.
        data_dir: the directory of TensorFlow Datasets; None for its default.
        command: the command of the user, for the files.
        log: called with lines of text.
    """

    def __init__(
        self,
        experiment: Experiment,
        scale: Scale,
        recipe: Callable[[str], ConfigDict],
        output_dir: str | os.PathLike[str],
        *,
        seeds: int = 1,
        data_dir: str | None = None,
        command: str = "",
        log: Log = print,
    ):
        self.experiment = experiment
        self.scale = scale
        self.recipe = recipe
        self.directory = Path(output_dir) / scale.name
        self.seeds = seeds
        self.data_dir = data_dir
        self.command = command
        self.log = log
        self._loaded: dict[Path, LoadedRun] = {}
        self._met: set[Path] = set()  # trainings and measurements that were reached

    def original(self, training: Training) -> ConfigDict:
        """The recipe of a training before it is scaled.

        Raises:
            ValueError: an unknown recipe or field.
        """
        return changed(self.recipe(training.recipe), training.changes)

    def config(self, training: Training, seed: int = 0) -> ConfigDict:
        """The recipe of a training at the scale; seeds count from the recipe's."""
        config = self._scaled(training)
        config.seed += seed
        if training.redraw:
            config.dataset.name += f"/{seed}"
        config.dataset.data_dir = self.data_dir
        return config

    def _scaled(self, training: Training) -> ConfigDict:
        return self.scale.recipe(self.original(training))

    def path(self, training: Training, seed: int = 0) -> Path:
        """The run directory of a training: its recipe, and a hash of what it depends on.

        Fields at their defaults are left out: a field that a later release adds changes no path.
        """
        standard = leaves(defaults().to_dict())
        fields = {
            name: value
            for name, value in leaves(self.config(training, 0).to_dict()).items()
            if not name.startswith(_FREE) and (name not in standard or value != standard[name])
        }
        name = training.recipe.replace("/", "_")[:_NAME]
        return self.directory / "runs" / f"{name}-{_hash(fields)}" / f"seed_{seed}"

    def trainings(self) -> dict[Path, Training]:
        """The distinct trainings of the first seed, by their directories."""
        return {self.path(training): training for training in self.experiment.trainings()}

    def measurements(self) -> dict[Path, tuple[Row, Measurement]]:
        """The distinct measurements of the first seed at the scale, by their files."""
        found: dict[Path, tuple[Row, Measurement]] = {}
        for part in self.experiment.parts:
            for row, column in part.cells():
                what = measurement(row, column).at(self.scale)
                found[self.file(row, what, 0)] = row, what
        return found

    def file(self, row: Row, what: Measurement, seed: int) -> Path:
        """The file of a measurement of a row."""
        paths = [self.path(one, seed) for one in (*row.trainings, *what.sources)]
        checkpoints = [one.checkpoint for one in row.trainings]
        about = [*(str(path.relative_to(self.directory)) for path in paths), *checkpoints,
                 described(what)]  # fmt: skip
        run = paths[0].relative_to(self.directory / "runs")
        return self.directory / "measurements" / run / f"{_hash(about)}.json"

    def is_trained(self, training: Training, seed: int) -> bool:
        """Whether a training is finished."""
        run = RunDirectory(self.path(training, seed))
        sessions = run.facts().get("sessions", [])
        finished = bool(sessions) and sessions[-1]["state"] == "finished"
        return finished and run.checkpoint_file(training.checkpoint).is_file()

    def differences(self) -> list[str]:
        """What the scale changes, a line for each setting."""
        trained = self.trainings().values()
        lines = differences((self.original(one), self._scaled(one)) for one in trained)
        cells = [
            measurement(row, column)
            for part in self.experiment.parts
            for row, column in part.cells()
        ]
        images = {(one.limit, one.at(self.scale).limit): None for one in cells}
        fewer = [f"{old or 'all'} to {new}" for old, new in images if old != new]
        attacks = {
            (getattr(one, "attack", ""), getattr(one.at(self.scale), "attack", "")): None
            for one in cells
        }
        weaker = [f"{short(old)} to {short(new)}" for old, new in attacks if old != new]
        lines += [f"test images: {', '.join(fewer)}"] if fewer else []
        return lines + ([f"attacks: {', '.join(weaker)}"] if weaker else [])

    def run(self) -> Path:
        """Trains, measures, draws and writes what is not finished yet.

        Returns:
            The Markdown page of the results.

        Raises:
            ValueError, OSError: an invalid recipe or attack, or missing data.
            FloatingPointError: a training diverged.
            KeyboardInterrupt: the user stopped it; the same call resumes.
        """
        self._met.clear()
        self._check_data()
        cells: list[dict[tuple[str, str], list[Numbers]]] = []
        for number, part in enumerate(self.experiment.parts):
            cells.append({})
            for row in part.rows:
                for seed in range(self.seeds):
                    for title, numbers in self._row(number, row, seed):
                        cells[-1].setdefault((row.title, title), []).append(numbers)
                outcome = self._outcome(cells)
                self.log(f"{part.title}: {' | '.join(tables.row_cells(outcome, number, row))}")
        return self._write(self._outcome(cells))

    def _check_data(self) -> None:
        """Raises if data of an unfinished training are missing, before hours of other ones."""
        from keras_robust.experiments.recipes import build

        left = [
            one
            for one in self.trainings().values()
            if not all(self.is_trained(one, seed) for seed in range(self.seeds))
        ]
        configs = map(self.config, left)
        for config in {config.dataset.name: config for config in configs}.values():
            build.data(config, for_training=False)

    def _progress(self) -> str:
        """How many of all trainings and measurements were reached."""
        total = self.seeds * (len(self.trainings()) + len(self.measurements()))
        return f"[{len(self._met)}/{total}]"

    def _outcome(self, cells: list[dict[tuple[str, str], list[Numbers]]]) -> Outcome:
        return Outcome(self.experiment, self.seeds, tuple(cells), self.scale, self._load)

    def _row(self, number: int, row: Row, seed: int) -> Iterator[tuple[str, Numbers]]:
        """The numbers of a row with one seed, by the titles of the columns."""
        part = self.experiment.parts[number]
        for column in part.columns:
            if column.title not in row.skip:
                yield column.title, self._measure(row, measurement(row, column), seed)

    def _measure(self, row: Row, original: Measurement, seed: int) -> Numbers:
        what = original.at(self.scale)
        file = self.file(row, what, seed)
        if file.is_file():
            self._met |= {file, *(self.path(one, seed) for one in (*row.trainings, *what.sources))}
            return json.loads(file.read_text("utf-8"))["numbers"]
        runs = [self._load(training, seed) for training in row.trainings]
        sources = {one.recipe: self._load(one, seed) for one in what.sources}
        self._met.add(file)
        self.log(f"{self._progress()} {row.title}, seed {seed}: {described(what)}")
        partial = file.with_suffix("")
        with quiet_logger():
            numbers = what.measure(
                runs, Setting(seed, partial, sources, lambda line: self.log(f"    {line}"))
            )
        write_json(file, {"measurement": described(what), "row": row.title, "numbers": numbers})
        shutil.rmtree(partial, ignore_errors=True)
        return numbers

    def _load(self, training: Training, seed: int = 0) -> LoadedRun:
        """The run of a training, which is trained first if it is not finished."""
        from keras_robust.experiments.runs.loaded_run import load_run

        path = self.path(training, seed)
        key = path / training.checkpoint
        if key not in self._loaded:
            self._train(training, seed)
            if len(self._loaded) >= _LOADED:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[key] = load_run(path, training.checkpoint, self.data_dir)
        return self._loaded[key]

    def _train(self, training: Training, seed: int) -> None:
        from keras_robust.experiments.training import train_run

        self._met.add(self.path(training, seed))
        if self.is_trained(training, seed):
            return
        config, path = self.config(training, seed), self.path(training, seed)
        changes = ", ".join(f"{field} {value}" for field, value in training.changes.items())
        described = f"{training.recipe}{f' with {changes}' if changes else ''}"
        self.log(
            f"{self._progress()} trains {described}, {config.epochs} epochs, seed {seed}: {path}"
        )
        train_run.train(
            config,
            path,
            resume=True,
            command=self.command,
            verbose=0,
            log=lambda line: self.log(f"    {line}"),
        )

    def _write(self, outcome: Outcome) -> Path:
        cuts = self.differences()
        name = self.experiment.name
        write_pictures(
            self.directory / name,
            {picture.name: picture.draw(outcome) for picture in self.experiment.pictures},
        )
        page = self.directory / f"{name}.md"
        about = outcome, cuts, self.command
        write_json(page.with_suffix(".json"), tables.document(*about))
        write_text(page, tables.markdown(*about))
        return page


def described(what: Measurement) -> str:
    """A measurement as text, without what is not set; it identifies the measurement."""
    fields: Mapping[str, object] = {
        field.name: getattr(what, field.name)
        for field in dataclasses.fields(what)  # type: ignore[arg-type]
        if getattr(what, field.name) not in (None, ())
    }
    inside = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    return f"{type(what).__name__}({inside})"


def _hash(document: object) -> str:
    text = json.dumps(document, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
