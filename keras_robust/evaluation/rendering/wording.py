"""Texts of a report: formatted numbers, summary, warnings and glossary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_robust.evaluation.results.certification_result import CertificationResult
    from keras_robust.evaluation.results.parts import Detection, DetectorResult
    from keras_robust.evaluation.results.report_data import ReportData

CAVEAT = (
    "A detector is not a defense against an adaptive attack, which keeps the score low while it "
    "changes the prediction. Rates for oblivious attacks, which ignore the detector, do not hold "
    "for adaptive ones."
)

CHECKS = (
    "A model can look robust because gradient-based attacks fail on it although adversarial "
    "images exist (gradient masking). These sanity checks look for signs of that; passing them is "
    "not a proof of robustness."
)


def percent(fraction: float) -> str:
    """A fraction as text, to a tenth of a percent.

    Example:
        >>> percent(0.6125)
        '61.3%'
    """
    # Half away from zero: `format` alone would round the binary neighbor of 61.25 either way.
    return f"{int(fraction * 1000 + 0.5 + 1e-9) / 10:.1f}%"


def interval(ends: tuple[float, float]) -> str:
    """An interval of fractions as text.

    Example:
        >>> interval((0.4038, 0.5962))
        '40.4–59.6%'
    """
    return f"{percent(ends[0])[:-1]}\N{EN DASH}{percent(ends[1])}"


def radius_text(radius: float) -> str:
    """A radius as text: a short decimal, or below 1 a number of 255 gray levels.

    Example:
        >>> radius_text(0.3), radius_text(8 / 255), radius_text(0.123456), radius_text(2042 / 255)
        ('0.3', '8/255', '0.1235', '8.008')
    """
    if abs(radius - round(radius, 3)) <= 1e-6:
        return f"{round(radius, 3):g}"
    levels = round(radius * 255)
    is_level = radius < 1 and abs(radius * 255 - levels) <= 1e-4
    return f"{levels}/255" if is_level else f"{radius:.4g}"


def threat_text(report: ReportData) -> str:
    """The threat model in words.

    Example:
        >>> from keras_robust.evaluation import Report
        >>> threat = "LinfBall, radius 0.0313725, bounds (0, 1)"
        >>> threat_text(Report("", "", "", threat, 8 / 255, 1, 0, 1.0, (), 1.0))
        'every pixel may change by at most 8/255, on a scale from 0 to 1'
    """
    text, radius = report.threat_model, radius_text(report.radius)
    kind = re.split(r"\W", text, maxsplit=1)[0].removesuffix("Ball")
    words = _THREATS.get(kind)
    if words is None or "per_channel True" in text:
        return f"perturbations stay inside the threat model {text}" if text else ""
    scale = re.search(r"bounds [(\[]([^,]+), ([^)\]]+)[)\]]", text)
    inside = " inside the mask" if "mask" in text.lower() else ""
    range_text = f", on a scale from {scale[1]} to {scale[2]}" if scale else ""
    return words.format(radius=radius, inside=inside) + range_text


_THREATS = {
    "Linf": "every pixel{inside} may change by at most {radius}",
    "L2": "the changes of all pixels{inside} together may have a length (L2 norm) of {radius}",
    "L1": "the changes of all pixels{inside} may add up to {radius}",
    "L0": "at most {radius} pixels{inside} may change, by any amount",
}


def found_by_text(found_by: Mapping[str, int]) -> str:
    """Which attack fooled how many images first, as text.

    Example:
        >>> found_by_text({"PGD-20": 30, "Square-1000": 1})
        'PGD-20 (30 images) and Square-1000 (1 image)'
    """
    return joined([f"{name} ({n:,} image{'s' * (n != 1)})" for name, n in found_by.items()])


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
    """A short unique name per report: defense, then also model, data set, number."""
    names: list[str] = []
    for fields in (("defense",), ("defense", "model"), ("defense", "model", "dataset")):
        parts = [[getattr(report, field) for field in fields] for report in reports]
        names = [", ".join(filter(None, part)) for part in parts]
        if len(set(names)) == len(names) and all(names):
            return tuple(names)
    return tuple(f"{name or 'model'} ({number})" for number, name in enumerate(names, 1))


def page_title(reports: Sequence[ReportData]) -> str:
    """The default title of a page."""
    data = joined(tuple(dict.fromkeys(r.dataset for r in reports if r.dataset)))
    what = _name(reports[0]) if len(reports) == 1 else f"{len(reports)} models"
    return f"Robustness of {what}" + (f" on {data}" if data else "")


def summary(report: ReportData, label: str) -> str:
    """The main results in two sentences, for readers who do not know the terms."""
    data = f" of {report.dataset}" if report.dataset else ""
    clean = (
        f"Of {report.samples:,} test images{data}, {label} classifies "
        f"{percent(report.clean_accuracy)} correctly."
    )
    if not report.attacks:
        return f"{clean} No attack was run, so this says nothing about its robustness."
    names = tuple(attack.name for attack in report.attacks)
    several = f"each of {len(names)} attacks ({joined(names)})"
    by = f"the attack {names[0]}" if len(names) == 1 else several
    others = [name for name in report.worst_case_found_by if name not in names]
    by += f" and all else that was run ({joined(others)})" if others else ""
    end = "; other attacks may fool more."
    if report.unfinished:
        end = ". The evaluation is unfinished; the attacks left out may fool more."
    threat = threat_text(report) or "perturbations stay inside the threat model"
    return (
        f"{clean} If {threat}, {percent(report.worst_case_accuracy)} are still classified "
        f"correctly under {by}{end}{_proofs(report)}"
    )


def _proofs(report: ReportData) -> str:
    """What is certified, in sentences."""
    text = ""
    if report.proofs:
        each = [f"{r.name} certifies {percent(r.certified_accuracy)}" for r in report.proofs]
        text += (
            f" {joined(each)}: no perturbation inside the threat model changes these predictions."
        )
        if report.attacks:
            text += f" {max(report.unproven, 0):,} images are neither broken nor proven."
    for result in report.certificates:
        if result.smoothed:
            text += (
                f" The smoothed classifier ({result.name}) is certified on "
                f"{percent(result.certified_accuracy)} of the images."
            )
    return text


def certificate_text(result: CertificationResult, names: str) -> str:
    """What a certification proves, the caption of its table."""
    if not result.smoothed:
        return (
            f"Proofs by {names} on {result.samples:,} images, with the 95% interval. A certified "
            "image cannot be misclassified by any perturbation inside the threat model; one that "
            "is not certified may be robust all the same."
        )
    return (
        f"Proofs by randomized {names} on {result.samples:,} images, with the 95% interval. They "
        "are about the smoothed classifier, which is not the one that was attacked, and each of "
        f"them fails with probability at most {result.settings.get('alpha')}."
    )


def settings_text(result: CertificationResult) -> str:
    """The settings of a certification as text."""
    radii = joined([radius_text(radius) for radius in result.radii])
    settings = (f"{name} {value}" for name, value in result.settings.items())
    return ", ".join([f"method {result.method}", *settings, f"radii {radii}"])


def errors(reports: Sequence[ReportData]) -> tuple[str, ...]:
    """The errors of the library that the reports reveal."""
    names, several = labels(reports), len(reports) > 1
    return tuple(
        f"{name}: {error}" if several else error
        for name, report in zip(names, reports, strict=True)
        for error in report.errors
    )


def summaries(reports: Sequence[ReportData]) -> tuple[str, ...]:
    """One `summary`, of models that can be compared too; else one per report."""
    if len(reports) == 1:
        return (summary(reports[0], _name(reports[0])),)
    settings = {(r.dataset, r.samples, r.threat_model, len(r.attacks) > 0) for r in reports}
    if len(settings) == 1 and reports[0].attacks:
        return (_joint_summary(reports),)
    return tuple(
        summary(report, f"the model “{label}”")
        for report, label in zip(reports, labels(reports), strict=True)
    )


def _joint_summary(reports: Sequence[ReportData]) -> str:
    """The most and the least robust of several models, in one sentence and a caveat."""
    named = sorted(
        zip(labels(reports), reports, strict=True), key=lambda pair: pair[1].worst_case_accuracy
    )
    (low, least), (high, most) = named[0], named[-1]
    data = f" of {most.dataset}" if most.dataset else ""
    threat = threat_text(most) or "perturbations stay inside the threat model"
    proven = " The table has what is certified." if any(r.certificates for r in reports) else ""
    return (
        f"If {threat}, the most robust of {len(reports)} models, “{high}”, still classifies "
        f"{percent(most.worst_case_accuracy)} of {most.samples:,} test images{data} correctly in "
        f"the worst case of all attacks, and the least robust, “{low}”, "
        f"{percent(least.worst_case_accuracy)}. Other attacks may fool more.{proven}"
    )


def _name(report: ReportData) -> str:
    """The model and its defense, without the options of the defense."""
    model, defense = report.model or "the model", report.defense.split(", ")[0]
    return f"{model} ({defense})" if defense else model


def all_warnings(reports: Sequence[ReportData]) -> tuple[str, ...]:
    """The warnings of all reports, and one for each setting in which the reports differ."""
    names = labels(reports)
    several = len(reports) > 1
    found = [
        f"{name}: {warning}" if several else warning
        for name, report in zip(names, reports, strict=True)
        for warning in (*filter(None, (report.unfinished,)), *report.warnings, *_failed(report))
    ]
    for field, what in (
        ("dataset", "data sets"),
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


def _failed(report: ReportData) -> tuple[str, ...]:
    return tuple(
        f"The sanity check “{check.name}” failed. {check.message}"
        for check in report.checks
        if not check.passed
    )


def detection_text(detection: Detection) -> str:
    """The results of a detector under oblivious and adaptive attacks."""
    target = detection.false_alarm_rate
    how = "by hand" if target is None else f"for a false-alarm rate of {percent(target)}"
    return (
        f"Images with a score above {detection.threshold:.4g} are flagged. The threshold was set "
        f"{how}; {percent(detection.measured_false_alarm_rate)} of the clean test images are "
        f"flagged. {_results_text(detection)}"
    )


def _results_text(detection: Detection) -> str:
    oblivious, adaptive = detection.oblivious, detection.adaptive
    text = f"Under oblivious attacks, {_rates(oblivious)}."
    if adaptive is None:
        return f"{text} No adaptive attack was run."
    return (
        f"{text} Under the adaptive attack “{adaptive.name}”, {_rates(adaptive)}. Expect the "
        "adaptive rates once attackers know the detector: only images on which such an attack "
        "still fails are protected."
    )


def _rates(result: DetectorResult) -> str:
    left = ""
    if result.accuracy is not None:
        left = f"; an accuracy of {percent(result.accuracy)} is left"
    area = ""
    if result.auc is not None:
        low, high = result.auc_interval or (result.auc, result.auc)
        area = f" (area under the ROC curve {result.auc:.3f}, {low:.3f} to {high:.3f})"
    return (
        f"{percent(result.detection_rate)} of the attacked images are flagged{area} and "
        f"{percent(result.evasion_rate)} are misclassified and not flagged{left}"
    )


def joined(names: Sequence[str]) -> str:
    """Names as an English list.

    Example:
        >>> joined(["FGSM", "PGD", "FAB"])
        'FGSM, PGD and FAB'
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
