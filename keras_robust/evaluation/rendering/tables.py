"""Tables of a report as text cells, for Markdown and HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_robust.evaluation.rendering.wording import (
    certificate_text,
    found_by_text,
    interval,
    joined,
    labels,
    percent,
    radius_text,
    seconds_text,
    settings_text,
    threat_text,
)
from keras_robust.evaluation.results.display import html_table
from keras_robust.evaluation.results.optimality import median_distance
from keras_robust.evaluation.results.parts import wilson_interval

if TYPE_CHECKING:
    from keras_robust.evaluation.results.certification_result import CertificationResult
    from keras_robust.evaluation.results.corruption_data import CorruptionData
    from keras_robust.evaluation.results.report_data import ReportData

ABSENT = "\N{EN DASH}"
_CERTIFIED_COLUMNS = ("Images", "Accuracy", "Number of images", "Time")


class Cell(NamedTuple):
    """A table cell: its text, and a smaller note such as an interval."""

    text: str
    note: str = ""


class Table(NamedTuple):
    """A table; the first cell of a row names the row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        rows = [
            tuple(f"{cell.text}\n\n{cell.note}" if cell.note else cell.text for cell in cells)
            for cells in self.rows
        ]
        return html_table(self.columns, rows, self.caption)


def table_html(part: Any) -> str:
    """The `table()` of a result in a notebook, as its `_repr_html_`."""
    return part.table()._repr_html_()


def _accuracy(accuracy: float, samples: int) -> Cell:
    return Cell(percent(accuracy), interval(wilson_interval(accuracy, samples)))


def comparison(reports: Sequence[ReportData]) -> Table:
    """One row per model: clean, each attack, worst case."""
    attacks = tuple(dict.fromkeys(attack.name for report in reports for attack in report.attacks))
    certified = tuple(dict.fromkeys(c.name for report in reports for c in report.certificates))
    rows = []
    for label, report in zip(labels(reports), reports, strict=True):
        by_name = {attack.name: attack.accuracy for attack in report.attacks}
        proven = {result.name: result.certified_accuracy for result in report.certificates}
        clean = _accuracy(report.clean_accuracy, report.samples)
        under, above = (
            [
                _accuracy(found[name], report.samples) if name in found else Cell(ABSENT)
                for name in names
            ]
            for found, names in ((by_name, attacks), (proven, certified))
        )
        rows.append((Cell(label), clean, _worst(report), *under, *above))
    return Table(
        "Accuracy of each model, with the 95% interval",
        ("Model", "Clean", "Worst case", *attacks, *(f"Certified by {name}" for name in certified)),
        tuple(rows),
    )


def attacks(report: ReportData) -> Table:
    """Clean accuracy, worst case, then one row per attack on a model."""
    clean = _accuracy(report.clean_accuracy, report.samples)
    radius = Cell(radius_text(report.radius))
    worst = Cell("Worst case", "all attacks together")
    rows = [
        (Cell("Clean", "no attack"), clean, *(Cell(ABSENT),) * 3),
        (worst, _worst(report), radius, Cell(ABSENT), Cell(ABSENT)),
    ]
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
    adaptive = report.detection and report.detection.adaptive
    if adaptive and adaptive.accuracy is not None:
        accuracy = _accuracy(adaptive.accuracy, report.samples)
        rows.append((Cell(adaptive.name), accuracy, radius, Cell(ABSENT), Cell(ABSENT)))
    return Table(
        f"Accuracy on {report.samples:,} images, with the 95% interval. Attacks skip images that "
        "are already misclassified.",
        ("Attack", "Accuracy", "Radius", "Images attacked", "Time"),
        tuple(rows),
    )


def parts(report: ReportData) -> tuple[Table, ...]:
    """One table per combined attack, a row for each part; distances and passes; corruptions."""
    combined = tuple(
        Table(
            f"Parts of {attack.name}. Each part runs on the images that withstood the previous "
            f"ones; accuracy is on all {report.samples:,} images.",
            ("Part", "Accuracy", "Images attacked", "Time"),
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
    corruptions = () if report.corruptions is None else (corruption_table(report.corruptions),)
    return (*combined, *_distances_and_passes(report), *corruptions)


def _distances_and_passes(report: ReportData) -> tuple[Table, ...]:
    """A table of the minimum-norm attacks, and of others whose passes were counted, if any."""
    found, rows = report.optimality, []
    for attack in report.attacks:
        passes = [
            Cell(ABSENT if count is None else f"{count:,.4g}" if count < 1000 else f"{count:,.0f}")
            for count in (attack.forward_passes, attack.backward_passes)
        ]
        if attack.distances is None and attack.forward_passes is None:
            continue
        score = median = Cell(ABSENT)
        if attack.distances is not None:
            score, middle = Cell(percent(found[attack.name])), median_distance(attack.distances)
            median = Cell(ABSENT if middle == math.inf else radius_text(middle))
        rows.append((Cell(attack.name), score, median, *passes))
    if not rows:
        return ()
    budget = report.budget_per_image
    bound = "" if budget is None else f" An attack had at most {budget:,} passes per image."
    return (
        Table(
            "Optimality of minimum-norm attacks: how close their distances come to the smallest "
            "ones that any of them found, over all images. The median is of all images, absent if "
            f"most were not fooled. Passes are counted, per attacked image.{bound}",
            ("Attack", "Optimality", "Median distance", "Forward passes", "Backward passes"),
            tuple(rows),
        ),
    )


def certificates(report: ReportData) -> tuple[Table, ...]:
    """Clean accuracy, worst case, certified accuracies and the rest; then smoothed classifiers."""
    found = [] if not report.proofs else [_proofs(report)]
    return (*found, *(_smoothed(result) for result in report.certificates if result.smoothed))


def _proofs(report: ReportData) -> Table:
    samples, worst = report.samples, round(report.worst_case_accuracy * report.samples)
    rows = [_counted("Clean", "no attack", report.proofs[0].counts["correct"], samples)]
    if report.attacks:
        rows.append(_counted("Worst case", "all attacks together", worst, samples))
    rows += map(_certified, report.proofs)
    if report.attacks:
        rows.append(_counted("Neither broken nor proven", "", report.unproven, samples))
    names = joined([result.name for result in report.proofs])
    return Table(certificate_text(report.proofs[0], names), _CERTIFIED_COLUMNS, tuple(rows))


def _smoothed(result: CertificationResult) -> Table:
    clean = _counted("Clean", "smoothed classifier", result.counts["correct"], result.samples)
    text = certificate_text(result, result.name)
    return Table(text, _CERTIFIED_COLUMNS, (clean, _certified(result)))


def _certified(result: CertificationResult) -> tuple[Cell, ...]:
    name, note = f"Certified by {result.name}", f"within radius {radius_text(result.radius)}"
    time = seconds_text(result.seconds)
    return _counted(name, note, result.counts["certified"], result.samples, time)


def _counted(
    name: str, note: str, count: int, samples: int, time: str = ABSENT
) -> tuple[Cell, ...]:
    accuracy = _accuracy(max(count, 0) / samples, samples)
    return Cell(name, note), accuracy, Cell(f"{count:,}"), Cell(time)


def _worst(report: ReportData) -> Cell:
    if not report.attacks:
        return Cell(ABSENT, "not attacked")
    return _accuracy(report.worst_case_accuracy, report.samples)


def curves(reports: Sequence[ReportData]) -> Table | None:
    """One row per radius, one column per curve; None without curves."""
    lines = {
        (curve.name if len(reports) == 1 else f"{label}, {curve.name}"): dict(
            zip(curve.radii, curve.accuracies, strict=True)
        )
        for label, report in zip(labels(reports), reports, strict=True)
        for curve in report.curves_and_certificates
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
    """A confusion matrix, one row per true class."""
    rows = tuple(
        (Cell(name), *(Cell(f"{count:,}") for count in row))
        for name, row in zip(names, counts, strict=True)
    )
    return Table(title, ("True \\ predicted", *names), rows)


def facts(report: ReportData) -> tuple[tuple[str, str], ...]:
    """The settings of an evaluation as (name, value); empty values are left out."""
    found = [
        ("Data", report.dataset),
        ("Model", report.model),
        ("Training", report.defense),
        ("Threat model", report.threat_model),
        ("In words", threat_text(report)),
        ("Radius", radius_text(report.radius)),
        ("Test images", f"{report.samples:,}"),
        ("Seed", str(report.seed)),
    ]
    found += [(f"Attack {attack.name}", attack.description) for attack in report.attacks]
    found += [
        (f"Certificate {result.name}", settings_text(result)) for result in report.certificates
    ]
    found += [
        ("Worst case found by", found_by_text(report.worst_case_found_by)),
        ("Date", report.date),
        ("Hardware", report.hardware),
        ("Versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
    ]
    return tuple((name, value) for name, value in found if value)


def corruption_table(found: CorruptionData) -> Table:
    """One row per corruption, one column per severity, and the means."""
    headers = ("Corruption", "Mean", *(f"Severity {severity}" for severity in found.severities))
    means = np.mean(list(found.accuracy.values()), axis=0)
    rows = {name.replace("_", " "): values for name, values in found.accuracy.items()}
    rows["mean"] = tuple(means.tolist())
    return Table(
        f"Accuracy under corruptions of {found.samples:,} images, clean {percent(found.clean)}",
        headers,
        tuple(
            (Cell(name), Cell(percent(float(np.mean(values)))), *(Cell(percent(v)) for v in values))
            for name, values in rows.items()
        ),
    )


def key_figures(report: ReportData) -> tuple[tuple[str, Cell], ...]:
    """The numbers to see first: clean, worst case, certified, and the accuracy of a guess."""
    found = [
        ("Clean", _accuracy(report.clean_accuracy, report.samples)),
        ("Worst case", _worst(report)),
    ]
    found += [
        (f"Certified ({result.name})", _accuracy(result.certified_accuracy, report.samples))
        for result in report.proofs
    ]
    guess = chance(report)
    return (*found, *([] if guess is None else [("Chance", Cell(percent(guess)))]))


def chance(report: ReportData) -> float | None:
    """The accuracy of a guess; None for an unknown number of classes."""
    return 1 / len(report.class_names) if report.class_names else None


def checks(report: ReportData) -> tuple[tuple[str, str], ...]:
    """The sanity checks as (name with verdict, message)."""
    return tuple(
        (f"{check.name.capitalize()} ({'passed' if check.passed else 'failed'})", check.message)
        for check in report.checks
    )
