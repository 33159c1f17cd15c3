"""The directory of a run: where what was trained, and how, is kept.

| file | what it holds |
|---|---|
| `recipe.json` | the recipe with every field, as it was run |
| `run.json` | versions, seed, the data, and each session with its command, times and end |
| `metrics.csv`, `metrics.json` | one row per epoch |
| `tensorboard/` | the same for TensorBoard |
| `checkpoints/last.keras`, `checkpoints/best.keras` | the whole model with its optimizer |
| `detector.json` | the detector's threshold, calibrated on the validation images |
| `report/` | the last evaluation |

Every file appears by one atomic rename: whenever a program is killed, what is there is whole.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from trainers.recipes import fields

CHECKPOINTS = ("best", "last")
_FILES = ("recipe.json", "run.json", "metrics.csv", "metrics.json", "detector.json")
_DIRECTORIES = ("tensorboard", "checkpoints", "report")


class RunDirectory:
    """A run directory, which need not exist yet.

    Args:
        path: where it is.

    Example:
        >>> RunDirectory("runs/digits").detector_file.name
        'detector.json'
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.recipe_file = self.path / "recipe.json"
        self.run_file = self.path / "run.json"
        self.metrics_file = self.path / "metrics.json"
        self.detector_file = self.path / "detector.json"
        self.report = self.path / "report"
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
        if there != self.path or not any(self.path.iterdir()):
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
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)
        for name in _DIRECTORIES:
            shutil.rmtree(self.path / name, ignore_errors=True)

    def recipe(self) -> ConfigDict:
        """The recipe of the run.

        Raises:
            FileNotFoundError: there is no run.
        """
        if not self.is_run:
            raise FileNotFoundError(
                f"{self.path} holds no run; train one with "
                f"`python -m trainers.train --recipe=digits/trades --output_dir={self.path}`."
            )
        return fields.from_json(self.recipe_file)

    def class_names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(json.loads(self.recipe_file.read_text("utf-8"))["dataset"]["class_names"])

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
        """Keeps the metrics as JSON and as CSV."""
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
        raise FileNotFoundError(
            f"{self.path} has no checkpoint {' or '.join(names)}; train it on with "
            f"`python -m trainers.train --resume --output_dir={self.path}`."
        )


def write_text(path: Path, text: str) -> None:
    """Writes a file that is either whole or not there."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON file that is either whole or not there."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of `path` when it is whole.

    Args:
        path: of the file; its directory is made if it is not there.

    Yields:
        Another path in the same directory, with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
