"""The directory of a run.

| file | contents |
|---|---|
| `recipe.json` | the recipe with every field |
| `run.json` | versions, seed, the data, and each session with its command, times and outcome |
| `metrics.csv`, `metrics.json` | one row per epoch |
| `tensorboard/` | the same for TensorBoard |
| `checkpoints/last.keras`, `checkpoints/best.keras` | the whole model with its optimizer |
| `checkpoints/previous.keras` | the checkpoint before `last.keras`, in case that is damaged |
| `detector.json` | the detector's threshold, calibrated on the validation images |
| `detector.npz` | the same with the statistics of a detector that is fitted on training images |
| `report/` | the last evaluation |
| `unfinished/` | checkpoints of interrupted evaluations |

Every file is written atomically: after a kill at any moment, all files are complete.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from keras_robust.core.atomic_files import is_draft, write_json, write_text
from keras_robust.core.bounded_files import check_links, read_json
from keras_robust.experiments.flags.output_path import check_output
from keras_robust.experiments.recipes import schema

CHECKPOINTS = ("best", "last")
# The recipe comes last: until then, what is left is a run that can be cleared again.
_FILES = ("run.json", "metrics.csv", "metrics.json", "detector.json", "detector.npz", "recipe.json")
_DIRECTORIES = ("tensorboard", "checkpoints", "report", "unfinished")


class RunDirectory:
    """A run directory, which may not exist yet.

    Args:
        path: the directory.
        writes: whether this process may write; of several workers only one does.

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
        self.statistics_file = self.path / "detector.npz"
        self.report = self.path / "report"
        self.unfinished = self.path / "unfinished"
        self.tensorboard = self.path / "tensorboard"

    @property
    def is_run(self) -> bool:
        """Whether the directory contains a run."""
        return self.recipe_file.is_file()

    def check_new(self, overwrite: bool = False) -> None:
        """Raises unless a new run can be written to the directory.

        Args:
            overwrite: whether an existing run may be deleted.

        Raises:
            FileExistsError: the directory contains files.
            ValueError, NotADirectoryError, PermissionError: see `check_output`.
        """
        check_output(self.path)
        if not self.path.exists() or all(map(is_draft, self.path.iterdir())):
            return
        if not self.is_run:
            raise FileExistsError(
                f"{self.path} contains other files than a run. Choose another --output_dir."
            )
        if not overwrite:
            raise FileExistsError(
                f"{self.path} already contains a run. Pass --resume to resume it, --overwrite to "
                "delete it and start over, or choose another --output_dir."
            )

    def clear(self) -> None:
        """Deletes the run and no other files."""
        for name in _DIRECTORIES:
            if (self.path / name).is_symlink():  # which what is written later would follow
                (self.path / name).unlink()
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)

    def remove_drafts(self) -> None:
        """Deletes the unfinished files of a killed training."""
        for directory in (self.path, self.path / "checkpoints"):
            for path in filter(is_draft, directory.glob(".*")):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def resume_from(self, rows: list[dict[str, float]], file: Path | None) -> None:
        """Makes the checkpoint that a training resumes from the last one.

        Args:
            rows: the metrics in that checkpoint; later epochs are trained again.
            file: the checkpoint; None for a new training.
        """
        last = self.checkpoint_file("last")
        if file not in (None, last):
            os.replace(file, last)
        if self.rows() != rows:
            self.write_rows(rows)

    def recipe(self) -> ConfigDict:
        """The recipe of the run.

        Raises:
            FileNotFoundError: the directory does not contain a run.
            ValueError: the file is not a recipe, or a file of the run is a link that leads out of
                the directory.
        """
        if not self.is_run:
            what = (
                f"{self.recipe_file} does not exist, so {self.path} is not a run directory"
                if self.path.is_dir()
                else f"The run directory {self.path} does not exist"
            )
            raise FileNotFoundError(
                f"{what}; train one with "
                f"`python -m trainers.train --recipe=digits/trades --output_dir={self.path}`."
            )
        check_links(self.path, (*_FILES, *_DIRECTORIES))
        return schema.from_json(self.recipe_file)

    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes; None in a recipe without them."""
        names = read_json(self.recipe_file)["dataset"].get("class_names")
        return None if names is None else tuple(names)

    def write_recipe(self, config: ConfigDict, class_names: tuple[str, ...]) -> None:
        """Writes the recipe, with the names of the classes for exports."""
        document = config.to_dict()
        document["dataset"]["class_names"] = list(class_names)
        write_json(self.recipe_file, document)

    def facts(self) -> dict[str, Any]:
        """The contents of `run.json`."""
        return read_json(self.run_file) if self.run_file.is_file() else {}

    def rows(self) -> list[dict[str, float]]:
        """The metrics, one row per epoch."""
        if not self.metrics_file.is_file():
            return []
        return read_json(self.metrics_file)

    def write_rows(self, rows: list[dict[str, float]]) -> None:
        """Writes the metrics as JSON and CSV, if this process may write."""
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
        """The path of a checkpoint."""
        return self.path / "checkpoints" / f"{name}.keras"

    def checkpoint(self, name: str | None = None) -> Path:
        """The path of a checkpoint that exists.

        Args:
            name: `"best"` or `"last"`; by default the best one if there is one.

        Raises:
            FileNotFoundError: the checkpoint is missing.
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
