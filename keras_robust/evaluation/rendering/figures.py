"""The plots of a page as data URIs, with captions and alternative texts."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import keras_robust.plots as plots
from keras_robust.detection.roc import roc as roc_of
from keras_robust.evaluation.rendering import wording

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
    evaluated = {report.radius for report in reports}
    marked = evaluated.pop() if len(evaluated) == 1 else None
    return _picture(
        "Accuracy over radius; higher is better."
        + (_CERTIFIED if any(report.certificates for report in reports) else ""),
        f"Lines of accuracy over radius. {'; '.join(texts)}.",
        functools.partial(plots.accuracy_over_radius, curves, radius=marked),
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
        pixels=True,
    )


def detection(report: ReportData) -> Picture | None:
    """Histograms of a detector's scores; None without a detector or its scores."""
    found = report.detection
    if found is None or not found.clean_scores or not found.oblivious.scores:
        return None
    clean, attacked = found.clean_scores, found.oblivious.scores
    return _picture(
        "Scores of clean and of attacked images; scores above the threshold are flagged.",
        f"Histograms of the score {found.score_name} on {len(clean)} clean and {len(attacked)} "
        f"attacked images. {wording.detection_text(found)}",
        functools.partial(
            plots.detection_scores,
            clean,
            attacked,
            found.threshold,
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


def _picture(caption: str, alt: str, draw: Callable[..., Figure], pixels: bool = False) -> Picture:
    return Picture(
        caption,
        alt,
        _image(draw(narrow=False), pixels),
        _image(draw(narrow=True), pixels),
    )


def _image(figure: Figure, pixels: bool) -> tuple[str, int, int]:
    """A figure as a data URI; as PNG if it shows images, whose pixels stay sharp."""
    kind, data = ("png", plots.to_png(figure)) if pixels else ("svg+xml", plots.to_svg(figure))
    width, height = (round(inches * PIXELS_PER_INCH) for inches in figure.get_size_inches())
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}", width, height
