"""A detector: a model, a score of its outputs, and a threshold on that score."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from keras_robust.detection import scores
from keras_robust.detection.calibration import (
    Calibration,
    check_rate,
    exceeds,
    is_number,
    threshold_at,
)
from keras_robust.types import Images, Outputs, PerExample, as_forward


@dataclasses.dataclass(frozen=True)
class EntropyDetector:
    """Calls an image adversarial when the entropy of the prediction is above a threshold.

    The score is the entropy, in nats, of the softmax; of an ensemble, of its members' mean
    probability. It is *not* a defense against an attacker who knows of it: whoever can take
    gradients of the model can lower the entropy while crafting. It finds inputs of attacks that
    ignore it, and works best on models trained to be uncertain about attacked inputs (CCE).

    Args:
        model: a `RobustModel`, a classifier, or a function `images -> {"logits", ...}`.
        threshold: as found by `calibrate`, in nats; None before.
        false_alarm_rate: the rate that the threshold was made for.
        samples: the number of clean images that the threshold was made from.

    Raises:
        TypeError: when the model cannot be called.
        ValueError: when the threshold or the rate is no such number.

    Example:
        >>> def model(x):
        ...     return {"logits": tf.reshape(x, [-1, 2])}
        >>> clean = tf.reshape(tf.linspace(0.0, 1.0, 80), [40, 1, 2, 1])
        >>> detector = EntropyDetector(model).calibrate([(clean, tf.zeros(40))], 0.05)
        >>> int(tf.reduce_sum(tf.cast(detector.is_adversarial(clean), tf.int32))) <= 2
        True

    Reference:
        Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
        Adversarial Robustness", AAAI 2021.
    """

    SCORE: ClassVar[str] = "entropy"

    model: Any
    threshold: float | None = None
    false_alarm_rate: float | None = None
    samples: int | None = None

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
                f"threshold={self.threshold!r} was received; expected a finite number of nats, "
                "or None for a detector that has yet to be calibrated."
            )

    def score_outputs(self, outputs: Outputs) -> PerExample:
        """The entropy of outputs already computed, `[batch]` float32, in nats."""
        return scores.entropy(outputs)

    def score(self, x: Images) -> PerExample:
        """The entropy of the model's prediction for each image.

        Args:
            x: `[batch, height, width, channels]` floats in [0, 1].

        Returns:
            `[batch]` float32, in nats.

        Raises:
            TypeError: when the images are not floats.
            ValueError: when there is no image.
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

    def calibrate(self, dataset: Iterable[Any], false_alarm_rate: float = 0.05) -> EntropyDetector:
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
        return Calibration(self.threshold, self.false_alarm_rate, self.SCORE, self.samples)

    @classmethod
    def from_calibration(cls, model: Any, calibration: Calibration) -> EntropyDetector:
        """A detector of `model` with a saved threshold.

        Raises:
            ValueError: when the threshold was made for another score.
        """
        if calibration.score != cls.SCORE:
            raise ValueError(
                f"The calibration is of the score {calibration.score!r}; {cls.__name__} needs one "
                f"of {cls.SCORE!r}. Calibrate {cls.__name__} on clean images."
            )
        return cls(model, calibration.threshold, calibration.false_alarm_rate, calibration.samples)


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
