"""Randomized smoothing: a classifier under Gaussian noise, with a certified L2 radius."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from scipy import special

from keras_robust.core import random
from keras_robust.core.classifier import as_forward, classifier_of
from keras_robust.core.graphs import compiled
from keras_robust.core.labels import class_numbers
from keras_robust.core.types import Forward, Images, Labels
from keras_robust.core.validation import check_integer, check_number
from keras_robust.models.binomial import lower_confidence_bound, top_two_p_value

ABSTAIN = -1
# Folded into the seed: the samples that select a class are independent of those that bound its
# probability, as the guarantee needs.
_SELECTION, _ESTIMATION, _PREDICTION = range(3)


class Certificates(NamedTuple):
    """What `SmoothedClassifier.certify` finds, image by image.

    Attributes:
        classes: `[n]` int64, the predicted class, or -1 where it abstains.
        radii: `[n]` float64, the certified L2 radius in the units of the images: the class is the
            same at all smaller distances; 0 where it abstains.
        lower_bounds: `[n]` float64, the lower confidence bound of the class's probability under
            noise.
    """

    classes: np.ndarray
    radii: np.ndarray
    lower_bounds: np.ndarray

    def accuracy(self, y: Labels, radii: float | Sequence[float] = 0.0) -> np.ndarray:
        """Certified accuracy: the fraction of images that are correct and certified at a radius.

        Args:
            y: true labels `[n]`, or one-hot rows.
            radii: a radius, or several.

        Returns:
            The fraction at each radius, of the shape of `radii`.

        Example:
            >>> found = Certificates(np.array([1, -1, 0]), np.array([0.5, 0.0, 0.2]), np.ones(3))
            >>> found.accuracy([1, 1, 0], [0.0, 0.3]).round(2).tolist()
            [0.67, 0.33]
        """
        correct = self.classes == class_numbers("Labels", y, self.classes).numpy()
        certified = self.radii > np.asarray(radii, np.float64)[..., None]
        return np.mean(correct & certified, axis=-1)


class SmoothedClassifier:
    """Predicts the class that a classifier most often predicts under Gaussian noise.

    `predict` returns that class and `certify` also an L2 radius within which it does not change,
    each with probability at least `1 - alpha` over its own samples, for each image. Both abstain
    (class -1) where the samples do not decide. The guarantee is about the smoothed classifier,
    not about the classifier itself, and needs a classifier that predicts well under noise
    (`keras_robust.defenses.gaussian`).

    Noise is not clipped into the range of the pixels: the guarantee needs it to be Gaussian.
    Logits that are not finite count for no class.

    Args:
        classifier: a classifier, a `RobustModel`, or a function `images -> {"logits", ...}`.
        sigma: the standard deviation of the noise, > 0, in the units of the images.

    Raises:
        TypeError: the classifier is not callable.
        ValueError: sigma is not > 0.

    Example:
        >>> def classifier(x):  # class 1 where the pixel is above 0.5
        ...     return {"logits": tf.concat([0.5 - x, x - 0.5], axis=1)}
        >>> x = np.array([[0.9], [0.5]], "float32")
        >>> smooth = smoothed(classifier, sigma=0.25)
        >>> classes, radii, _ = smooth.certify(x, n=10_000)
        >>> classes.tolist(), radii.round(1).tolist()  # the distance of 0.9 from 0.5 is 0.4
        ([1, -1], [0.4, 0.0])
        >>> smooth.predict(x).tolist()
        [1, -1]

    Reference: Cohen, Rosenfeld, Kolter, "Certified Adversarial Robustness via Randomized
    Smoothing" (2019), section 3.2.
    """

    def __init__(self, classifier: keras.Model | Forward, sigma: float):
        if not callable(classifier):
            raise TypeError(
                f"smoothed: the classifier is {classifier!r}; expected a Keras model, or a "
                'function `images -> {"logits", ...}`.'
            )
        check_number("smoothed: sigma", sigma, above=0, hint=" in the units of the images")
        self.classifier = classifier_of(classifier)
        self.sigma = float(sigma)
        self._traced: dict[tuple[int, ...], Any] = {}

    def predict(
        self,
        x: Images,
        n: int = 1000,
        *,
        alpha: float = 0.001,
        batch_size: int = 1000,
        seed: int = 0,
        verbose: int = 0,
    ) -> np.ndarray:
        """PREDICT: the most frequent class under noise, or -1.

        Args:
            x: images `[images, ...]`, float.
            n: the number of samples of each image.
            alpha: bounds the probability of returning another class than the smoothed classifier's,
                for each image, in (0, 1).
            batch_size: the largest number of noisy images in memory at once. It does not change
                the noise.
            seed: an integer; the same seed gives the same result. Images of one call have
                different noise.
            verbose: 1 shows a progress bar, as in Keras.

        Returns:
            Classes `[images]`, int64; -1 where a two-sided binomial test does not tell the two most
            frequent classes apart.

        Raises:
            TypeError, ValueError: images that are not finite floats, or an argument out of range.
        """
        x = _checked(x, alpha, batch_size, seed)
        check_integer("smoothed: n", n, 1)
        progress = keras.utils.Progbar(len(x) * n, verbose=verbose, unit_name="sample")
        counts = self._counts(x, n, batch_size, (seed, _PREDICTION), progress)
        decided = top_two_p_value(counts) <= alpha
        return np.where(decided, counts.argmax(axis=1), ABSTAIN)

    def certify(
        self,
        x: Images,
        n: int = 100_000,
        *,
        n0: int = 100,
        alpha: float = 0.001,
        batch_size: int = 1000,
        seed: int = 0,
        verbose: int = 0,
    ) -> Certificates:
        """CERTIFY: the class of the smoothed classifier and a radius within which it is constant.

        The radius is `sigma * Phi^-1(p)`, where `p` is a lower confidence bound of the probability
        of the class; it is at most `sigma * Phi^-1(alpha^(1/n))`.

        Args:
            x, batch_size, seed, verbose: as for `predict`.
            n: the number of samples of each image that bound the probability.
            n0: the number of samples of each image that select the class.
            alpha: bounds the probability of a radius that is too large, for each image, in (0, 1).

        Returns:
            Classes, radii, and the lower bounds.

        Raises:
            TypeError, ValueError: as for `predict`.
        """
        x = _checked(x, alpha, batch_size, seed)
        check_integer("smoothed: n", n, 1)
        check_integer("smoothed: n0", n0, 1)
        progress = keras.utils.Progbar(len(x) * (n0 + n), verbose=verbose, unit_name="sample")
        selected = self._counts(x, n0, batch_size, (seed, _SELECTION), progress).argmax(axis=1)
        counts = self._counts(x, n, batch_size, (seed, _ESTIMATION), progress)
        lower = lower_confidence_bound(counts[np.arange(len(x)), selected], n, alpha)
        certified = lower > 0.5
        radii = np.where(certified, self.sigma * special.ndtri(lower), 0.0)
        return Certificates(np.where(certified, selected, ABSTAIN), radii, lower)

    def _counts(
        self,
        x: np.ndarray,
        n: int,
        batch_size: int,
        seed: tuple[int, int],
        progress: keras.utils.Progbar,
    ) -> np.ndarray:
        """How often each class is predicted among `n` samples of each image, `[images, classes]`.

        Sample `j` of image `i` is number `i n + j`, which decides its noise.
        """
        count = self._counter(x.shape[1:])
        folded = random.fold_in(tf.constant([seed[0], 0], tf.int64), seed[1])
        key = random.key_of(folded)
        counts: np.ndarray | None = None
        for begin in range(0, len(x) * n, batch_size):
            rows = np.arange(begin, min(begin + batch_size, len(x) * n)) // n
            images = slice(rows[0], rows[-1] + 1)
            added = count(x[images], rows - rows[0], np.uint64(begin), key).numpy()
            if counts is None:
                counts = np.zeros([len(x), added.shape[1]], np.int64)
            counts[images] += added
            progress.add(len(rows))
        return counts  # type: ignore[return-value]

    def _counter(self, shape: tuple[int, ...]) -> Any:
        """The function that counts predictions, traced once for each shape of images."""
        if shape in self._traced:
            return self._traced[shape]
        forward, sigma, size = as_forward(self.classifier), self.sigma, int(np.prod(shape))

        @compiled
        def count(x: Images, rows: tf.Tensor, first: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
            noise = random.numbered_normal(key, first, tf.shape(rows)[0], size)
            noisy = tf.gather(x, rows) + sigma * tf.reshape(noise, [-1, *shape])
            logits = forward(noisy)["logits"]
            classes = tf.one_hot(tf.argmax(logits, axis=1), tf.shape(logits)[1], dtype=tf.int64)
            finite = tf.reduce_all(tf.math.is_finite(logits), axis=1)
            classes = tf.where(finite[:, None], classes, 0)
            return tf.math.unsorted_segment_sum(classes, rows, tf.shape(x)[0])

        self._traced[shape] = count.get_concrete_function(
            tf.TensorSpec([None, *shape], tf.float32),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([], tf.uint64),
            tf.TensorSpec([1], tf.uint64),
        )
        return self._traced[shape]


smoothed = SmoothedClassifier


def _checked(x: Any, alpha: float, batch_size: int, seed: int) -> np.ndarray:
    """The images as float32, and the arguments that `predict` and `certify` share."""
    check_number("smoothed: alpha", alpha, above=0, below=1)
    check_integer("smoothed: batch_size", batch_size, 1)
    check_integer("smoothed: seed", seed, None)
    array = np.asarray(x)
    if array.dtype.kind not in "fV":  # bfloat16 is of kind V
        raise TypeError(
            f"Images of dtype {array.dtype} were received; expected floats. Divide 8-bit images by "
            "255."
        )
    array = array.astype(np.float32)
    if array.ndim < 2 or not len(array) or not np.isfinite(array).all():
        raise ValueError(
            f"Images of shape {array.shape} were received; expected at least one image, "
            "[images, ...], and neither NaN nor infinity."
        )
    return array
