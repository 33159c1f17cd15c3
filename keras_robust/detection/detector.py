"""A detector: a model, a score of its outputs, and a threshold on that score."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.core.classifier import as_forward
from keras_robust.core.types import Images, Outputs, PerExample
from keras_robust.detection.calibration import (
    Calibration,
    check_rate,
    exceeds,
    is_number,
    threshold_at,
)
from keras_robust.losses import uncertainty as scores


@dataclasses.dataclass(frozen=True)
class Detector:
    """Calls an image adversarial when a score of the prediction is above a threshold.

    It is *not* a defense against an attacker who knows of it: whoever can take gradients of the
    model can lower the score while crafting (`keras_robust.objectives.AdaptiveObjective`). It finds
    inputs of attacks that ignore it, and works best on models trained to be uncertain about
    attacked inputs (CCE).

    Args:
        model: a `RobustModel`, a classifier, or a function `images -> {"logits", ...}`.
        threshold: as found by `calibrate`, in the unit of the score; None before.
        false_alarm_rate: the rate that the threshold was made for.
        samples: the number of clean images that the threshold was made from.
        scored_by: the name of the score: `"entropy"` of the prediction, in nats, and of an ensemble
            of its members' mean probability; `"least_confidence"`; `"member_entropy"` and
            `"disagreement"` of an ensemble. `keras_robust.detection.scores` tells them.

    Raises:
        TypeError: when the model cannot be called.
        ValueError: when the threshold or the rate is no such number, or there is no such score.

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

    model: Any
    threshold: float | None = None
    false_alarm_rate: float | None = None
    samples: int | None = None
    scored_by: str = "entropy"

    def __post_init__(self) -> None:
        if not callable(self.model):
            raise TypeError(
                f"A detector was given {type(self.model).__name__} as model; expected a Keras "
                "model, or a function of images that returns a dictionary with 'logits'."
            )
        if self.false_alarm_rate is not None:
            check_rate(self.false_alarm_rate)
        if self.threshold is not None and not is_number(self.threshold):
            raise ValueError(
                f"threshold={self.threshold!r} was received; expected a finite number, or None "
                "for a detector that has yet to be calibrated."
            )
        scores.get(self.scored_by)

    def score_outputs(self, outputs: Outputs) -> PerExample:
        """The score of outputs already computed, `[batch]` float32."""
        return scores.get(self.scored_by).of(outputs)

    @property
    def score_title(self) -> str:
        """What the score is, with its unit, for reports."""
        return scores.get(self.scored_by).title

    def score(self, x: Images) -> PerExample:
        """The score of the model's prediction for each image.

        Args:
            x: `[batch, height, width, channels]` floats in [0, 1].

        Returns:
            `[batch]` float32.

        Raises:
            TypeError: when the images are not floats.
            ValueError: when there is no image, or the score is not of such a model.
        """
        return self.score_outputs(as_forward(self.model)(_images(x)))

    def is_adversarial(self, x: Images) -> tf.Tensor:
        """Whether the score of each image is above the threshold.

        Args:
            x: `[batch, height, width, channels]` floats in [0, 1].

        Returns:
            `[batch]` bool; True also where the score is not a number.

        Raises:
            ValueError: when the detector is not calibrated.
        """
        if self.threshold is None:
            raise ValueError(
                "This detector has no threshold; call "
                "`detector = detector.calibrate(validation, false_alarm_rate=0.05)` first: "
                "`calibrate` returns a new detector."
            )
        return exceeds(self.score(x), self.threshold)

    def calibrate(self, dataset: Iterable[Any], false_alarm_rate: float = 0.05) -> Any:
        """A detector with the smallest threshold that keeps to a false-alarm rate.

        Args:
            dataset: finite; batches of images, or tuples that begin with images: a
                `tf.data.Dataset`, or any iterable. Take images that the model was not trained on:
                on those it is more certain, and the threshold would be too low.
            false_alarm_rate: at most this share of the images scores strictly above the threshold.

        Returns:
            A new detector of the same model.

        Raises:
            TypeError: when the dataset is an array instead of batches.
            ValueError: when the rate is not in (0, 1), the images are too few for it or not in
                [0, 1], or the dataset never ends.
        """
        check_rate(false_alarm_rate)
        _check_dataset(dataset)
        score: Callable[[Images], PerExample] | None = None
        found = []
        for batch in dataset:
            x = _images(batch[0] if isinstance(batch, (tuple, list)) else batch)
            _check_range(x)
            if score is None:  # traced once, for batches of every size
                images = tf.TensorSpec([None, *x.shape[1:]], x.dtype)
                score = tf.function(self.score).get_concrete_function(images)
            found.append(score(x).numpy())
        clean = np.concatenate(found) if found else np.zeros([0], np.float32)
        return dataclasses.replace(
            self,
            threshold=threshold_at(clean, false_alarm_rate),
            false_alarm_rate=float(false_alarm_rate),
            samples=int(clean.size),
        )

    @property
    def calibration(self) -> Calibration:
        """The threshold and what it was made from, to be saved.

        Raises:
            ValueError: when the detector was not calibrated by `calibrate` or from a `Calibration`.
        """
        if self.threshold is None or self.false_alarm_rate is None or self.samples is None:
            raise ValueError(
                f"This detector is not calibrated (threshold={self.threshold}, "
                f"false_alarm_rate={self.false_alarm_rate}, samples={self.samples}); call "
                "`detector = detector.calibrate(validation, false_alarm_rate=0.05)` first."
            )
        return Calibration(self.threshold, self.false_alarm_rate, self.scored_by, self.samples)

    @classmethod
    def from_calibration(cls, model: Any, calibration: Calibration) -> Any:
        """A detector of `model` with a saved threshold, by the score that it was made for.

        Raises:
            ValueError: when there is no such score, or the class is of another one.
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
    """The detector by the entropy of the prediction; see `Detector`.

    Example:
        >>> EntropyDetector(lambda x: {"logits": x}, threshold=0.5).score_title
        'entropy (nats)'
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scored_by != "entropy":
            raise ValueError(
                f"The threshold is of the score {self.scored_by!r}; EntropyDetector needs one of "
                "'entropy'. Take `keras_robust.detection.Detector`, or calibrate anew."
            )


def _images(x: Any) -> tf.Tensor:
    x = tf.convert_to_tensor(x)
    if not x.dtype.is_floating:
        raise TypeError(
            f"Images of dtype {x.dtype.name} were received; expected floats in [0, 1]. "
            "Divide 8-bit images by 255."
        )
    if x.shape.rank is not None and x.shape.rank > 0 and x.shape[0] == 0:
        raise ValueError("A batch without images was received; expected at least one image.")
    return tf.cast(x, tf.float32)


def _check_range(x: tf.Tensor) -> None:
    low, high = float(tf.reduce_min(x)), float(tf.reduce_max(x))
    if low < 0 or high > 1:
        raise ValueError(
            f"Images with values from {low:g} to {high:g} were received; expected [0, 1]. "
            "Divide 8-bit images by 255, and leave any normalisation to a layer of the model."
        )


def _check_dataset(dataset: Any) -> None:
    is_array = isinstance(dataset, np.ndarray) or tf.is_tensor(dataset)
    if is_array or not isinstance(dataset, Iterable):
        raise TypeError(
            f"`calibrate` was given {type(dataset).__name__}; expected batches of images: a "
            "`tf.data.Dataset`, or a list such as `[(images, labels)]` with one large batch."
        )
    cardinality = getattr(dataset, "cardinality", None)
    if cardinality is not None and int(cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "`calibrate` was given a dataset that never ends; pass the validation set, or "
            "`dataset.take(batches)`."
        )
