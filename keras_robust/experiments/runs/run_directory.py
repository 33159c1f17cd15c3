"""The directory of a run: where what was trained, and how, is kept.

| file | what it holds |
|---|---|
| `recipe.json` | the recipe with every field, as it was run |
| `run.json` | versions, seed, the data, and each session with its command, times and end |
| `metrics.csv`, `metrics.json` | one row per epoch |
| `tensorboard/` | the same for TensorBoard |
| `checkpoints/last.keras`, `checkpoints/best.keras` | the whole model with its optimizer |
| `checkpoints/previous.keras` | what `last.keras` was before, in case that is damaged |
| `detector.json` | the detector's threshold, calibrated on the validation images |
| `report/` | the last evaluation |
| `unfinished/` | what an evaluation that was interrupted, or out of time, had come to |

Every file appears by one atomic rename: whenever a program is killed, what is there is whole.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from keras_robust.core.atomic_files import is_draft, write_json, write_text
from keras_robust.experiments.recipes import schema

CHECKPOINTS = ("best", "last")
# The recipe goes last: until then, what is left is a run that can be cleared once more.
_FILES = ("run.json", "metrics.csv", "metrics.json", "detector.json", "recipe.json")
_DIRECTORIES = ("tensorboard", "checkpoints", "report", "unfinished")


class RunDirectory:
    """A run directory, which need not exist yet.

    Args:
        path: where it is.
        writes: whether this process may change it; of several workers only one does.

    Example:
        >>> RunDirectory("runs/digits").detector_file.name
        'detector.json'
    """

    def __init__(self, path: str | os.PathLike[str], writes: bool = True):
        self.path = Path(path)
        self.writes = writes
        self.recipe_file = self.path / "recipe.json"
        self.run_file = self.path / "run.json"
        self.metrics_file = self.path / "metrics.json"
        self.detector_file = self.path / "detector.json"
        self.report = self.path / "report"
        self.unfinished = self.path / "unfinished"
        self.tensorboard = self.path / "tensorboard"

    @property
    def is_run(self) -> bool:
        """Whether there is a run."""
        return self.recipe_file.is_file()

    def check_new(self, overwrite: bool = False) -> None:
        """Refuses a directory that a new run cannot have, before any work is done.

        Args:
            overwrite: whether a run that is there may be lost.

        Raises:
            FileExistsError: something is there.
            NotADirectoryError, PermissionError: nothing can be written there.
        """
        there = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if not there.is_dir():
            raise NotADirectoryError(
                f"{self.path} cannot be made: {there} is a file. Choose another --output_dir."
            )
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(
                f"{self.path} cannot be written: no permission in {there}. "
                "Choose another --output_dir."
            )
        if there != self.path or all(map(is_draft, self.path.iterdir())):
            return
        if not self.is_run:
            raise FileExistsError(
                f"{self.path} holds other files than a run. Choose another --output_dir."
            )
        if not overwrite:
            raise FileExistsError(
                f"{self.path} holds a run already. Pass --resume to go on with it, --overwrite to "
                "lose it, or choose another --output_dir."
            )

    def clear(self) -> None:
        """Removes a run, and nothing else that may lie beside it."""
        for name in _DIRECTORIES:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes what a killed training left half written."""
        for directory in (self.path, self.path / "checkpoints"):
            for path in filter(is_draft, directory.glob(".*")):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def go_on_from(self, rows: list[dict[str, float]], file: Path | None) -> None:
        """Makes the checkpoint that a training goes on from the last one.

        Args:
            rows: the metrics in that checkpoint; a later epoch, if there is one, comes again.
            file: the checkpoint; None if the training begins.
        """
        last = self.checkpoint_file("last")
        if file not in (None, last):
            os.replace(file, last)
        if self.rows() != rows:
            self.write_rows(rows)

    def recipe(self) -> ConfigDict:
        """The recipe of the run.

        Raises:
            FileNotFoundError: there is no run.
        """
        if not self.is_run:
            what = (
                f"{self.recipe_file} does not exist, so {self.path} holds no run"
                if self.path.is_dir()
                else f"The run directory {self.path} does not exist"
            )
            raise FileNotFoundError(
                f"{what}; train one with "
                f"`python -m trainers.train --recipe=digits/trades --output_dir={self.path}`."
            )
        return schema.from_json(self.recipe_file)

    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes; None in a recipe without them."""
        names = json.loads(self.recipe_file.read_text("utf-8"))["dataset"].get("class_names")
        return None if names is None else tuple(names)

    def write_recipe(self, config: ConfigDict, class_names: tuple[str, ...]) -> None:
        """Keeps the recipe as it is run, with the names of the classes for those who export."""
        document = config.to_dict()
        document["dataset"]["class_names"] = list(class_names)
        write_json(self.recipe_file, document)

    def facts(self) -> dict[str, Any]:
        """What `run.json` holds."""
        return json.loads(self.run_file.read_text("utf-8")) if self.run_file.is_file() else {}

    def rows(self) -> list[dict[str, float]]:
        """The metrics, one row per epoch."""
        if not self.metrics_file.is_file():
            return []
        return json.loads(self.metrics_file.read_text("utf-8"))

    def write_rows(self, rows: list[dict[str, float]]) -> None:
        """Keeps the metrics as JSON and as CSV, if this process may."""
        if not self.writes:
            return
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.metrics_file.with_suffix(".csv"), text.getvalue())
        write_json(self.metrics_file, rows)

    def checkpoint_file(self, name: str) -> Path:
        """Where the checkpoint of that name is kept."""
        return self.path / "checkpoints" / f"{name}.keras"

    def checkpoint(self, name: str | None = None) -> Path:
        """A checkpoint that is there.

        Args:
            name: `"best"` or `"last"`; by default the best one if there is one.

        Raises:
            FileNotFoundError: there is none.
        """
        names = (name,) if name else CHECKPOINTS
        for path in map(self.checkpoint_file, names):
            if path.is_file():
                return path
        there = [name for name in CHECKPOINTS if self.checkpoint_file(name).is_file()]
        advice = f"--checkpoint={there[0]} is there" if there else "the run has none"
        raise FileNotFoundError(
            f"{self.path} has no checkpoint {' or '.join(names)} ({advice}); resume its training "
            f"with `python -m trainers.train --resume --output_dir={self.path}`."
        )
