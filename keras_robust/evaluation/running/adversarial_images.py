"""The adversarial images that an evaluation found, of which its worst case is computed."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from keras_robust.core.types import Ball, Images
from keras_robust.evaluation.running.batching import rows_in_batches

# Projections are computed in float32: a pixel may miss the ball by a rounding, not by more.
_BALL_TOLERANCE = 1e-4
_ROUNDING = 1e-6


class AdversarialImages:
    """The running worst case of an evaluation, to which everything that finds an image reports.

    Args:
        ball: the threat model of the evaluation.
        x: all clean images, `[n, ...]`.
        correct: `[n]` bool, the images that are classified correctly.

    Attributes:
        distances: `[n]`, distance of the closest adversarial image; 0 if the clean image is
            misclassified, infinite if none was found.
        images: `[n, ...]`, an adversarial image inside the ball, or else the clean image.
        finders: `[n]`, name of the attack that found it first; empty if none did.
    """

    def __init__(self, ball: Ball, x: np.ndarray, correct: np.ndarray):
        self.ball, self._x = ball, x
        self.distances = np.where(correct, math.inf, 0.0)
        self.images = x.copy()
        self.finders = np.full(len(x), "", object)

    def report(self, name: str, rows: np.ndarray, images: Images) -> None:
        """Counts adversarial images, which were verified to be misclassified.

        Those outside the ball count at larger radii only; those outside its bounds not at all.

        Args:
            name: the attack that found them.
            rows: `[k]`, indices of the clean images.
            images: `[k, ...]`.
        """
        inside = within_bounds(images, self.ball)
        rows, images = rows[inside], images[inside]
        if not len(rows):
            return
        distances = distances_between(self.ball, images, self._x[rows])
        first = (distances <= distance_limit(float(self.ball.radius))) & self.robust()[rows]
        self.images[rows[first]] = images[first]
        self.finders[rows[first]] = name
        self.distances[rows] = np.fmin(self.distances[rows], distances)

    def robust(self, radius: float | None = None) -> np.ndarray:
        """Images with nothing found within a radius, default the ball's; `[n]` bool."""
        limit = distance_limit(float(self.ball.radius) if radius is None else radius)
        return self.distances > limit

    @property
    def found_by(self) -> dict[str, int]:
        """Attack -> number of images that it was the first to fool inside the ball."""
        names = [name for name in self.finders if name]
        return {name: names.count(name) for name in dict.fromkeys(names)}


def distance_limit(radius: float) -> float:
    """The largest distance of an image in a ball of that radius, with the rounding of float32."""
    return radius * (1 + _BALL_TOLERANCE) + _ROUNDING


def within_bounds(images: Images, ball: Ball) -> np.ndarray:
    """Which images lie inside the ball's bounds, `[n]` bool; NaN does not."""
    low, high = ball.bounds
    pixels = np.asarray(images, np.float64)
    inside = (low - _ROUNDING <= pixels) & (pixels <= high + _ROUNDING)
    return np.asarray(inside.all(axis=tuple(range(1, pixels.ndim))))


def distances_between(ball: Ball, images: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Distances `[n]` in the norm of a ball; infinite where not a number."""
    batches = rows_in_batches(len(images), min(len(images), 128))
    parts = [
        ball.distance(tf.constant(images[rows]), tf.constant(clean[rows])).numpy()[:real]
        for rows, real in batches
    ]
    found = np.concatenate(parts)
    return np.where(np.isnan(found), math.inf, found)
