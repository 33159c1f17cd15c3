"""Compares two reports on the same images: significance, and the images that differ.

    keras-robust compare first_report second_report
    keras-robust compare --first=runs/a/report --second=runs/b/report --json

prints the accuracies of both, the p-value of McNemar's test (exact, two-sided) that the models are
equally accurate, and the numbers of the images, from 0, on which they differ. A report is a
directory that `keras-robust evaluate` wrote, or its report.json.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from keras_robust.cli.model_flags import start_tensorflow
from keras_robust.experiments.flags import command_line

if TYPE_CHECKING:
    from keras_robust.evaluation import Report
    from keras_robust.evaluation.comparison import PairedTest, ReportComparison

_SHOWN = 20


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the command."""
    for name, text in (("first", "First"), ("second", "Second")):
        flags.DEFINE_string(
            name,
            None,
            f"{text} report: a directory or a report.json; --{name}= may be left out.",
            flag_values=values,
        )
    flags.DEFINE_bool("json", False, "Print JSON, with all images.", flag_values=values)


def positional(values: flags.FlagValues, arguments: list[str]) -> None:
    """Takes the reports that are given without their flags.

    Raises:
        UsageError: more than two reports.
    """
    free = [name for name in ("first", "second") if not values[name].present]
    for name, text in zip(free, arguments, strict=False):
        command_line.assign(values, name, text)
    if len(arguments) > len(free):
        raise command_line.UsageError(
            f"{arguments[len(free)]!r} is one too many; expected two reports."
        )


def run(values: flags.FlagValues) -> str:
    """Compares the reports that the flags name.

    Returns:
        A table and sentences, or JSON.

    Raises:
        ValueError, OSError: a user error.
    """
    paths = [
        command_line.required(values, "first", "first_report"),
        command_line.required(values, "second", "second_report"),
    ]
    start_tensorflow()
    from keras_robust.evaluation import compare_reports, load_reports

    loaded = [load_reports(path) for path in paths]
    for path, reports in zip(paths, loaded, strict=True):
        if len(reports) != 1:
            raise ValueError(f"{path} has {len(reports)} reports; expected one.")
    (first,), (second,) = loaded
    found = compare_reports(first, second)
    return _json(found) if values.json else _text(paths, (first, second), found)


def _json(found: ReportComparison) -> str:
    document = dataclasses.asdict(found)
    for name in ("clean", "worst_case"):
        test: PairedTest = getattr(found, name)
        document[name] |= {"accuracies": test.accuracies, "p_value": test.p_value}
    return json.dumps(document, indent=2, ensure_ascii=False)


def _text(paths: Sequence[str], reports: Sequence[Report], found: ReportComparison) -> str:
    from keras_robust.evaluation.rendering.wording import percent, threat_text

    worst = found.worst_case
    rows = [("", "first", "second", "only first", "only second", "p")]
    for name, test in (("clean accuracy", found.clean), ("worst case", worst)):
        one, other = map(percent, test.accuracies)
        counts = (str(len(test.only_first)), str(len(test.only_second)))
        rows.append((name, one, other, *counts, f"{test.p_value:.2g}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    named = [
        f"{number}: {path} ({report.model} on {report.dataset})"
        for number, path, report in zip(("first", "second"), paths, reports, strict=True)
    ]
    threats = dict.fromkeys(threat_text(report) for report in reports)
    named += [f"on the same {worst.samples:,} images; {'; and '.join(threats)}"]
    lines = [*named, "", *table, "", _verdict(worst)]
    for name, images in (("first", worst.only_first), ("second", worst.only_second)):
        if images:
            more = "" if len(images) <= _SHOWN else f" and {len(images) - _SHOWN:,} more (--json)"
            shown = ", ".join(map(str, images[:_SHOWN]))
            lines.append(f"Only the {name} withstands on the images {shown}{more}.")
    return "\n".join([*lines, *(f"Warning: {warning}" for warning in found.warnings)])


def _verdict(worst: PairedTest) -> str:
    if not worst.is_significant:
        return "The worst cases do not differ significantly (McNemar, exact, 5 %)."
    better = "first" if worst.accuracies[0] > worst.accuracies[1] else "second"
    return f"The {better} is more robust, significantly (McNemar, exact, p = {worst.p_value:.2g})."
