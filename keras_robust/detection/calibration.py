"""Calibration: a threshold on a score, chosen for a false-alarm rate on clean images."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A threshold, and what it was made from.

    Args:
        threshold: an image is called adversarial when its score is greater.
        false_alarm_rate: the rate asked for: at most this share of the clean scores is greater.
        score: name of the score, such as `"entropy"`.
        samples: how many clean scores were used.

    Example:
        >>> calibration = Calibration(0.7, false_alarm_rate=0.05, score="entropy", samples=200)
        >>> calibration.threshold
        0.7
    """

    threshold: float
    false_alarm_rate: float
    score: str
    samples: int

    def __post_init__(self) -> None:
        check_rate(self.false_alarm_rate)
        if not is_number(self.threshold):
            raise ValueError(
                f"threshold={self.threshold!r} was received; expected a finite number. "
                "Calibrate the detector again on clean images."
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the calibration as JSON, atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as workspace:
            draft = Path(workspace) / path.name
            draft.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", "utf-8")
            os.replace(draft, path)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Reads what `save` wrote; other keys in the file are left alone.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is not such JSON.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        try:
            content = json.loads(Path(path).read_text("utf-8"))
            return cls(**{name: content[name] for name in names})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} holds no calibration ({error!r}); expected a JSON object with {names}. "
                "Calibrate the detector again and save it."
            ) from error


def threshold_at(scores: Any, false_alarm_rate: float) -> float:
    """The smallest score with at most the given share of all scores strictly above it.

    Of `n` scores in ascending order `s_0 <= ... <= s_(n-1)`, with `k = floor(rate * n)` (the rate
    taken as the decimal number that was typed), the threshold is `s_(n-1-k)`: at most `k` scores
    are above it, and above anything smaller there are at least `k + 1`. With ties fewer than `k`
    may be above it. It is one of the scores, never an interpolation between two.

    Args:
        scores: `[n]` finite scores of clean images.
        false_alarm_rate: between 0 and 1, both excluded.

    Returns:
        The threshold.

    Raises:
        ValueError: when the rate is out of range, a score is not finite, or `rate * n < 1`: then no
            false alarm at all would be allowed, and the threshold would be the largest score,
            which says nothing of the rate.

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
    strange = int(np.count_nonzero(~np.isfinite(scores)))
    if strange:
        raise ValueError(
            f"{strange} of {scores.size} scores are not finite; a threshold needs finite scores. "
            "Look for NaN in the images or in the model's weights."
        )
    return float(np.sort(scores)[scores.size - 1 - allowed])


def exceeds(scores: tf.Tensor, threshold: Any) -> tf.Tensor:
    """Which scores are above the threshold; a score that is NaN counts as above it.

    Args:
        scores: `[batch]` float32.
        threshold: a number, or a scalar tensor.

    Returns:
        `[batch]` bool.

    Example:
        >>> exceeds(tf.constant([0.2, 0.7, 0.9]), 0.7).numpy().tolist()
        [False, False, True]
    """
    # Not `scores > threshold`: of a score that is no number, that would say "clean".
    return tf.logical_not(scores <= tf.cast(threshold, scores.dtype))


def check_rate(false_alarm_rate: Any) -> None:
    """Refuses what is not a rate between 0 and 1, both excluded."""
    if not is_number(false_alarm_rate) or not 0 < false_alarm_rate < 1:
        raise ValueError(
            f"false_alarm_rate={false_alarm_rate!r} was received; expected a number greater than 0 "
            "and less than 1, such as 0.05 for one alarm in twenty clean images."
        )


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number (NumPy's too, but no truth value)."""
    kinds = (int, float, np.integer, np.floating)
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
