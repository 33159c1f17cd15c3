"""Detectors: a model, a score of its outputs, and a threshold on that score."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np
import tensorflow as tf

from keras_robust.core.classifier import as_forward, bounds_of
from keras_robust.core.types import Forward, Images, Outputs, PerExample
from keras_robust.core.validation import check_number
from keras_robust.detection.calibration import Calibration, check_rate, exceeds, threshold_at
from keras_robust.detection.clean_images import as_images, map_batches
from keras_robust.losses import uncertainty as scores

# Differences of scores that are smaller than this count as those of a score of this size.
_LEAST_SCORE = 2.0
_UNCALIBRATED = (
    "The detector has no threshold; call `detector = detector.calibrate(validation, "
    "false_alarm_rate=0.05)` first: `calibrate` returns a new detector."
)


@runtime_checkable
class ScoreDetector(Protocol):
    """What an evaluation needs of a detector; `Detector` has it, and so may a class of your own."""

    @property
    def threshold(self) -> float | None:
        """Images with a score above it are flagged; None before calibration."""

    @property
    def false_alarm_rate(self) -> float | None:
        """Target rate of the calibration; None for a threshold that was set by hand."""

    @property
    def scored_by(self) -> str | None:
        """A name of `keras_robust.detection.scores`; None for another score."""

    @property
    def score_title(self) -> str:
        """The score with its unit, for reports."""

    def score(self, x: Images) -> PerExample:
        """The score of each image, `[batch]`."""


def check_detector(detector: ScoreDetector) -> float:
    """The threshold of a calibrated detector.

    Raises:
        TypeError: a member of `ScoreDetector` is missing.
        ValueError: no threshold.
    """
    if not isinstance(detector, ScoreDetector):
        raise TypeError(
            f"detector is {detector!r}; expected a `keras_robust.detection.Detector`, or an object "
            "with threshold, false_alarm_rate, scored_by, score_title and score."
        )
    if detector.threshold is None:
        raise ValueError(_UNCALIBRATED)
    return float(detector.threshold)


@dataclasses.dataclass(frozen=True)
class Detector:
    """Flags an image as adversarial if a score of the prediction is above a threshold.

    *Not* a defense against adaptive attacks, which lower the score while crafting
    (`keras_robust.objectives.AdaptiveObjective`). It detects oblivious attacks, and works best on
    models trained to be uncertain about attacked images (CCE).

    Args:
        model: a `RobustModel`, a classifier, or a function `images -> {"logits", ...}`.
        threshold: as found by `calibrate`, in the unit of the score; None before.
        false_alarm_rate: target rate of the calibration.
        samples: number of clean images of the calibration.
        scored_by: name of the score: `"entropy"` of the prediction, in nats, for an ensemble of
            the members' mean probability; `"least_confidence"`; for ensembles `"member_entropy"`
            and `"disagreement"`. `keras_robust.detection.scores` defines them.

    Raises:
        TypeError: the model is not callable.
        ValueError: an invalid threshold, rate or score.

    Example:
        >>> def model(x):
        ...     return {"logits": tf.reshape(x, [-1, 2])}
        >>> clean = tf.reshape(tf.linspace(0.0, 1.0, 80), [40, 1, 2, 1])
        >>> detector = Detector(model, scored_by="least_confidence")
        >>> detector = detector.calibrate([(clean, tf.zeros(40))], 0.05)
        >>> int(tf.reduce_sum(tf.cast(detector.is_adversarial(clean), tf.int32))) <= 2
        True

    Reference:
        Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
        Adversarial Robustness", AAAI 2021.
    """

    model: keras.Model | Forward
    threshold: float | None = None
    false_alarm_rate: float | None = None
    samples: int | None = None
    scored_by: str = "entropy"

    def __post_init__(self) -> None:
        if not callable(self.model):
            raise TypeError(
                f"model is a {type(self.model).__name__}; expected a Keras model, or a function of "
                "images that returns a dictionary with 'logits'."
            )
        if self.false_alarm_rate is not None:
            check_rate(self.false_alarm_rate)
        if self.threshold is not None:
            check_number("threshold", self.threshold, -math.inf, hint=", or None")
        self._check_score()

    def _check_score(self) -> None:
        """Raises ValueError for an unknown score."""
        scores.get(self.scored_by)

    def fit(self, train: Iterable[Any]) -> Detector:
        """This detector: a score of the outputs has no statistics to fit.

        Args:
            train: clean training images, which are not read.
        """
        del train
        return self

    def score_outputs(self, outputs: Outputs) -> PerExample:
        """The score of given outputs, `[batch]` float32."""
        return scores.get(self.scored_by).of(outputs)

    def outputs_and_score(
        self, x: Images, forward: Forward | None = None
    ) -> tuple[Outputs, PerExample]:
        """The model's outputs for images, and the score, of one forward pass.

        Args:
            x: `[batch, height, width, channels]` floats.
            forward: the model as a function; default `as_forward(model)`.
        """
        outputs = self.extended_outputs(x, forward)
        return outputs, self.score_outputs(outputs)

    def extended_outputs(self, x: Images, forward: Forward | None = None) -> Outputs:
        """The model's outputs, with whatever else the score reads."""
        return (forward or as_forward(self.model))(x)

    @property
    def score_title(self) -> str:
        """The score with its unit, for reports."""
        return scores.get(self.scored_by).title

    @property
    def adaptive_score(self) -> Any:
        """What `keras_robust.objectives.AdaptiveObjective` takes to lower this score."""
        return self.scored_by

    def score_tolerance(self, x: Images, error: float) -> float:
        """The largest difference of scores that rounding explains, for a relative `error`."""
        return error * max(_LEAST_SCORE, float(tf.reduce_max(tf.abs(self.score(x)))))

    def score(self, x: Images) -> PerExample:
        """The score of the model's prediction for each image, `[batch]` float32.

        Args:
            x: `[batch, height, width, channels]` floats, in the range that the model takes.

        Raises:
            TypeError: images that are not floats.
            ValueError: an empty batch, or a score that this kind of model does not have.
        """
        return self.outputs_and_score(as_images(x))[1]

    def is_adversarial(self, x: Images) -> tf.Tensor:
        """Whether the score of each image is above the threshold, or NaN: `[batch]` bool.

        Raises:
            ValueError: the detector is not calibrated, or as for `score`.
        """
        if self.threshold is None:
            raise ValueError(_UNCALIBRATED)
        return exceeds(self.score(x), self.threshold)

    def score_dataset(
        self, dataset: Iterable[Any], *, bounds: tuple[float, float] | None = None
    ) -> np.ndarray:
        """The scores of all images of a dataset, `[n]` float32.

        Args:
            dataset, bounds: as for `calibrate`.

        Raises:
            TypeError, ValueError: as for `calibrate`.
        """
        bounds = bounds or bounds_of(self.model) or (0.0, 1.0)
        found = [part for part, _ in map_batches(self.score, dataset, bounds)]
        return np.concatenate(found) if found else np.zeros([0], np.float32)

    def calibrate(
        self,
        dataset: Iterable[Any],
        false_alarm_rate: float = 0.05,
        *,
        bounds: tuple[float, float] | None = None,
    ) -> Detector:
        """A new detector with the smallest threshold that meets a false-alarm rate.

        Args:
            dataset: what `fit` takes, with labels, which are ignored, or without: a
                `tf.data.Dataset`, a `keras.utils.PyDataset`, any iterable of batches, or a pair of
                arrays. Use images that the model was not trained on: on training images it is more
                certain, and the threshold would be too low.
            false_alarm_rate: at most this fraction of the images scores above the threshold.
            bounds: the range of a pixel; default that of a robust model's attack, else (0, 1).

        Raises:
            TypeError: not data, such as an array instead of batches.
            ValueError: a rate outside (0, 1), too few images for it, images outside the bounds, or
                an infinite dataset.
        """
        check_rate(false_alarm_rate)
        clean = self.score_dataset(dataset, bounds=bounds)
        return dataclasses.replace(
            self,
            threshold=threshold_at(clean, false_alarm_rate),
            false_alarm_rate=float(false_alarm_rate),
            samples=int(clean.size),
        )

    @property
    def calibration(self) -> Calibration:
        """The calibration, to be saved.

        Raises:
            ValueError: the detector was not calibrated by `calibrate` or from a `Calibration`.
        """
        if self.threshold is None or self.false_alarm_rate is None or self.samples is None:
            raise ValueError(
                f"This detector is not calibrated (threshold={self.threshold}, "
                f"false_alarm_rate={self.false_alarm_rate}, samples={self.samples}); call "
                "`detector = detector.calibrate(validation, false_alarm_rate=0.05)` first."
            )
        return Calibration(self.threshold, self.false_alarm_rate, self.scored_by, self.samples)

    @classmethod
    def from_calibration(cls, model: keras.Model | Forward, calibration: Calibration) -> Detector:
        """A detector of `model` with a saved threshold and score.

        Raises:
            ValueError: an unknown score, or one that the class does not use.
        """
        return cls(
            model,
            calibration.threshold,
            calibration.false_alarm_rate,
            calibration.samples,
            calibration.score,
        )


@dataclasses.dataclass(frozen=True)
class EntropyDetector(Detector):
    """Detector by the entropy of the prediction; see `Detector`.

    Example:
        >>> EntropyDetector(lambda x: {"logits": x}, threshold=0.5).score_title
        'entropy (nats)'
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scored_by != "entropy":
            raise ValueError(
                f"The threshold is of the score {self.scored_by!r}; EntropyDetector expects "
                "'entropy'. Use `keras_robust.detection.Detector`, or calibrate again."
            )
