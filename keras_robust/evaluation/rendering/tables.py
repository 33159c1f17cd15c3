"""The tables of a report, as text, for Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from keras_robust.evaluation.rendering.wording import (
    interval,
    labels,
    percent,
    radius_text,
    seconds_text,
)
from keras_robust.evaluation.results import wilson_interval

if TYPE_CHECKING:
    from keras_robust.evaluation.report_data import ReportData

ABSENT = "\N{EN DASH}"


class Cell(NamedTuple):
    """One cell: its text, and a smaller note such as an interval."""

    text: str
    note: str = ""


class Table(NamedTuple):
    """A table; the first cell of a row names the row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def _accuracy(share: float, samples: int) -> Cell:
    return Cell(percent(share), interval(wilson_interval(share, samples)))


def comparison(reports: Sequence[ReportData]) -> Table:
    """A row for each model: clean, each attack, worst case."""
    attacks = tuple(dict.fromkeys(attack.name for report in reports for attack in report.attacks))
    rows = []
    for label, report in zip(labels(reports), reports, strict=True):
        by_name = {attack.name: attack.accuracy for attack in report.attacks}
        under = (
            _accuracy(by_name[name], report.samples) if name in by_name else Cell(ABSENT)
            for name in attacks
        )
        clean = _accuracy(report.clean_accuracy, report.samples)
        rows.append((Cell(label), clean, *under, _worst(report)))
    return Table(
        "Accuracy of each model, with the 95% interval",
        ("Model", "Clean", *attacks, "Worst case"),
        tuple(rows),
    )


def attacks(report: ReportData) -> Table:
    """A row for each attack on one model, between the clean and the worst case."""
    clean = _accuracy(report.clean_accuracy, report.samples)
    rows = [(Cell("Clean", "no attack"), clean, *(Cell(ABSENT),) * 3)]
    for attack in report.attacks:
        rows.append(
            (
                Cell(attack.name, "" if attack.finished else "unfinished"),
                _accuracy(attack.accuracy, report.samples),
                Cell(radius_text(attack.radius)),
                Cell(f"{attack.samples_attacked:,}"),
                Cell(seconds_text(attack.seconds)),
            )
        )
    radius = Cell(radius_text(report.radius))
    worst = Cell("Worst case", "all attacks together")
    rows.append((worst, _worst(report), radius, Cell(ABSENT), Cell(ABSENT)))
    return Table(
        f"Accuracy on {report.samples:,} images, with the 95% interval. An attack may leave out "
        "images that are wrong already.",
        ("Attack", "Accuracy", "Radius", "Images attacked", "Time"),
        tuple(rows),
    )


def parts(report: ReportData) -> tuple[Table, ...]:
    """For each attack that is made of several: a row for each of them, in their order."""
    return tuple(
        Table(
            f"{attack.name}, part by part. Each works on the images that those before it left; "
            f"accuracy is of all {report.samples:,}.",
            ("Part", "Accuracy left", "Images attacked", "Time"),
            tuple(
                (
                    Cell(part.name),
                    _accuracy(part.accuracy, report.samples),
                    Cell(f"{part.samples_attacked:,}"),
                    Cell(seconds_text(part.seconds)),
                )
                for part in attack.parts
            ),
        )
        for attack in report.attacks
        if attack.parts
    )


def _worst(report: ReportData) -> Cell:
    if not report.attacks:
        return Cell(ABSENT, "not attacked")
    return _accuracy(report.worst_case_accuracy, report.samples)


def curves(reports: Sequence[ReportData]) -> Table | None:
    """A row for each radius, a column for each curve; None without curves."""
    lines = {
        (curve.name if len(reports) == 1 else f"{label}, {curve.name}"): dict(
            zip(curve.radii, curve.accuracies, strict=True)
        )
        for label, report in zip(labels(reports), reports, strict=True)
        for curve in report.curves
    }
    if not lines:
        return None
    radii = sorted({radius for line in lines.values() for radius in line})
    rows = tuple(
        (
            Cell(radius_text(radius)),
            *(Cell(percent(line[radius]) if radius in line else ABSENT) for line in lines.values()),
        )
        for radius in radii
    )
    return Table("Accuracy over radius", ("Radius", *lines), rows)


def confusion(title: str, counts: Sequence[Sequence[int]], names: Sequence[str]) -> Table:
    """A confusion matrix: a row for each true class."""
    rows = tuple(
        (Cell(name), *(Cell(f"{count:,}") for count in row))
        for name, row in zip(names, counts, strict=True)
    )
    return Table(title, ("True \\ predicted", *names), rows)


def facts(report: ReportData) -> tuple[tuple[str, str], ...]:
    """What was measured, name and value; what was not told is left out."""
    told = [
        ("Data", report.dataset),
        ("Model", report.model),
        ("Training", report.defense),
        ("Threat model", report.threat_model),
        ("Radius", radius_text(report.radius)),
        ("Test images", f"{report.samples:,}"),
        ("Seed", str(report.seed)),
    ]
    told += [(f"Attack {attack.name}", attack.description) for attack in report.attacks]
    return tuple((name, value) for name, value in told if value)


def checks(report: ReportData) -> tuple[tuple[str, str], ...]:
    """What was checked, with the verdict, and what was found."""
    return tuple(
        (f"{check.name.capitalize()} ({'passed' if check.passed else 'failed'})", check.sentence)
        for check in report.checks
    )
