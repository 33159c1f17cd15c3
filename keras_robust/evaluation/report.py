"""The report of an evaluation: `ReportData` that can be saved, printed and read back."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from keras_robust.evaluation.example_images import ExampleImages, decode_images, encode_images
from keras_robust.evaluation.rendering.page import FORMATS, save_page
from keras_robust.evaluation.report_data import ReportData
from keras_robust.evaluation.results import (
    AttackResult,
    Check,
    Curve,
    Detection,
    DetectorResult,
    Part,
)

SCHEMA_VERSION = 2


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
        >>> print("{:.3f} {:.3f}".format(*report.worst_case_interval))
        0.657 0.825
    """

    def to_json(self) -> str:
        """The whole report as JSON, one field a line; `from_json` gives an equal report back."""
        document = {"schema_version": SCHEMA_VERSION, **_fields(self)}
        lines = (
            f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"
            for name, value in document.items()
        )
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote.

        Args:
            text: the content of a `report.json`.

        Returns:
            An equal report.

        Raises:
            ValueError: for text that is not a report, or one of another schema version.
        """
        document = json.loads(text)
        if not isinstance(document, dict) or "reports" in document:
            raise ValueError("Expected the JSON of one report; `load_reports` reads any page.")
        return _report(document)

    def save(self, directory: str | os.PathLike[str], formats: Iterable[str] = FORMATS) -> Path:
        """Writes `report.json`, `report.md` and `report.html`, each in one atomic step.

        Args:
            directory: made if it is not there.
            formats: which of `"json"`, `"md"` and `"html"` to write.

        Returns:
            The directory.

        Raises:
            ValueError: for an unknown format.
            ImportError: when the HTML page is asked for and the extra `report` is not installed;
                the other formats are on disk by then.
        """
        return save_page((self,), directory, formats=formats)


def load_reports(path: str | os.PathLike[str]) -> tuple[Report, ...]:
    """Reads the reports of a page, to compare them with others.

    Args:
        path: a `report.json`, or the directory that holds it; one report or several.

    Returns:
        The reports, in the order in which they were saved.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when the file is not a report of a schema version that this release reads.
    """
    path = Path(path)
    path = path / "report.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"No report at {path}; expected a report.json or its directory.")
    document = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(document, dict) and "reports" in document:
        return tuple(_report(one) for one in document["reports"])
    return (_report(document),)


def _fields(part: Any) -> Any:
    """A dataclass as plain JSON values, images packed."""
    if isinstance(part, ExampleImages):
        packed = {name: encode_images(getattr(part, name)) for name in ("clean", "adversarial")}
        return {**{f.name: getattr(part, f.name) for f in dataclasses.fields(part)}, **packed}
    if dataclasses.is_dataclass(part):
        return {f.name: _fields(getattr(part, f.name)) for f in dataclasses.fields(part)}
    return [_fields(item) for item in part] if isinstance(part, tuple) else part


def _report(document: Any) -> Report:
    """A report from plain JSON values."""
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"The report has schema version {version!r}; this release of keras_robust reads "
            f"{SCHEMA_VERSION}. Evaluate the model again, or use the release that wrote the report."
        )
    values = {name: value for name, value in document.items() if name != "schema_version"}
    # Absent from reports that were written before there were any.
    values = {"checks": [], "unfinished": "", **values}
    known = {field.name for field in dataclasses.fields(Report)}
    if set(values) != known:
        missing, unknown = sorted(known - set(values)), sorted(set(values) - known)
        raise ValueError(f"Not a report: fields missing {missing}, unknown {unknown}.")
    values["attacks"] = tuple(map(_attack, values["attacks"]))
    values["curves"] = tuple(Curve(**curve) for curve in values["curves"])
    values["checks"] = tuple(Check(**check) for check in values["checks"])
    if values["detection"] is not None:
        values["detection"] = _detection(values["detection"])
    if values["examples"] is not None:
        images = {n: decode_images(values["examples"][n]) for n in ("clean", "adversarial")}
        values["examples"] = ExampleImages(**{**values["examples"], **images})
    return Report(**values)


def _attack(values: dict[str, Any]) -> AttackResult:
    """What an attack left, from plain JSON values."""
    return AttackResult(**{**values, "parts": tuple(Part(**p) for p in values.get("parts", ()))})


def _detection(values: dict[str, Any]) -> Detection:
    """What was said of a detector, from plain JSON values."""
    attackers = {
        name: None if values[name] is None else DetectorResult(**values[name])
        for name in ("unaware", "aware")
    }
    return Detection(**{**values, **attackers})
