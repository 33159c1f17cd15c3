"""Calibration of a detector: the threshold for a false-alarm rate on clean images."""

from __future__ import annotations

import dataclasses
import math
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_robust.core.atomic_files import write_json
from keras_robust.core.bounded_files import read_json
from keras_robust.core.validation import check_number


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A threshold, and how it was calibrated.

    Args:
        threshold: images with a score above it are flagged as adversarial.
        false_alarm_rate: target rate, in (0, 1): at most this fraction of clean scores is above.
        score: name of the score, such as `"entropy"`.
        samples: number of clean scores.
    """

    threshold: float
    false_alarm_rate: float
    score: str
    samples: int

    def __post_init__(self) -> None:
        check_rate(self.false_alarm_rate)
        check_number("threshold", self.threshold, -math.inf)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the calibration as JSON, atomically."""
        path = Path(path)
        write_json(path, dataclasses.asdict(self))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Reads what `save` wrote; other keys of the file are ignored.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file does not contain a calibration.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        try:
            content = read_json(path)
            return cls(**{name: content[name] for name in names})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} does not contain a calibration ({error!r}); expected a JSON object with "
                f"{names}. Calibrate the detector again and save it."
            ) from error


def threshold_at(scores: npt.ArrayLike, false_alarm_rate: float) -> float:
    """The smallest score with at most the given fraction of all scores strictly above it.

    Of `n` scores in ascending order `s_0 <= ... <= s_(n-1)`, with `k = floor(rate * n)` (the rate
    taken as the decimal number that was typed), the threshold is `s_(n-1-k)`: at most `k` scores
    are above it (fewer with ties), and above any smaller number there are at least `k + 1`.

    Args:
        scores: `[n]` finite scores of clean images.
        false_alarm_rate: in (0, 1).

    Raises:
        ValueError: a rate out of range, scores that are not finite, or `rate * n < 1`.

    Example:
        >>> threshold_at([0.1, 0.4, 0.2, 0.3], false_alarm_rate=0.25)
        0.3
    """
    check_rate(false_alarm_rate)
    scores = np.asarray(scores)
    if scores.ndim != 1 or not np.issubdtype(scores.dtype, np.number):
        raise ValueError(
            f"Scores of shape {scores.shape} and dtype {scores.dtype} were received; "
            "expected one number per image, shape [n]."
        )
    # As typed: 0.29 * 100 is 28.999... in binary, and one false alarm of the 29 would be lost.
    rate = Fraction(str(float(false_alarm_rate)))
    allowed = math.floor(rate * scores.size)
    if allowed < 1:
        raise ValueError(
            f"A false-alarm rate of {false_alarm_rate} cannot be set from {scores.size} clean "
            f"images; at least {math.ceil(1 / rate)} are needed. Pass more, or a larger rate."
        )
    bad = int(np.count_nonzero(~np.isfinite(scores)))
    if bad:
        raise ValueError(
            f"{bad} of {scores.size} scores are not finite; a threshold needs finite scores. "
            "Look for NaN in the images or in the model's weights."
        )
    return float(np.sort(scores)[scores.size - 1 - allowed])


def exceeds(scores: tf.Tensor, threshold: float | tf.Tensor) -> tf.Tensor:
    """Which scores `[batch]` are above the threshold; NaN counts as above it.

    Example:
        >>> exceeds(tf.constant([0.2, 0.7, 0.9]), 0.7).numpy().tolist()
        [False, False, True]
    """
    # Not `scores > threshold`, which is False for NaN.
    return tf.logical_not(scores <= tf.cast(threshold, scores.dtype))


def check_rate(false_alarm_rate: float) -> None:
    """Raises ValueError unless the rate is a number in (0, 1)."""
    hint = ", such as 0.05 for one false alarm in 20 clean images"
    check_number("false_alarm_rate", false_alarm_rate, above=0, below=1, hint=hint)
