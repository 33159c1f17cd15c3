"""The measurements of one model as plain data: no input or output, no rendering."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from keras_robust.evaluation.results.certification_result import CertificationResult
from keras_robust.evaluation.results.corruption_data import CorruptionData
from keras_robust.evaluation.results.example_images import ExampleImages
from keras_robust.evaluation.results.fields import (
    check_fields,
    fraction,
    integer,
    nonnegative,
    sequence,
    set_fields,
    strings,
    text,
)
from keras_robust.evaluation.results.optimality import optimality
from keras_robust.evaluation.results.parts import (
    AttackResult,
    Check,
    Curve,
    Detection,
    wilson_interval,
)

Counts = tuple[tuple[int, ...], ...]
_ROUNDING = 1e-9
# The outcomes of an image: nothing that was run fooled the model; something did; the clean image
# is misclassified already.
ROBUST, FOOLED, MISCLASSIFIED = "r", "f", "m"


@dataclasses.dataclass(frozen=True)
class ReportData:
    """The measurements of one model, with everything needed to repeat them.

    Accuracies are fractions in [0, 1] of all `samples`; radii are in the units of the images.

    Args:
        dataset: name of the data set.
        model: name of the classifier.
        defense: how it was trained.
        threat_model: allowed perturbations, such as `"Linf, radius 0.3, bounds [0, 1]"`.
        radius: radius of the threat model.
        samples: number of test images.
        seed: seed of the attacks.
        clean_accuracy: accuracy on clean images.
        attacks: one result per attack, in the order in which they ran; names are unique.
        worst_case_accuracy: fraction of images for which no adversarial image was found inside the
            ball, by the attacks or by anything else that ran.
        curves: accuracy over radius.
        confusion_clean: counts `[classes][classes]`, one row per true class; or None.
        confusion_adversarial: the same on attacked images; or None.
        class_names: one name per class.
        detection: scores and rates of a detector, or None.
        versions: package name -> version.
        warnings: reasons why the numbers may be wrong or misleading.
        command: the command that made the report.
        examples: a few images to show, or None.
        checks: sanity checks for gradient masking; names are unique.
        unfinished: what a time budget left out, and how to resume; empty for a complete report.
        worst_case_found_by: attack -> number of images that it was the first to fool; empty in
            reports of earlier releases.
        certificates: results of `certify`; names are unique.
        outcomes: a letter for each image, in order: `r` robust, `f` fooled, `m` misclassified
            already; empty in reports of earlier releases.
        images_digest: SHA-256 of the images and labels; empty in reports of earlier releases.
        budget_per_image: the largest number of passes of one attack on one image, or None.
        date: when the evaluation ended, in UTC; empty in reports of earlier releases. Equal
            measurements of other days are equal reports.
        hardware: the machine that ran it; as for `date`.
        corruptions: accuracy under common corruptions, or None.

    Raises:
        ValueError: out-of-range values, attacks with the same name, a confusion matrix of
            another size than the class names, or certificates of another number of images.
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
    worst_case_found_by: dict[str, int] = dataclasses.field(default_factory=dict)
    certificates: tuple[CertificationResult, ...] = ()
    outcomes: str = ""
    images_digest: str = ""
    budget_per_image: int | None = None
    date: str = dataclasses.field(default="", compare=False)
    hardware: str = dataclasses.field(default="", compare=False)
    corruptions: CorruptionData | None = None

    def __post_init__(self) -> None:
        names = ("dataset", "model", "defense", "threat_model", "command", "unfinished",
                 "outcomes", "images_digest", "date", "hardware")  # fmt: skip
        check_fields(self, **dict.fromkeys(names, text))
        for name in ("versions", "worst_case_found_by"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected names with values.")
        set_fields(
            self,
            radius=nonnegative("radius", self.radius),
            samples=integer("samples", self.samples, least=1),
            seed=integer("seed", self.seed, least=-(2**63)),
            clean_accuracy=fraction("clean_accuracy", self.clean_accuracy),
            worst_case_accuracy=fraction("worst_case_accuracy", self.worst_case_accuracy),
            attacks=_unique("attacks", self.attacks),
            curves=_unique("curves", self.curves),
            checks=_unique("checks", self.checks),
            certificates=_unique("certificates", self.certificates),
            class_names=strings("class_names", self.class_names),
            versions={str(name): str(version) for name, version in self.versions.items()},
            warnings=strings("warnings", self.warnings),
            worst_case_found_by={
                str(name): integer("worst_case_found_by", count)
                for name, count in self.worst_case_found_by.items()
            },
        )
        for name in ("confusion_clean", "confusion_adversarial"):
            set_fields(self, **{name: self._counts(name)})
        if self.corruptions is not None:  # also of a class that can do more
            fields = dataclasses.fields(CorruptionData)
            plain = CorruptionData(**{f.name: getattr(self.corruptions, f.name) for f in fields})
            set_fields(self, corruptions=plain)
        if self.budget_per_image is not None:
            budget = integer("budget_per_image", self.budget_per_image, least=1)
            set_fields(self, budget_per_image=budget)
        for attack in self.attacks:
            if attack.distances is not None and len(attack.distances) != self.samples:
                raise ValueError(
                    f"{attack.name} has {len(attack.distances)} distances; expected "
                    f"{self.samples}, the samples of the report."
                )
        for result in self.certificates:
            if result.samples != self.samples:
                raise ValueError(
                    f"{result.name} certifies {result.samples} images; expected {self.samples}, "
                    "the samples of the report."
                )
        if set(self.outcomes) - {ROBUST, FOOLED, MISCLASSIFIED} or (
            self.outcomes and len(self.outcomes) != self.samples
        ):
            raise ValueError(
                f"outcomes has {len(self.outcomes)} letters {sorted(set(self.outcomes))}; expected "
                f"{self.samples} of {ROBUST}, {FOOLED} and {MISCLASSIFIED}."
            )
        shown = self.examples
        if shown is not None and self.class_names:
            highest = max(shown.labels + shown.clean_predictions + shown.adversarial_predictions)
            if highest >= len(self.class_names):
                raise ValueError(
                    f"examples contain class {highest}; expected less than "
                    f"{len(self.class_names)}, the number of class_names."
                )

    def _counts(self, name: str) -> Counts | None:
        matrix = getattr(self, name)
        if matrix is None:
            return None
        counts = tuple(
            tuple(integer(name, count) for count in sequence(name, row))
            for row in sequence(name, matrix)
        )
        classes = len(self.class_names)
        if {len(counts), *map(len, counts)} != {classes}:
            raise ValueError(
                f"{name} has {len(counts)} rows of {sorted(set(map(len, counts)))} columns; "
                f"expected {classes} of both, one per name in class_names."
            )
        return counts

    @property
    def contradictions(self) -> tuple[str, ...]:
        """Figures of the report that refute its worst case, a sentence each; empty if none do."""
        shown = {attack.name: attack.accuracy for attack in self.attacks}
        shown |= {
            f"{curve.name} at radius {radius:g}": accuracy
            for curve in self.curves
            for radius, accuracy in zip(curve.radii, curve.accuracies, strict=True)
            if radius <= self.radius
        }
        for result in self.detection.results if self.detection else ():
            if result.accuracy is not None:
                shown[result.name] = result.accuracy
        worst = self.worst_case_accuracy
        sentences = list(self.errors)
        if not sentences and self.unproven < 0:  # without images that show why
            sentences.append(
                f"The worst case is {worst:.4g}, but {self.certified_count} of {self.samples} "
                "images are certified."
            )
        sentences += [
            f"The worst case is {worst:.4g}, but the accuracy under {name} is {accuracy:.4g}."
            for name, accuracy in shown.items()
            if worst > accuracy + _ROUNDING
        ]
        fooled, found = (self.clean_accuracy - worst) * self.samples, self.worst_case_found_by
        if found and abs(sum(found.values()) - fooled) > 0.5:
            sentences.append(
                f"The worst case is {worst:.4g}, {fooled:.0f} images less than the clean accuracy, "
                f"but {sum(found.values())} images are named as fooled."
            )
        return tuple(sentences)

    @property
    def errors(self) -> tuple[str, ...]:
        """Errors of the library, a sentence each: certificates that adversarial images refute."""
        return tuple(
            f"ERROR: {result.name} certifies {len(result.refuted):,} of the images (such as number "
            f"{result.refuted[0]}) at a radius within which an adversarial image is known. Both "
            "cannot be true: this is an error of keras_robust, and neither the certified accuracy "
            "nor the worst case can be relied on. Please report it, with the model if you can."
            for result in self.certificates
            if result.refuted
        )

    @property
    def optimality(self) -> dict[str, float]:
        """Minimum-norm attack -> its optimality among those of the report, as `optimality`."""
        found = {a.name: a.distances for a in self.attacks if a.distances is not None}
        return optimality(found) if found else {}

    @property
    def proofs(self) -> tuple[CertificationResult, ...]:
        """The certificates of the classifier that was attacked, not of one that is smoothed."""
        return tuple(result for result in self.certificates if not result.smoothed)

    @property
    def certified_count(self) -> int:
        """The number of images that at least one of the `proofs` certifies."""
        return sum(map(any, zip(*(result.certified for result in self.proofs), strict=True)))

    @property
    def unproven(self) -> int:
        """The number of images that nothing that was run has broken, and no proof certifies."""
        return round(self.worst_case_accuracy * self.samples) - self.certified_count

    @property
    def curves_and_certificates(self) -> tuple[Curve, ...]:
        """The accuracies over radius: under attack, and certified."""
        radii = {radius for curve in self.curves for radius in curve.radii}
        certified = (
            result.curve({0.0, *radii, *result.radii})
            for result in self.certificates
            if self.curves or len(result.radii) > 1
        )
        return (*self.curves, *certified)

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


def _unique(what: str, parts: Iterable[Any]) -> tuple[Any, ...]:
    """`parts` as a tuple; raises ValueError if two have the same name."""
    parts = sequence(what, parts)
    names = [part.name for part in parts]
    if len(set(names)) != len(names):
        raise ValueError(f"{what} have the names {names}; expected unique names.")
    return parts
