"""Reports as JSON: writing, and reading of this and earlier schema versions."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from keras_robust.evaluation.results.certification_result import CertificationResult
from keras_robust.evaluation.results.corruption_data import CorruptionData
from keras_robust.evaluation.results.example_images import (
    ExampleImages,
    decode_images,
    encode_images,
)
from keras_robust.evaluation.results.parts import (
    AttackResult,
    Check,
    Curve,
    Detection,
    DetectorResult,
    Part,
)
from keras_robust.evaluation.results.report_data import ReportData

SCHEMA_VERSION = 4
_READABLE = (2, 3, 4)
# Names of schema 2, which release 0.1 wrote -> names since.
_FORMER_DETECTION = {"unaware": "oblivious", "aware": "adaptive"}
_FORMER_CHECK = {"sentence": "message"}


def report_to_json(report: ReportData) -> str:
    """A report as JSON, one field a line."""
    document = {"schema_version": SCHEMA_VERSION, **_values(report)}
    lines = (
        f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"
        for name, value in document.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def page_to_json(reports: Sequence[ReportData], title: str) -> str:
    """One report as JSON, or several as `{"title", "reports"}`."""
    if len(reports) == 1:
        return report_to_json(reports[0])
    inner = ",\n".join(report_to_json(report).rstrip("\n") for report in reports)
    return f'{{"title": {json.dumps(title, ensure_ascii=False)}, "reports": [\n{inner}\n]}}\n'


def _values(part: Any) -> Any:
    """A dataclass as plain JSON values, images packed."""
    if isinstance(part, ExampleImages):
        packed = {name: encode_images(getattr(part, name)) for name in ("clean", "adversarial")}
        return {**{f.name: getattr(part, f.name) for f in dataclasses.fields(part)}, **packed}
    if dataclasses.is_dataclass(part):
        return {f.name: _values(getattr(part, f.name)) for f in dataclasses.fields(part) if f.repr}
    if isinstance(part, tuple):
        return [_values(item) for item in part]
    return None if isinstance(part, float) and part == math.inf else part  # not in JSON


# What a damaged value raises where plain values become dataclasses.
DAMAGE = (
    TypeError, KeyError, AttributeError, OverflowError, IndexError, RecursionError, MemoryError,
    zlib.error,
)  # fmt: skip


@contextlib.contextmanager
def damage_named(what: str) -> Iterator[None]:
    """Turns errors of damaged values into a ValueError that names the file's kind."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(
            f"The {what} is damaged ({type(error).__name__}: {error}); expected what "
            "keras_robust wrote. Write it again."
        ) from error


def read_fields(document: Any) -> dict[str, Any]:
    """The fields of `ReportData` from the JSON values of one report.

    Raises:
        ValueError: not a report, one of a schema version that this release cannot read, or one with
            damaged values.
    """
    with damage_named("report"):
        return _read_fields(document)


def _read_fields(document: Any) -> dict[str, Any]:
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, bool) or version not in _READABLE:
        raise ValueError(
            f"The report has schema version {version!r}; this release of keras_robust reads "
            f"{', '.join(map(str, _READABLE))}. Evaluate the model again, or use the release "
            "that wrote the report."
        )
    values = {name: value for name, value in document.items() if name != "schema_version"}
    # Absent from the reports of earlier releases.
    absent = {"checks": [], "unfinished": "", "worst_case_found_by": {}, "certificates": [],
              "outcomes": "", "images_digest": "", "date": "", "hardware": ""}  # fmt: skip
    values = {**absent, "budget_per_image": None, "corruptions": None, **values}
    known = {field.name for field in dataclasses.fields(ReportData)}
    if set(values) != known:
        missing, unknown = sorted(known - set(values)), sorted(set(values) - known)
        raise ValueError(f"Not a report: fields missing {missing}, unknown {unknown}.")
    values["attacks"] = tuple(map(_read_attack, values["attacks"]))
    values["curves"] = tuple(Curve(**curve) for curve in values["curves"])
    values["certificates"] = tuple(CertificationResult(**c) for c in values["certificates"])
    values["checks"] = tuple(_read_check(_renamed(c, _FORMER_CHECK)) for c in values["checks"])
    if values["corruptions"] is not None:
        values["corruptions"] = CorruptionData(**values["corruptions"])
    if values["detection"] is not None:
        values["detection"] = _read_detection(values["detection"])
    if values["examples"] is not None:
        images = {n: decode_images(values["examples"][n]) for n in ("clean", "adversarial")}
        values["examples"] = ExampleImages(**{**values["examples"], **images})
    return values


def _renamed(values: dict[str, Any], former: dict[str, str]) -> dict[str, Any]:
    return {former.get(name, name): value for name, value in values.items()}


def _read_check(values: dict[str, Any]) -> Check:
    if "fooled" in values:  # never saved
        raise ValueError("A check has the unknown field fooled.")
    return Check(**values)


def _read_attack(values: dict[str, Any]) -> AttackResult:
    return AttackResult(**{**values, "parts": tuple(Part(**p) for p in values.get("parts", ()))})


def _read_detection(values: dict[str, Any]) -> Detection:
    values = _renamed(values, _FORMER_DETECTION)
    if values["oblivious"] is None:
        raise ValueError("The detection has no result for oblivious attacks.")
    for name in ("oblivious", "adaptive"):
        values[name] = None if values[name] is None else DetectorResult(**values[name])
    return Detection(**values)
