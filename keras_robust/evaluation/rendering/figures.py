"""The plots of a page as data URIs, with captions and alternative texts."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import keras_robust.plots as plots
from keras_robust.detection.roc import roc as roc_of
from keras_robust.evaluation.rendering import tables, wording
from keras_robust.evaluation.results.parts import wilson_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_robust.evaluation.results.report_data import ReportData

SHOWN = 8  # example images on the page; report.json keeps all of them
PIXELS_PER_INCH = 96
_CERTIFIED = (
    " The fraction of images that are robust lies between the certified accuracy and the accuracy "
    "under attack of the same classifier."
)


class Picture(NamedTuple):
    """A plot, drawn once for wide and once for narrow screens.

    `wide` and `narrow` are (data URI, width, height) with sizes in CSS pixels.
    """

    caption: str
    alt: str
    wide: tuple[str, int, int]
    narrow: tuple[str, int, int]


def radius(reports: Sequence[ReportData]) -> Picture | None:
    """Accuracy over radius of all reports in one plot; None without curves."""
    curves = {
        label: {
            curve.name: (curve.radii, curve.accuracies) for curve in report.curves_and_certificates
        }
        for label, report in zip(wording.labels(reports), reports, strict=True)
        if report.curves_and_certificates
    }
    if not curves:
        return None
    texts = (
        f"{name} on {label}: {wording.percent(accuracies[0])} at radius "
        f"{wording.radius_text(radii[0])}, {wording.percent(accuracies[-1])} at "
        f"{wording.radius_text(radii[-1])}"
        for label, by_name in curves.items()
        for name, (radii, accuracies) in by_name.items()
    )
    intervals = {
        label: {
            name: [wilson_interval(accuracy, report.samples) for accuracy in accuracies]
            for name, (_, accuracies) in curves[label].items()
        }
        for label, report in zip(wording.labels(reports), reports, strict=True)
        if label in curves
    }
    guesses = {tables.chance(report) for report in reports}
    evaluated = {report.radius for report in reports}
    marked = evaluated.pop() if len(evaluated) == 1 else None
    return _picture(
        "Accuracy over radius, with the 95% interval of the limited number of test images as a "
        "band; higher is better."
        + (_CERTIFIED if any(report.certificates for report in reports) else ""),
        f"Lines of accuracy over radius. {'; '.join(texts)}.",
        functools.partial(
            plots.accuracy_over_radius,
            curves,
            intervals=intervals,
            chance=guesses.pop() if len(guesses) == 1 else None,
            radius=marked,
        ),
    )


def confusion(report: ReportData) -> Picture | None:
    """The confusion matrices of a report; None without any."""
    clean, attacked = report.confusion_clean, report.confusion_adversarial
    if clean is None and attacked is None:
        return None
    shown = wording.joined([n for n, m in (("clean", clean), ("attacked", attacked)) if m])
    return _picture(
        "Confusion matrices: one row per true class, one column per predicted class. The shade is "
        "the fraction of the true class; numbers count images.",
        f"Confusion matrices of {shown} images, {len(report.class_names)} classes.",
        functools.partial(plots.confusion_matrix, clean, attacked, report.class_names),
    )


def examples(report: ReportData) -> Picture | None:
    """A few images before and after the attack; None without any."""
    images = report.examples
    if images is None:
        return None
    labels, predictions = images.labels[:SHOWN], images.adversarial_predictions[:SHOWN]
    draw = functools.partial(
        plots.example_images,
        images.clean[:SHOWN],
        images.adversarial[:SHOWN],
        labels,
        images.clean_predictions[:SHOWN],
        predictions,
        report.class_names or None,
    )
    fooled = sum(predicted != label for predicted, label in zip(predictions, labels, strict=True))
    return _picture(
        "Test images before and after the attack, and the perturbations, amplified as stated "
        "(gray: unchanged). Below each image: the predicted class.",
        f"{len(labels)} example images, their perturbations, and the attacked images, "
        f"{fooled} of which fool the model.",
        draw,
    )


def detection(report: ReportData) -> Picture | None:
    """Histograms of a detector's scores; None without a detector or its scores."""
    found = report.detection
    if found is None or not found.clean_scores or not found.oblivious.scores:
        return None
    clean, attacked = found.clean_scores, found.oblivious.scores
    adaptive = found.adaptive.scores if found.adaptive else ()
    return _picture(
        "Scores of clean images and of attacked ones: the oblivious attack ignores the detector, "
        "the adaptive one evades it. Scores above the threshold are flagged.",
        f"Histograms of the score {found.score_name} on {len(clean)} clean and {len(attacked)} "
        f"attacked images. {wording.detection_text(found)}",
        functools.partial(
            plots.detection_scores,
            clean,
            attacked,
            found.threshold,
            adaptive_scores=adaptive or None,
            score_name=found.score_name,
        ),
    )


def roc(report: ReportData) -> Picture | None:
    """ROC curves under the oblivious and the adaptive attack; None without scores."""
    found = report.detection
    if found is None or not found.clean_scores or not found.oblivious.scores:
        return None
    curves = {
        name: roc_of(found.clean_scores, result.scores)
        for name, result in zip(("oblivious", "adaptive"), found.results, strict=False)
        if result.scores
    }
    areas = ", ".join(f"{name}: {curve.auc:.3f}" for name, curve in curves.items())
    return _picture(
        "Detection rate over false-alarm rate at every threshold, under oblivious and adaptive "
        "attacks.",
        f"ROC curves of the score {found.score_name}; areas under them: {areas}.",
        functools.partial(plots.roc_curves, curves, false_alarm_rate=found.false_alarm_rate),
    )


def _picture(caption: str, alt: str, draw: Callable[..., Figure]) -> Picture:
    return Picture(caption, alt, _image(draw(narrow=False)), _image(draw(narrow=True)))


def _image(figure: Figure) -> tuple[str, int, int]:
    """A figure as a data URI, with colors for dark pages."""
    data = base64.b64encode(plots.to_svg(figure, dark=True)).decode()
    width, height = (round(inches * PIXELS_PER_INCH) for inches in figure.get_size_inches())
    return f"data:image/svg+xml;base64,{data}", width, height
