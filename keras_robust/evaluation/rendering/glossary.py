"""The terms of a report, with explanations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_robust.evaluation.results.report_data import ReportData

_GLOSSARY = (
    ("Clean accuracy", "The fraction of test images classified correctly without an attack."),
    (
        "Adversarial image",
        "A test image with a small perturbation, computed to make the model misclassify it; to "
        "most people it looks unchanged.",
    ),
    (
        "Threat model",
        "The set of allowed perturbations: a norm (how a change is measured), a radius (how large "
        "it may be) and bounds that every pixel stays in.",
    ),
    (
        "Radius",
        "The largest allowed distance between an attacked image and the original, where pixels "
        "run from 0 (black) to 1 (full intensity). With the norm Linf, a radius of 0.1 lets each "
        "pixel change by up to a tenth of that range.",
    ),
    (
        "Robust accuracy",
        "The fraction of test images still classified correctly after an attack. It is an upper "
        "bound: other attacks may fool more images.",
    ),
    (
        "Worst case",
        "An image counts as correct only if nothing that was run found an adversarial image of it "
        "inside the threat model: no attack, no adaptive attack on a detector, no sanity check. "
        "Compare models by this number.",
    ),
    (
        "95% interval",
        "The Wilson score interval: the accuracies compatible with the limited number of test "
        "images. Do not rank models whose intervals overlap.",
    ),
)
_DETECTION_GLOSSARY = (
    (
        "False-alarm rate",
        "The fraction of clean images that the detector flags as attacked. It is set on "
        "validation images and measured on test images.",
    ),
    ("Detection rate", "The fraction of attacked images that the detector flags."),
    (
        "Oblivious and adaptive attacks",
        "An oblivious attack ignores the detector; an adaptive attack also lowers its score.",
    ),
    (
        "Area under the ROC curve",
        "The probability that an attacked image scores above a clean one: 1 is perfect "
        "separation, 0.5 is guessing. The interval is a 95% bootstrap interval.",
    ),
)
_CERTIFICATE_GLOSSARY = (
    (
        "Certified accuracy",
        "The fraction of test images that are classified correctly and proven to stay so under "
        "every perturbation inside the threat model. It is a lower bound, where the accuracy under "
        "attacks is an upper bound: the fraction of robust images lies between the two.",
    ),
    (
        "Neither broken nor proven",
        "The images for which no adversarial image was found although the proof does not cover "
        "them: a stronger attack might fool them, or a tighter method might certify them.",
    ),
)
_SMOOTHING_GLOSSARY = (
    (
        "Smoothed classifier",
        "It predicts the class that the classifier most often predicts under Gaussian noise, and "
        "abstains where its samples do not decide, which counts as misclassified. It is another "
        "classifier than the one that was attacked, so the two accuracies are no bounds of each "
        "other.",
    ),
)


def glossary(reports: Sequence[ReportData]) -> tuple[tuple[str, str], ...]:
    """The terms that the page uses, with explanations."""
    found: list[tuple[tuple[str, str], ...]] = [_GLOSSARY]
    if any(report.certificates for report in reports):
        found.append(_CERTIFICATE_GLOSSARY)
    if any(result.smoothed for report in reports for result in report.certificates):
        found.append(_SMOOTHING_GLOSSARY)
    if any(report.detection for report in reports):
        found.append(_DETECTION_GLOSSARY)
    return tuple(term for terms in found for term in terms)
