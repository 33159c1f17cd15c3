"""What a report says in sentences: numbers as text, the summary, the warnings, the glossary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_robust.evaluation.report_data import ReportData
    from keras_robust.evaluation.results import Detection, DetectorResult

CAVEAT = (
    "A detector's score is no defense against an attacker who knows of it: such an attacker keeps "
    "the score low while changing the class. Rates for attacks that ignore the detector say "
    "nothing of that one."
)

CHECKS = (
    "A model may look robust because attacks by gradients fail on it, not because there is nothing "
    "to find. These checks look for that; they prove nothing where they pass."
)

_GLOSSARY = (
    ("Clean accuracy", "The share of test images that the model classifies correctly as they are."),
    (
        "Adversarial image",
        "A test image with a small change, computed to make the model err; most people see no "
        "difference that matters.",
    ),
    (
        "Threat model",
        "The set of changes that an attacker may make: a norm (how a change is measured), a "
        "radius (how large it may be) and bounds that every pixel stays in.",
    ),
    (
        "Radius",
        "How far an attacked image may be from the original, where pixels run from 0 (black) to "
        "1 (full). With the norm Linf, a radius of 0.1 lets each pixel change by a tenth of that "
        "range.",
    ),
    (
        "Robust accuracy",
        "The share of test images still classified correctly after an attack. It is an upper "
        "bound: an attack that was not tried may fool more images.",
    ),
    (
        "Worst case",
        "An image counts only if it withstood every attack of the report. This is the number to "
        "compare models by.",
    ),
    (
        "95% interval",
        "The Wilson score interval: how far the share could lie from the truth because only so "
        "many images were tested. Do not rank models whose intervals overlap.",
    ),
)
_DETECTION_GLOSSARY = (
    (
        "False-alarm rate",
        "The share of clean images that the detector flags as attacked. It is set on validation "
        "images and measured on test images.",
    ),
    ("Detection rate", "The share of attacked images that the detector flags."),
    (
        "Area under the ROC curve",
        "How often an attacked image scores above a clean one: 1 tells all of them apart, 0.5 is "
        "guessing. The interval is a bootstrap of 95%.",
    ),
)


def percent(share: float) -> str:
    """A share as text, to a tenth of a per cent.

    Example:
        >>> percent(0.6125)
        '61.3%'
    """
    # Half away from zero: `format` alone would round the binary neighbour of 61.25 either way.
    return f"{int(share * 1000 + 0.5 + 1e-9) / 10:.1f}%"


def interval(ends: tuple[float, float]) -> str:
    """An interval of shares as text.

    Example:
        >>> interval((0.4038, 0.5962))
        '40.4–59.6%'
    """
    return f"{percent(ends[0])[:-1]}\N{EN DASH}{percent(ends[1])}"


def radius_text(radius: float) -> str:
    """A radius as people write it: a short decimal, or so many of 255 grey levels.

    Example:
        >>> radius_text(0.3), radius_text(8 / 255), radius_text(0.123456)
        ('0.3', '8/255', '0.1235')
    """
    if abs(radius - round(radius, 3)) <= 1e-6:
        return f"{round(radius, 3):g}"
    levels = round(radius * 255)
    return f"{levels}/255" if abs(radius * 255 - levels) <= 1e-4 else f"{radius:.4g}"


def seconds_text(seconds: float) -> str:
    """A duration as text.

    Example:
        >>> seconds_text(3.52), seconds_text(754)
        ('3.5 s', '12 min 34 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def labels(reports: Sequence[ReportData]) -> tuple[str, ...]:
    """A name for each report, as short as keeps them apart: defense, then model, data, number."""
    names: list[str] = []
    for fields in (("defense",), ("defense", "model"), ("defense", "model", "dataset")):
        parts = [[getattr(report, field) for field in fields] for report in reports]
        names = [", ".join(filter(None, part)) for part in parts]
        if len(set(names)) == len(names) and all(names):
            return tuple(names)
    return tuple(f"{name or 'model'} ({number})" for number, name in enumerate(names, 1))


def page_title(reports: Sequence[ReportData]) -> str:
    """What a page is called when nobody gave it a name."""
    data = joined(tuple(dict.fromkeys(r.dataset for r in reports if r.dataset)))
    what = _name(reports[0]) if len(reports) == 1 else f"{len(reports)} models"
    return f"Robustness of {what}" + (f" on {data}" if data else "")


def summary(report: ReportData, label: str) -> str:
    """What was found, for a reader who knows none of the terms."""
    data = f" of {report.dataset}" if report.dataset else ""
    found = (
        f"Of {report.samples:,} test images{data}, {label} classifies "
        f"{percent(report.clean_accuracy)} correctly."
    )
    if not report.attacks:
        return f"{found} No attack was run, so this says nothing about its robustness."
    names = tuple(attack.name for attack in report.attacks)
    by = f"the attack {names[0]}" if len(names) == 1 else f"each of {len(names)} attacks"
    which = "" if len(names) == 1 else f" ({joined(names)})"
    end = "; an attack that was not tried may fool more."
    if report.unfinished:
        end = ". The evaluation was not finished: what was left out may fool more."
    return (
        f"{found} When an attacker may change each image within the threat model "
        f"({report.threat_model}), {percent(report.worst_case_accuracy)} are still classified "
        f"correctly after {by}{which}{end}"
    )


def summaries(reports: Sequence[ReportData]) -> tuple[str, ...]:
    """One `summary` for each report."""
    if len(reports) == 1:
        return (summary(reports[0], _name(reports[0])),)
    return tuple(
        summary(report, f"the model “{label}”")
        for report, label in zip(reports, labels(reports), strict=True)
    )


def _name(report: ReportData) -> str:
    model = report.model or "the model"
    return f"{model} ({report.defense})" if report.defense else model


def all_warnings(reports: Sequence[ReportData]) -> tuple[str, ...]:
    """The warnings of all reports, and one for each thing they do not have in common."""
    names = labels(reports)
    several = len(reports) > 1
    found = [
        f"{name}: {warning}" if several else warning
        for name, report in zip(names, reports, strict=True)
        for warning in (*filter(None, (report.unfinished,)), *report.warnings, *_doubts(report))
    ]
    for field, what in (
        ("dataset", "data"),
        ("threat_model", "threat models"),
        ("samples", "numbers of images"),
    ):
        values = dict.fromkeys(str(getattr(report, field)) for report in reports)
        if len(values) > 1:
            found.append(
                f"These reports have different {what} ({'; '.join(values)}), so their numbers "
                "cannot be compared directly."
            )
    if several and len({tuple(a.name for a in report.attacks) for report in reports}) > 1:
        found.append(
            "These reports have different attacks, so their worst cases cannot be compared "
            "directly."
        )
    return tuple(found)


def _doubts(report: ReportData) -> tuple[str, ...]:
    return tuple(
        f"The check of {check.name} failed. {check.sentence}"
        for check in report.checks
        if not check.passed
    )


def detection_text(detection: Detection) -> str:
    """What a detector did, against both attackers."""
    asked = detection.false_alarm_rate
    how = "by hand" if asked is None else f"for a false-alarm rate of {percent(asked)}"
    return (
        f"Images with a score above {detection.threshold:.4g} are flagged. The threshold was set "
        f"{how}; on the test images it flagged {percent(detection.measured_false_alarm_rate)} of "
        f"the clean ones. {_attackers_text(detection)}"
    )


def _attackers_text(detection: Detection) -> str:
    """One sentence for each attacker, and what the second means."""
    unaware, aware = detection.unaware, detection.aware
    ignoring = (
        f"Of the images of attacks that ignore the detector it flagged "
        f"{percent(unaware.detection_rate)}{_auc(unaware)}; "
        f"{percent(unaware.evasion_rate)} were misclassified and not flagged."
    )
    if aware is None:
        return f"{ignoring} No attack that knows the detector was run."
    return (
        f"{ignoring} Of those of an attack that knows it ({aware.name}) it flagged "
        f"{percent(aware.detection_rate)}{_auc(aware)}; {percent(aware.evasion_rate)} were "
        f"misclassified and not flagged. The second is what to expect once the score is known: "
        f"the attack lowers it while it changes the class, so only the images it still fails on "
        f"are protected."
    )


def _auc(attacker: DetectorResult) -> str:
    if attacker.auc is None:
        return ""
    low, high = attacker.auc_interval or (attacker.auc, attacker.auc)
    return f" (area under the ROC curve {attacker.auc:.3f}, {low:.3f} to {high:.3f})"


def glossary(reports: Sequence[ReportData]) -> tuple[tuple[str, str], ...]:
    """The terms that the page uses, each explained for a newcomer."""
    detecting = any(report.detection for report in reports)
    return _GLOSSARY + (_DETECTION_GLOSSARY if detecting else ())


def joined(names: Sequence[str]) -> str:
    """Names as an English list.

    Example:
        >>> joined(["FGSM", "PGD", "FAB"])
        'FGSM, PGD and FAB'
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
