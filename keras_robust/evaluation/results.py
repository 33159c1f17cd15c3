"""The parts of a report: what an attack left, a curve, a check, a detector's scores."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import Any

Z_95 = 1.959963984540054  # the 97.5 % point of the standard normal distribution


def wilson_interval(accuracy: float, samples: int, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval of a share that was counted on `samples` images.

    With `p` the share and `n` the samples, the ends are
    `(p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)`. It stays inside [0, 1]
    and keeps a width at `p = 0` and `p = 1`, where the textbook interval shrinks to nothing.

    Args:
        accuracy: the share, in [0, 1].
        samples: how many images it was counted on, at least 1.
        z: the normal quantile; the default gives 95 %.

    Returns:
        The lower and the upper end.

    Raises:
        ValueError: for a share outside [0, 1] or fewer than one sample.

    Example:
        >>> low, high = wilson_interval(0.5, 100)
        >>> print(f"{low:.4f} {high:.4f}")
        0.4038 0.5962

    Reference:
        Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    p, n = fraction("accuracy", accuracy), integer("samples", samples, at_least=1)
    spread = z * z / n
    middle = p + spread / 2
    half = z * math.sqrt(p * (1 - p) / n + spread / (4 * n))
    # Rounding must not push an end past the share, which lies between them: at 0 and 1 it is one.
    low = max(0.0, min(p, (middle - half) / (1 + spread)))
    high = min(1.0, max(p, (middle + half) / (1 + spread)))
    return low, high


@dataclasses.dataclass(frozen=True)
class Part:
    """What one part of a combined attack left, which worked on what those before it had left.

    Args:
        name: of the part.
        accuracy: share of *all* samples of the report that are still classified correctly after it.
        samples_attacked: images that it worked on.
        seconds: wall-clock time.

    Raises:
        ValueError: for an accuracy outside [0, 1], or a negative count or time.

    Example:
        >>> Part("APGD-CE-100", 0.44, 96, 3.5).accuracy
        0.44
    """

    name: str
    accuracy: float
    samples_attacked: int
    seconds: float

    def __post_init__(self) -> None:
        set_fields(
            self,
            accuracy=fraction("accuracy", self.accuracy),
            samples_attacked=integer("samples_attacked", self.samples_attacked),
            seconds=nonnegative("seconds", self.seconds),
        )


@dataclasses.dataclass(frozen=True)
class AttackResult:
    """What one attack left standing.

    Args:
        name: short name, unique inside a report; a column of the table.
        description: the attack's settings, in words a reader can repeat.
        radius: the radius attacked, in units of the [0, 1] pixel range.
        accuracy: share of *all* samples of the report that are still classified correctly.
        samples_attacked: images that the attack worked on; those already fooled may be left out.
        seconds: wall-clock time.
        parts: what each part of a combined attack left, in the order in which they ran; none of an
            attack that is one.
        finished: whether it came to its end; if not, `accuracy` is an upper bound.

    Raises:
        ValueError: for an accuracy outside [0, 1], a negative radius, count or time, or parts that
            end at another accuracy.

    Example:
        >>> AttackResult("PGD-20", "20 steps of 0.02", 0.1, 0.75, 96, 3.5).accuracy
        0.75
    """

    name: str
    description: str
    radius: float
    accuracy: float
    samples_attacked: int
    seconds: float
    parts: tuple[Part, ...] = ()
    finished: bool = True

    def __post_init__(self) -> None:
        set_fields(
            self,
            radius=nonnegative("radius", self.radius),
            accuracy=fraction("accuracy", self.accuracy),
            samples_attacked=integer("samples_attacked", self.samples_attacked),
            seconds=nonnegative("seconds", self.seconds),
            parts=tuple(self.parts),
            finished=bool(self.finished),
        )
        left = [part.accuracy for part in self.parts]
        if left and (left != sorted(left, reverse=True) or left[-1] != self.accuracy):
            raise ValueError(
                f"The parts of {self.name} leave accuracies of {left}; expected numbers that do "
                f"not rise, and the last of them {self.accuracy}, what the attack left."
            )


@dataclasses.dataclass(frozen=True)
class Curve:
    """Accuracy over radius of one attack.

    Args:
        name: the attack's name.
        radii: increasing radii, in units of the [0, 1] pixel range.
        accuracies: one share in [0, 1] for each radius.

    Raises:
        ValueError: for unequal lengths, no points, or radii that do not increase.

    Example:
        >>> Curve("PGD-20", (0.0, 0.1), (0.97, 0.61)).accuracies
        (0.97, 0.61)
    """

    name: str
    radii: tuple[float, ...]
    accuracies: tuple[float, ...]

    def __post_init__(self) -> None:
        radii = tuple(nonnegative("radii", radius) for radius in self.radii)
        accuracies = tuple(fraction("accuracies", accuracy) for accuracy in self.accuracies)
        if not radii or len(radii) != len(accuracies):
            raise ValueError(
                f"Curve {self.name!r} has {len(radii)} radii and {len(accuracies)} accuracies; "
                "expected the same number of both, at least one."
            )
        if any(after <= before for before, after in itertools.pairwise(radii)):
            raise ValueError(f"Curve {self.name!r} has radii {radii}; expected increasing radii.")
        set_fields(self, radii=radii, accuracies=accuracies)


@dataclasses.dataclass(frozen=True)
class DetectorResult:
    """What a detector makes of the images of one attacker.

    Args:
        name: of the attack.
        detection_rate: share of the attacked images that are flagged.
        evasion_rate: share of them that the model gets wrong *and* that are not flagged: what the
            attacker is after.
        scores: one score per attacked image.
        auc: how often an attacked image scores above a clean one; None without images.
        auc_interval: the ends of its 95 % bootstrap interval.

    Raises:
        ValueError: for shares outside [0, 1] or scores that are not finite.

    Example:
        >>> DetectorResult("PGD-20", 0.75, 0.25, (0.1, 0.6, 0.7, 0.8)).evasion_rate
        0.25
    """

    name: str
    detection_rate: float
    evasion_rate: float
    scores: tuple[float, ...]
    auc: float | None = None
    auc_interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        set_fields(
            self,
            detection_rate=fraction("detection_rate", self.detection_rate),
            evasion_rate=fraction("evasion_rate", self.evasion_rate),
            scores=tuple(finite("scores", score) for score in self.scores),
        )
        if self.auc is not None:
            set_fields(self, auc=fraction("auc", self.auc))
        if self.auc_interval is not None:
            low, high = (fraction("auc_interval", end) for end in self.auc_interval)
            set_fields(self, auc_interval=(low, high))


@dataclasses.dataclass(frozen=True)
class Check:
    """Whether one reason to doubt the figures of an attack was found.

    Args:
        name: what was looked at, unique inside a report.
        passed: whether no reason was found.
        value: the number that decided.
        sentence: what was found, with that number.

    Raises:
        ValueError: for a value that is not finite.

    Example:
        >>> Check("gradients", True, 0, "The gradient vanishes in 0.0% of the images.").value
        0.0
    """

    name: str
    passed: bool
    value: float
    sentence: str

    def __post_init__(self) -> None:
        set_fields(self, passed=bool(self.passed), value=finite("value", self.value))


@dataclasses.dataclass(frozen=True)
class Detection:
    """How well a score tells attacked images from clean ones, at one threshold.

    Args:
        threshold: images with a score above it are flagged.
        false_alarm_rate: the rate asked for at calibration, in [0, 1]; None for a threshold that
            was set by hand.
        measured_false_alarm_rate: share of clean test images flagged.
        score_name: what the score is, with its unit, such as `"entropy (nats)"`.
        clean_scores: one score per clean test image.
        unaware: the attacker who does not know of the detector: the worst case of the attacks.
        aware: the attacker who lowers the score while crafting; None where none could be made.

    Raises:
        ValueError: for rates outside [0, 1] or scores that are not finite.
    """

    threshold: float
    false_alarm_rate: float | None
    measured_false_alarm_rate: float
    score_name: str
    clean_scores: tuple[float, ...]
    unaware: DetectorResult
    aware: DetectorResult | None = None

    def __post_init__(self) -> None:
        rates = ["measured_false_alarm_rate"]
        if self.false_alarm_rate is not None:
            rates.append("false_alarm_rate")
        set_fields(
            self,
            threshold=finite("threshold", self.threshold),
            **{name: fraction(name, getattr(self, name)) for name in rates},
            clean_scores=tuple(finite("clean_scores", s) for s in self.clean_scores),
        )

    @property
    def attackers(self) -> tuple[DetectorResult, ...]:
        """The attacker who does not know of the detector, and the one who does if there is one."""
        return (self.unaware,) if self.aware is None else (self.unaware, self.aware)


def set_fields(part: Any, **values: Any) -> None:
    """Sets checked fields of a frozen dataclass from its `__post_init__`."""
    for name, value in values.items():
        object.__setattr__(part, name, value)


def finite(name: str, value: Any) -> float:
    """`value` as a Python float, which JSON can hold."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} holds {number}; expected finite numbers.")
    return number


def nonnegative(name: str, value: Any) -> float:
    """`value` as a float that is not negative."""
    number = finite(name, value)
    if number < 0:
        raise ValueError(f"{name} holds {number}; expected numbers that are not negative.")
    return number


def fraction(name: str, value: Any) -> float:
    """`value` as a float in [0, 1]."""
    number = finite(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} holds {number}; expected a share in [0, 1], not per cent.")
    return number


def integer(name: str, value: Any, at_least: int = 0) -> int:
    """`value` as an int of at least `at_least`."""
    number = int(value)
    if number != value or number < at_least:
        raise ValueError(f"{name} holds {value}; expected whole numbers of at least {at_least}.")
    return number


def strings(values: Iterable[Any]) -> tuple[str, ...]:
    """`values` as a tuple of strings."""
    return tuple(str(value) for value in values)
