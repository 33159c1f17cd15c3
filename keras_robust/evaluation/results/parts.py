"""Parts of a report: results of attacks, curves, sanity checks and detectors, as plain data."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

from keras_robust.evaluation.results.display import pairs_html, short_repr
from keras_robust.evaluation.results.fields import (
    check_fields,
    finite,
    fraction,
    integer,
    nonnegative,
    sequence,
    set_fields,
    text,
    truth,
)

Z_95 = 1.959963984540054  # the 97.5 % point of the standard normal distribution


def wilson_interval(accuracy: float, samples: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a fraction that was counted on `samples` images.

    With `p` the fraction and `n` the samples, the ends are
    `(p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)`. It stays inside [0, 1]
    and has a width at `p = 0` and `p = 1`, where the normal approximation has none.

    Args:
        accuracy: fraction in [0, 1].
        samples: number of images it was counted on, at least 1.
        z: normal quantile; the default gives 95 %.

    Example:
        >>> low, high = wilson_interval(0.5, 100)
        >>> print(f"{low:.4f} {high:.4f}")
        0.4038 0.5962

    Reference: Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    p, n = fraction("accuracy", accuracy), integer("samples", samples, least=1)
    spread = z * z / n
    middle = p + spread / 2
    half = z * math.sqrt(p * (1 - p) / n + spread / (4 * n))
    # Rounding must not push an end past the fraction, which lies between them.
    low = max(0.0, min(p, (middle - half) / (1 + spread)))
    high = min(1.0, max(p, (middle + half) / (1 + spread)))
    return low, high


@dataclasses.dataclass(frozen=True)
class Part:
    """Result of one part of a combined attack, which ran on the survivors of the parts before it.

    Args:
        name: name of the part.
        accuracy: fraction of *all* samples of the report still classified correctly after it.
        samples_attacked: number of images it ran on.
        seconds: wall-clock time.
    """

    name: str
    accuracy: float
    samples_attacked: int
    seconds: float

    __repr__ = short_repr
    _repr_html_ = pairs_html

    def __post_init__(self) -> None:
        check_fields(
            self, name=text, accuracy=fraction, samples_attacked=integer, seconds=nonnegative
        )


@dataclasses.dataclass(frozen=True)
class AttackResult:
    """Result of one attack.

    Args:
        name: short name, unique in a report; a column of the table.
        description: the attack's settings as text.
        radius: radius of its ball, in the units of the images.
        accuracy: fraction of *all* samples of the report still classified correctly.
        samples_attacked: number of images it ran on; misclassified clean images may be skipped.
        seconds: wall-clock time.
        parts: results of the parts of a combined attack, in order; empty for a single attack.
        finished: whether it ran to the end; if not, `accuracy` is an upper bound.
        distances: of a minimum-norm attack, one per sample: that of the adversarial example, 0 for
            images that are misclassified already, infinity where there is none inside the radius;
            None of other attacks.
        forward_passes: mean number of forward passes per attacked image, counted; None if they were
            not counted.
        backward_passes: the same of backward passes.

    Raises:
        ValueError: out-of-range values, or parts whose last accuracy is not `accuracy`.
    """

    name: str
    description: str
    radius: float
    accuracy: float
    samples_attacked: int
    seconds: float
    parts: tuple[Part, ...] = ()
    finished: bool = True
    distances: tuple[float, ...] | None = None
    forward_passes: float | None = None
    backward_passes: float | None = None

    __repr__ = short_repr
    _repr_html_ = pairs_html

    def __post_init__(self) -> None:
        for name in ("forward_passes", "backward_passes"):
            if getattr(self, name) is not None:
                check_fields(self, **{name: nonnegative})
        if self.distances is not None:
            # JSON has no infinity.
            given = (math.inf if d is None else d for d in sequence("distances", self.distances))
            set_fields(
                self,
                distances=tuple(d if d == math.inf else nonnegative("distances", d) for d in given),
            )
        check_fields(
            self,
            name=text,
            description=text,
            radius=nonnegative,
            accuracy=fraction,
            samples_attacked=integer,
            seconds=nonnegative,
            parts=sequence,
            finished=truth,
        )
        accuracies = [part.accuracy for part in self.parts]
        decreasing = accuracies == sorted(accuracies, reverse=True)
        if accuracies and not (decreasing and accuracies[-1] == self.accuracy):
            raise ValueError(
                f"The parts of {self.name} have accuracies {accuracies}; expected values that do "
                f"not increase and end at {self.accuracy}, the accuracy of the attack."
            )


@dataclasses.dataclass(frozen=True)
class Curve:
    """Accuracy over radius: fractions of images with no adversarial image found within a radius.

    Args:
        name: name of the attack that ran at each radius; what others found counts too.
        radii: increasing radii, in the units of the images.
        accuracies: one fraction in [0, 1] per radius.

    Raises:
        ValueError: unequal lengths, no points, or radii that do not increase.
    """

    name: str
    radii: tuple[float, ...]
    accuracies: tuple[float, ...]

    __repr__ = short_repr
    _repr_html_ = pairs_html

    def __post_init__(self) -> None:
        radii = tuple(nonnegative("radii", radius) for radius in sequence("radii", self.radii))
        values = sequence("accuracies", self.accuracies)
        accuracies = tuple(fraction("accuracies", value) for value in values)
        if not radii or len(radii) != len(accuracies):
            raise ValueError(
                f"Curve {self.name!r} has {len(radii)} radii and {len(accuracies)} accuracies; "
                "expected the same number of both, at least one."
            )
        if any(after <= before for before, after in itertools.pairwise(radii)):
            raise ValueError(f"Curve {self.name!r} has radii {radii}; expected increasing radii.")
        set_fields(self, name=text("name", self.name), radii=radii, accuracies=accuracies)


@dataclasses.dataclass(frozen=True)
class DetectorResult:
    """Result of a detector on the images of one attack.

    Args:
        name: name of the attack.
        detection_rate: fraction of the attacked images that are flagged.
        evasion_rate: fraction of them that are misclassified *and* not flagged: the attacker's
            success rate.
        scores: one score per attacked image.
        auc: area under the ROC curve against clean images; None without images.
        auc_interval: its 95 % bootstrap interval.
        accuracy: fraction of *all* samples of the report still classified correctly under the
            attack; None in reports of earlier releases.
    """

    name: str
    detection_rate: float
    evasion_rate: float
    scores: tuple[float, ...]
    auc: float | None = None
    auc_interval: tuple[float, float] | None = None
    accuracy: float | None = None

    __repr__ = short_repr
    _repr_html_ = pairs_html

    def __post_init__(self) -> None:
        set_fields(
            self,
            name=text("name", self.name),
            detection_rate=fraction("detection_rate", self.detection_rate),
            evasion_rate=fraction("evasion_rate", self.evasion_rate),
            scores=tuple(finite("scores", score) for score in sequence("scores", self.scores)),
        )
        for name in ("auc", "accuracy"):
            if getattr(self, name) is not None:
                check_fields(self, **{name: fraction})
        if self.auc_interval is not None:
            ends = sequence("auc_interval", self.auc_interval)
            if len(ends) != 2:
                raise ValueError(f"auc_interval is {ends!r}; expected two numbers.")
            low, high = (fraction("auc_interval", end) for end in ends)
            set_fields(self, auc_interval=(low, high))


@dataclasses.dataclass(frozen=True, eq=False)
class FooledImages:
    """Images that one attack fooled, to be counted by another evaluation.

    Args:
        name: name of the attack.
        clean: `[n, ...]`, the clean images.
        adversarial: `[n, ...]`, their attacked versions.
    """

    name: str
    clean: np.ndarray
    adversarial: np.ndarray


@dataclasses.dataclass(frozen=True)
class Check:
    """Result of one sanity check for gradient masking.

    Args:
        name: name of the check, unique in a report.
        passed: whether the check found nothing suspicious.
        value: the number that decided.
        message: what was found, with that number, as text.
        fooled: the adversarial images that the check found, which count in the worst case of an
            evaluation; not saved.
    """

    name: str
    passed: bool
    value: float
    message: str
    fooled: tuple[FooledImages, ...] = dataclasses.field(default=(), repr=False, compare=False)

    __repr__ = short_repr
    _repr_html_ = pairs_html

    def __post_init__(self) -> None:
        check_fields(self, name=text, passed=truth, value=finite, message=text)


@dataclasses.dataclass(frozen=True)
class Detection:
    """How well a detector separates attacked from clean images at its threshold.

    Args:
        threshold: images with a score above it are flagged.
        false_alarm_rate: target rate of the calibration; None for a threshold set by hand.
        measured_false_alarm_rate: fraction of the clean test images that are flagged.
        score_name: the score with its unit, such as `"entropy (nats)"`.
        clean_scores: one score per clean test image.
        oblivious: result for attacks that are not aware of the detector, at their worst case.
        adaptive: result for an attack that lowers the score as well; None if none was run.
    """

    threshold: float
    false_alarm_rate: float | None
    measured_false_alarm_rate: float
    score_name: str
    clean_scores: tuple[float, ...]
    oblivious: DetectorResult
    adaptive: DetectorResult | None = None

    __repr__ = short_repr
    _repr_html_ = pairs_html

    def __post_init__(self) -> None:
        rates = ["measured_false_alarm_rate"]
        if self.false_alarm_rate is not None:
            rates.append("false_alarm_rate")
        set_fields(
            self,
            threshold=finite("threshold", self.threshold),
            score_name=text("score_name", self.score_name),
            **{name: fraction(name, getattr(self, name)) for name in rates},
            clean_scores=tuple(
                finite("clean_scores", s) for s in sequence("clean_scores", self.clean_scores)
            ),
        )

    @property
    def results(self) -> tuple[DetectorResult, ...]:
        """The oblivious result, and the adaptive one if there is one."""
        return (self.oblivious,) if self.adaptive is None else (self.oblivious, self.adaptive)
