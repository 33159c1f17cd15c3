"""The report of an evaluation: `ReportData` that can be saved, rendered and loaded."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path

from keras_robust.core.bounded_files import read_json
from keras_robust.evaluation.rendering.notebook import report_html
from keras_robust.evaluation.rendering.page import FORMATS, save_page
from keras_robust.evaluation.rendering.report_json import damage_named, read_fields, report_to_json
from keras_robust.evaluation.results.report_data import ReportData


@dataclasses.dataclass(frozen=True)
class Report(ReportData):
    """A report; see `ReportData` for its fields.

    Example:
        >>> from keras_robust.evaluation import AttackResult, Report
        >>> pgd = AttackResult("PGD-20", "20 steps of 0.02", 0.1, 0.75, 96, 3.5)
        >>> report = Report("digits", "mlp", "TRADES", "Linf, radius 0.1, bounds [0, 1]",
        ...                 0.1, 100, 0, clean_accuracy=0.96, attacks=(pgd,),
        ...                 worst_case_accuracy=0.75)
        >>> Report.from_json(report.to_json()) == report
        True
    """

    def __repr__(self) -> str:
        what = ", ".join(filter(None, (self.dataset, self.model, self.defense)))
        return (
            f"<Report{' of ' if what else ''}{what}: {self.samples:,} images, clean "
            f"{self.clean_accuracy:.1%}, worst case {self.worst_case_accuracy:.1%} of "
            f"{', '.join(attack.name for attack in self.attacks) or 'no attacks'}>"
        )

    def _repr_html_(self) -> str:
        """The report in a notebook: summary, warnings and tables."""
        return report_html(self)

    def to_json(self) -> str:
        """The report as JSON, one field a line; `from_json` returns an equal report."""
        return report_to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote, in this release or in 0.1.

        Raises:
            ValueError: not a report, or one of another schema version.
        """
        with damage_named("report"):
            document = json.loads(text)
        if not isinstance(document, dict) or "reports" in document:
            raise ValueError("Expected the JSON of one report; `load_reports` reads any page.")
        with damage_named("report"):
            return cls(**read_fields(document))

    def save(self, directory: str | os.PathLike[str], formats: Iterable[str] = FORMATS) -> Path:
        """Writes `report.json`, `report.md` and `report.html` atomically; returns the directory.

        Args:
            directory: created if it does not exist.
            formats: some of `"json"`, `"md"` and `"html"`.

        Raises:
            ValueError: an unknown format.
            ImportError: the extra `report`, which the HTML page needs, is not installed; the
                other formats are written first.
        """
        return save_page((self,), directory, formats=formats)


def load_reports(path: str | os.PathLike[str]) -> tuple[Report, ...]:
    """Loads the reports of a page, in the order in which they were saved.

    Args:
        path: a `report.json` of one report or several, or the directory that contains it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a report of a schema version that this release reads.
    """
    path = Path(path)
    path = path / "report.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"No report at {path}; expected a report.json or its directory.")
    with damage_named("report"):
        document = read_json(path)
    several = isinstance(document, dict) and "reports" in document
    with damage_named("report"):
        found = document["reports"] if several else [document]
        return tuple(Report(**read_fields(values)) for values in found)
