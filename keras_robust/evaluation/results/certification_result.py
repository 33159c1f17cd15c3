"""Result of a certification: for each image, the largest radius at which it is proven robust."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from keras_robust.evaluation.results.display import html_table, short_repr
from keras_robust.evaluation.results.fields import (
    check_fields,
    integer,
    nonnegative,
    sequence,
    set_fields,
    text,
)
from keras_robust.evaluation.results.parts import Curve, wilson_interval

SMOOTHING = "smoothing"
_SCALARS = (bool, int, float, str, type(None))


@dataclasses.dataclass(frozen=True)
class CertificationResult:
    """Result of one method of certification on test images.

    An image is certified at a radius if it is classified correctly and the method proves that no
    perturbation within the radius changes that. An image that is not certified may still be
    robust: the methods are not exact.

    Args:
        name: name of the method in tables, unique in a report.
        method: the method, as `certify` takes it.
        threat_model: allowed perturbations, such as `"LinfBall, radius 0.3, bounds (0, 1)"`.
        radius: radius of the threat model, in the units of the images.
        radii: increasing radii at which images were certified, `radius` among them.
        certified_radii: the largest certified radius of each image; 0 if there is none, and None
            if the image is misclassified.
        seconds: wall-clock time.
        settings: options of the method, name -> number, string or None.
        refuted: numbers of the images that are certified at a radius within which an adversarial
            image is known: an error of the library.

    Raises:
        ValueError: out-of-range values, no images, or radii that do not increase.

    Example:
        >>> result = CertificationResult(
        ...     "IBP", "ibp", "Linf, radius 0.1", 0.1, (0.1, 0.2), (None, 0.0, 0.1, 0.2), 1.0)
        >>> result.clean_accuracy, result.certified_accuracy
        (0.75, 0.5)
        >>> result.curve().accuracies
        (0.75, 0.5, 0.25)
    """

    name: str
    method: str
    threat_model: str
    radius: float
    radii: tuple[float, ...]
    certified_radii: tuple[float | None, ...]
    seconds: float
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    refuted: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, name=text, method=text, threat_model=text)
        set_fields(
            self,
            radius=nonnegative("radius", self.radius),
            radii=tuple(nonnegative("radii", r) for r in sequence("radii", self.radii)),
            certified_radii=tuple(
                None if radius is None else nonnegative("certified_radii", radius)
                for radius in sequence("certified_radii", self.certified_radii)
            ),
            seconds=nonnegative("seconds", self.seconds),
            settings=_settings(self.settings),
            refuted=tuple(integer("refuted", n) for n in sequence("refuted", self.refuted)),
        )
        if not self.certified_radii:
            raise ValueError(f"{self.name} has no certified_radii; expected one per image.")
        increase = all(before < after for before, after in itertools.pairwise(self.radii))
        if not increase or self.radius not in self.radii:
            raise ValueError(
                f"{self.name} has radii {self.radii}; expected increasing radii with {self.radius}."
            )
        if self.refuted and max(self.refuted) >= self.samples:
            raise ValueError(
                f"refuted contains image {max(self.refuted)}; expected less than {self.samples}."
            )

    @property
    def smoothed(self) -> bool:
        """Whether the proof is one of a smoothed classifier, not of the classifier inside it."""
        return self.method == SMOOTHING

    @property
    def samples(self) -> int:
        """The number of images."""
        return len(self.certified_radii)

    @property
    def correct(self) -> tuple[bool, ...]:
        """Which images are classified correctly; by the smoothed classifier, if it is one."""
        return tuple(radius is not None for radius in self.certified_radii)

    @property
    def certified(self) -> tuple[bool, ...]:
        """Which images are certified at `radius`."""
        return self.certified_at(self.radius)

    def certified_at(self, radius: float) -> tuple[bool, ...]:
        """Which images are certified at a radius: those certified at it or at a larger one."""
        nonnegative("radius", radius)
        return tuple(own is not None and own >= radius for own in self.certified_radii)

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of all images, of those classified correctly, and of those certified."""
        correct, certified = sum(self.correct), sum(self.certified)
        return {"images": self.samples, "correct": correct, "certified": certified}

    @property
    def clean_accuracy(self) -> float:
        """The fraction of the images that are classified correctly."""
        return sum(self.correct) / self.samples

    @property
    def certified_accuracy(self) -> float:
        """The fraction of the images that are certified at `radius`."""
        return sum(self.certified) / self.samples

    @property
    def clean_interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of `clean_accuracy`."""
        return wilson_interval(self.clean_accuracy, self.samples)

    @property
    def certified_interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of `certified_accuracy`."""
        return wilson_interval(self.certified_accuracy, self.samples)

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        """The result in a notebook: accuracies with their 95 % intervals."""
        figures = {"Correct": self.clean_interval, "Certified": self.certified_interval}
        shares = (self.clean_accuracy, self.certified_accuracy)
        rows = [
            (name, f"{share:.1%}", f"{low:.1%} to {high:.1%}")
            for (name, (low, high)), share in zip(figures.items(), shares, strict=True)
        ]
        caption = f"{self.name}: {self.samples:,} images, {self.threat_model}"
        return html_table(("", "of all images", "95% interval"), rows, caption)

    def curve(self, radii: Iterable[float] | None = None) -> Curve:
        """Certified accuracy over radius; at radius 0 it is the clean accuracy.

        Between the radii at which images were certified it is a lower bound.

        Args:
            radii: the radii; default 0 and those at which images were certified.
        """
        points = sorted({0.0, *self.radii} if radii is None else set(map(float, radii)))
        accuracies = [sum(self.certified_at(radius)) / self.samples for radius in points]
        return Curve(f"Certified by {self.name}", tuple(points), tuple(accuracies))


def _settings(values: Any) -> dict[str, Any]:
    """The options of a method, which must be JSON values."""
    if not isinstance(values, Mapping) or not all(isinstance(v, _SCALARS) for v in values.values()):
        raise ValueError(f"settings is {values!r}; expected names with numbers, strings or None.")
    return {str(name): value for name, value in values.items()}
