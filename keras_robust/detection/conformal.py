"""Conformal p-values: a false-alarm rate that holds by proof on exchangeable images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.core.types import Forward, Images, Outputs, PerExample
from keras_robust.core.validation import check_number, lookup
from keras_robust.detection.calibration import check_rate
from keras_robust.detection.detector import Detector
from keras_robust.detection.feature_squeezing import FeatureSqueezing
from keras_robust.detection.fitted import FittedDetector
from keras_robust.detection.layer_inconsistency import LayerInconsistency
from keras_robust.detection.local_dimension import LocalDimension
from keras_robust.detection.mahalanobis import Mahalanobis, RelativeMahalanobis
from keras_robust.detection.nearest_neighbors import NearestNeighbors
from keras_robust.detection.statistics import Statistics
from keras_robust.losses import uncertainty as scores

BASES: dict[str, type[FittedDetector]] = {
    kind.NAME: kind
    for kind in (
        Mahalanobis,
        RelativeMahalanobis,
        NearestNeighbors,
        LocalDimension,
        FeatureSqueezing,
        LayerInconsistency,
    )
}
_BASE, _CLEAN = "base/", "clean_scores"


@dataclasses.dataclass(frozen=True)
class Conformal(FittedDetector):
    """One minus the conformal p-value of another score.

    Of `n` clean scores of the calibration, `c` are at least as large as that of an image: its
    p-value is `(1 + k + c) / (n + 1)`, at most 1. If the image and those of the calibration are
    exchangeable, such as drawn independently from one distribution, then `P(p <= rate) <= rate` for
    every `n`; `calibrate` sets the threshold so that `p <= rate` raises the alarm. The probability
    includes the draw of the calibration; the rate of one calibration varies around it, by
    `sqrt(rate / n)`.

    `k = floor(altered n)` makes it robust: the rate holds even if an adversary replaces up to `k`
    images of the calibration, since at most `k` of the `n` scores can then be missing in `c`.

    Memory: `n` numbers; cost: a binary search.

    Args:
        model, threshold, false_alarm_rate, samples, scored_by, statistics: see `FittedDetector`.
        base: the name of the score: of `keras_robust.detection.scores`, or of a fitted detector.
        altered: the fraction of the calibration's images that may have been replaced, in [0, 1).

    Raises:
        ValueError: an unknown base, or a fraction out of range.

    Example:
        >>> def model(x):
        ...     return {"logits": tf.reshape(9 * x**2, [-1, 2])}
        >>> clean = tf.reshape(tf.linspace(0.0, 1.0, 80), [40, 1, 2, 1])
        >>> detector = Conformal(model, base="least_confidence").calibrate([clean], 0.1)
        >>> int(tf.reduce_sum(tf.cast(detector.is_adversarial(clean), tf.int32)))
        3

    Reference: Laxhammar and Falkman, "Conformal Prediction for Distribution-Independent Anomaly
    Detection in Streaming Vessel Data" (2010); Bates et al., "Testing for Outliers with Conformal
    p-values" (2023), section 1.
    """

    NAME = "conformal"
    TITLE = "1 - conformal p-value"

    base: str = dataclasses.field(default="entropy", kw_only=True)
    altered: float = dataclasses.field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        lookup("score (base)", self.base, (*scores.SCORES, *BASES))
        check_number("conformal: altered", self.altered, below=1)
        if self.statistics is None and self.base not in BASES:
            object.__setattr__(self, "statistics", Statistics({}))

    @property
    def base_detector(self) -> Detector:
        """The detector by the base score, with its statistics."""
        if self.base not in BASES:
            return Detector(self.model, scored_by=self.base)
        statistics = None if self.statistics is None else self.statistics.below(_BASE)
        return BASES[self.base](self.model, statistics=statistics)

    def gather(
        self, train: Iterable[Any], bounds: tuple[float, float] | None
    ) -> Mapping[str, np.ndarray]:
        """The statistics of the base score."""
        base = self.base_detector
        found = base.gather(train, bounds) if isinstance(base, FittedDetector) else {}
        return {f"{_BASE}{name}": array for name, array in found.items()}

    def calibrate(
        self,
        dataset: Iterable[Any],
        false_alarm_rate: float = 0.05,
        *,
        bounds: tuple[float, float] | None = None,
    ) -> Conformal:
        """A new detector with the clean scores of a dataset, and the threshold for a rate.

        Args:
            dataset, bounds: as for `Detector.calibrate`; images that the fit has not seen.
            false_alarm_rate: bound of the probability that a clean image is flagged.

        Raises:
            TypeError, ValueError: as for `Detector.calibrate`.
        """
        check_rate(false_alarm_rate)
        clean = np.sort(self.base_detector.score_dataset(dataset, bounds=bounds))
        if not np.isfinite(clean).all():
            raise ValueError(
                "Some clean scores are not finite; p-values need finite scores. Look for NaN in "
                "the images or in the model's weights."
            )
        rate = Fraction(str(float(false_alarm_rate)))  # as typed, see `threshold_at`
        allowed = math.floor(rate * (len(clean) + 1))
        if allowed < 1 + self._altered_count(len(clean)):
            raise ValueError(
                f"A false-alarm rate of {false_alarm_rate} cannot be set from {len(clean)} clean "
                f"images of which {self._altered_count(len(clean))} may be altered: no p-value is "
                "that small. Pass more images, a larger rate or a smaller `altered`."
            )
        kept = {name: self.fitted[name] for name in self.fitted if name != _CLEAN}
        return dataclasses.replace(
            self.with_statistics({**kept, _CLEAN: clean}),
            # Half a step below the smallest score to flag: p-values are multiples of 1 / (n + 1).
            threshold=1 - (allowed + 0.5) / (len(clean) + 1),
            false_alarm_rate=float(false_alarm_rate),
            samples=len(clean),
        )

    def extended_outputs(self, x: Images, forward: Forward | None = None) -> Outputs:
        """The outputs that the base score reads."""
        return self.base_detector.extended_outputs(x, forward)

    def measure(self, outputs: Outputs, statistics: Mapping[str, Any]) -> PerExample:
        """One minus the p-value, in [0, 1); NaN of a score that is NaN."""
        del statistics
        return self._of_base(self.base_detector.score_outputs(outputs))

    def _of_base(self, values: PerExample) -> PerExample:
        if _CLEAN not in self.fitted:
            raise ValueError(
                "The conformal detector has no clean scores; call `detector = "
                "detector.calibrate(validation, false_alarm_rate=0.05)` first."
            )
        clean = tf.convert_to_tensor(self.fitted[_CLEAN])
        count = int(clean.shape[0])
        below = tf.cast(tf.searchsorted(clean, values), tf.float32)
        at_least = 1 + self._altered_count(count) + count - below
        score = 1 - tf.minimum(at_least / (count + 1), 1.0)
        return tf.where(tf.math.is_nan(values), values, score)

    def _altered_count(self, count: int) -> int:
        return math.floor(Fraction(str(float(self.altered))) * count)

    @property
    def adaptive_score(self) -> Any:
        """The base score, of which the p-value is a decreasing step function without gradient."""
        return self.base_detector.adaptive_score

    def score_tolerance(self, x: Images, error: float) -> float:
        """The largest change of the p-value for the tolerance of the base score."""
        base = self.base_detector
        values, width = base.score(x), base.score_tolerance(x, error)
        change = self._of_base(values + width) - self._of_base(values - width)
        return float(tf.reduce_max(change)) + error
