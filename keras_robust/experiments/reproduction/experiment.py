"""An experiment as data: trainings, what is measured on them, and the published numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ml_collections import ConfigDict

from keras_robust.core.validation import did_you_mean
from keras_robust.experiments.recipes.schema import normalize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_robust.experiments.reproduction.outcome import Outcome
    from keras_robust.experiments.reproduction.scales import Scale
    from keras_robust.experiments.runs.loaded_run import LoadedRun


@dataclasses.dataclass(frozen=True)
class Training:
    """A recipe with changes.

    Args:
        recipe: its name.
        changes: full path of a field -> value, applied in order; the value of a group of options
            replaces the whole group.
        checkpoint: the checkpoint to measure, `"best"` or `"last"`.
        redraw: whether each seed draws data of its own, of a data set such as `"toy"`.
    """

    recipe: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    checkpoint: str = "best"
    redraw: bool = False

    def but(self, changes: Mapping[str, Any]) -> Training:
        """The same training with further changes.

        Example:
            >>> Training("digits/trades", {"epochs": 3}).but({"seed": 1}).changes
            {'epochs': 3, 'seed': 1}
        """
        return dataclasses.replace(self, changes={**self.changes, **changes})


def changed(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """A recipe with changed fields.

    Args:
        config: the recipe, which is changed.
        changes: as for `Training`.

    Raises:
        ValueError: an unknown field outside of `options`.

    Example:
        >>> from keras_robust.experiments.recipes.schema import defaults
        >>> changed(defaults(), {"model.options": {"width": 0.5}}).model.options.width
        0.5
    """
    for path, value in changes.items():
        *groups, field = path.split(".")
        part = config
        for depth, name in enumerate((*groups, field)):
            if name not in part and not (depth == len(groups) and "options" in groups):
                raise ValueError(
                    f"The recipe {config.name!r} has no field {path!r}: {name!r} is not one of "
                    f"{did_you_mean(name, list(part))}"
                )
            part = part[name] if depth < len(groups) else part
        with config.unlocked():
            part[field] = ConfigDict(value) if isinstance(value, Mapping) else value
    return normalize(config)


@dataclasses.dataclass(frozen=True)
class Setting:
    """The circumstances of one measurement.

    Args:
        seed: seed of the attacks.
        resume_dir: a directory of its own, from which it resumes.
        sources: the trained `sources` of the measurement, by name.
        progress: called with lines of text.
    """

    seed: int
    resume_dir: Path
    sources: Mapping[str, LoadedRun]
    progress: Any = None


class Measurement(Protocol):
    """A measurement on trained runs: plain data, whose fields identify it."""

    @property
    def limit(self) -> int | None:
        """The number of test images; None for all."""

    @property
    def sources(self) -> tuple[Training, ...]:
        """Further trainings that it needs, such as those that attacks are crafted on."""

    def at(self, scale: Scale) -> Measurement:
        """The measurement at another scale."""

    def passes(self) -> float:
        """The number of gradients for each image, for an estimate of its time."""

    def measure(self, runs: Sequence[LoadedRun], setting: Setting) -> dict[str, float]:
        """Measures, and returns numbers by name; `samples` is the number of images."""


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        title: its title.
        measurement: what to measure; None if the rows say so.
        value: the name of the number in the measurement.
        percent: whether the number is a fraction that is shown in percent.
    """

    title: str
    measurement: Measurement | None = None
    value: str = "robust"
    percent: bool = True


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        title: its title.
        trainings: the training, or several that are measured together.
        thesis: the published number in each column, as printed; None where there is none.
        measurement: what to measure instead of what the columns say: in all of them, or by their
            titles.
        skip: titles of columns that are left empty, as in the original.
    """

    title: str
    trainings: tuple[Training, ...]
    thesis: tuple[float | None, ...] = ()
    measurement: Measurement | Mapping[str, Measurement] | None = None
    skip: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Part:
    """A table, or the part of one that is about a data set.

    Args:
        title: its title.
        columns: its columns.
        rows: its rows.
        gain_over: row -> the row that it is compared with; adds the mean gain over all columns
            in percent but those of clean accuracy.
        thesis_gain: row -> the published mean gain.

    Raises:
        ValueError: published numbers that do not fit the columns, titles that repeat, a row to
            compare with that is missing, or a cell without a measurement.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    gain_over: Mapping[str, str] = dataclasses.field(default_factory=dict)
    thesis_gain: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        titles = [row.title for row in self.rows]
        for named in (titles, [column.title for column in self.columns]):
            if len(set(named)) < len(named) or not named:
                raise ValueError(f"{self.title}: the titles {named} repeat, or there are none.")
        missing = {*self.gain_over, *self.gain_over.values(), *self.thesis_gain} - {*titles}
        if missing:
            raise ValueError(f"{self.title}: there are no rows {sorted(missing)}.")
        for row in self.rows:
            if len(row.thesis) not in (0, len(self.columns)):
                raise ValueError(
                    f"{self.title}, {row.title}: {len(row.thesis)} published numbers for "
                    f"{len(self.columns)} columns."
                )
            for column in self.columns:
                measurement(row, column)

    def cells(self) -> Iterator[tuple[Row, Column]]:
        """The rows and columns of all cells that are measured."""
        for row in self.rows:
            yield from ((row, c) for c in self.columns if c.title not in row.skip)


def measurement(row: Row, column: Column) -> Measurement:
    """What is measured in a cell.

    Raises:
        ValueError: neither the row nor the column says so.
    """
    own = row.measurement
    found = own.get(column.title) if isinstance(own, Mapping) else own
    found = column.measurement if found is None else found
    if found is None:
        raise ValueError(f"Nothing is measured in row {row.title!r}, column {column.title!r}.")
    return found


class Picture(Protocol):
    """A picture of an experiment: plain data."""

    @property
    def name(self) -> str:
        """The name of its file."""

    @property
    def trainings(self) -> tuple[Training, ...]:
        """The trainings that it draws, besides those of the tables."""

    def draw(self, outcome: Outcome) -> Figure:
        """Draws it from the results, or from the runs of the first seed."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table or a figure.

    Args:
        name: its name in commands, such as `"udr-1"`.
        title: where it is, and what it shows.
        parts: its tables; a figure has those that its curves are drawn from, or none.
        pictures: its pictures.
        notes: sentences for the results, such as what the original does not say.
    """

    name: str
    title: str
    parts: tuple[Part, ...]
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()

    def trainings(self) -> Iterator[Training]:
        """The trainings in the order of the rows, then those of the pictures; they may repeat."""
        for part in self.parts:
            for row, column in part.cells():
                yield from row.trainings
                yield from measurement(row, column).sources
        for picture in self.pictures:
            yield from picture.trainings
