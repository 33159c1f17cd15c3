"""The report of an evaluation: the one place that holds, writes and prints numbers."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from keras_robust.evaluation.example_images import ExampleImages, decode_images, encode_images
from keras_robust.evaluation.page import FORMATS, save_page
from keras_robust.evaluation.results import (
    Attacker,
    AttackResult,
    Check,
    Curve,
    Detection,
    Part,
    amount,
    settle,
    share,
    texts,
    whole,
    wilson_interval,
)

__all__ = [
    "SCHEMA_VERSION",
    "AttackResult",
    "Attacker",
    "Check",
    "Curve",
    "Detection",
    "ExampleImages",
    "Part",
    "Report",
    "load_reports",
    "save_page",
    "wilson_interval",
]

SCHEMA_VERSION = 2
Counts = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """What was measured on one model: accuracies with everything needed to measure them again.

    Accuracies are shares in [0, 1] of all `samples`; radii are in units of the [0, 1] pixel range.

    Args:
        dataset: name of the data.
        model: name of the classifier.
        defense: how it was trained.
        threat_model: where an attacked image may be, such as `"Linf, radius 0.3, bounds [0, 1]"`.
        radius: the radius of the threat model.
        samples: how many test images were used.
        seed: the seed of the attacks.
        clean_accuracy: accuracy on the images as they are.
        attacks: one result per attack, in the order in which they ran; names are unique.
        worst_case_accuracy: share of images that no attack could fool.
        curves: accuracy over radius.
        confusion_clean: counts `[classes][classes]`, one row per true class; or None.
        confusion_adversarial: the same on attacked images; or None.
        class_names: one name per class.
        detection: scores and rates of a detector, or None.
        versions: package name -> version.
        warnings: reasons to doubt the numbers.
        command: the command that made them.
        examples: a few images to show, or None.
        checks: whether there are reasons to doubt the figures; names are unique.
        unfinished: what was left undone when a time budget was spent, and how to go on; empty where
            nothing was.

    Raises:
        ValueError: for numbers that cannot be: shares outside [0, 1], attacks with the same name,
            a confusion matrix of another size than the class names.

    Example:
        >>> pgd = AttackResult("PGD-20", "20 steps of 0.02", 0.1, 0.75, 96, 3.5)
        >>> report = Report("digits", "mlp", "TRADES", "Linf, radius 0.1, bounds [0, 1]",
        ...                 0.1, 100, 0, clean_accuracy=0.96, attacks=(pgd,),
        ...                 worst_case_accuracy=0.75)
        >>> Report.from_json(report.to_json()) == report
        True
        >>> print("{:.3f} {:.3f}".format(*report.worst_case_interval))
        0.657 0.825
    """

    dataset: str
    model: str
    defense: str
    threat_model: str
    radius: float
    samples: int
    seed: int
    clean_accuracy: float
    attacks: tuple[AttackResult, ...]
    worst_case_accuracy: float
    curves: tuple[Curve, ...] = ()
    confusion_clean: Counts | None = None
    confusion_adversarial: Counts | None = None
    class_names: tuple[str, ...] = ()
    detection: Detection | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    command: str = ""
    examples: ExampleImages | None = None
    checks: tuple[Check, ...] = ()
    unfinished: str = ""

    def __post_init__(self) -> None:
        settle(
            self,
            radius=amount("radius", self.radius),
            samples=whole("samples", self.samples, at_least=1),
            seed=int(self.seed),
            clean_accuracy=share("clean_accuracy", self.clean_accuracy),
            worst_case_accuracy=share("worst_case_accuracy", self.worst_case_accuracy),
            attacks=_unique("attacks", self.attacks),
            curves=_unique("curves", self.curves),
            checks=_unique("checks", self.checks),
            class_names=texts(self.class_names),
            versions={str(name): str(version) for name, version in self.versions.items()},
            warnings=texts(self.warnings),
        )
        for name in ("confusion_clean", "confusion_adversarial"):
            settle(self, **{name: self._counts(name)})
        shown = self.examples
        if shown is not None and self.class_names:
            highest = max(shown.labels + shown.clean_predictions + shown.adversarial_predictions)
            if highest >= len(self.class_names):
                raise ValueError(
                    f"examples hold class {highest}; expected less than the "
                    f"{len(self.class_names)} of class_names."
                )

    def _counts(self, name: str) -> Counts | None:
        matrix = getattr(self, name)
        if matrix is None:
            return None
        counts = tuple(tuple(whole(name, count) for count in row) for row in matrix)
        classes = len(self.class_names)
        if {len(counts), *map(len, counts)} != {classes}:
            raise ValueError(
                f"{name} has {len(counts)} rows of {sorted(set(map(len, counts)))} columns; "
                f"expected {classes} of both, one for each of class_names."
            )
        return counts

    @property
    def clean_interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the clean accuracy."""
        return wilson_interval(self.clean_accuracy, self.samples)

    @property
    def worst_case_interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the worst-case accuracy."""
        return wilson_interval(self.worst_case_accuracy, self.samples)

    @property
    def attack_intervals(self) -> tuple[tuple[float, float], ...]:
        """The 95 % Wilson interval of each attack's accuracy, in the order of `attacks`."""
        return tuple(wilson_interval(attack.accuracy, self.samples) for attack in self.attacks)

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
        name: None if values[name] is None else Attacker(**values[name])
        for name in ("unaware", "aware")
    }
    return Detection(**{**values, **attackers})


def _unique(what: str, parts: Iterable[Any]) -> tuple[Any, ...]:
    """`parts` as a tuple, after a check that no two have the same name."""
    parts = tuple(parts)
    names = [part.name for part in parts]
    if len(set(names)) != len(names):
        raise ValueError(f"{what} are named {names}; expected names that differ.")
    return parts
