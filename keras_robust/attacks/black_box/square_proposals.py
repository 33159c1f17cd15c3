"""The proposals of Square: windows of a shrinking size, filled by the norm of the ball."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_robust.core import random
from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Ball, Images
from keras_robust.threat_models.masks import without_masked

# The queries, of 10,000, after which the area of the window is halved.
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def window_fraction(query: int, p_init: float = 0.8) -> float:
    """The fraction of the pixels that the window covers after a number of queries.

    Example:
        >>> [window_fraction(query) for query in (0, 11, 4999)]
        [0.8, 0.4, 0.00625]

    Reference: Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack
    via random search" (2020), section 3.2; not rescaled to the number of queries, as in AutoAttack.
    """
    return p_init / 2 ** sum(query > after for after in _HALVED_AFTER)


def bump(rows: int, columns: int, order: float) -> np.ndarray:
    """A window with a peak in the middle, `[rows, columns]`, of length 1 in the norm of an order.

    The k-th of its nested rectangles adds `1 / k^2` in L2, and `1 / k^4` in L1.

    Reference: Andriushchenko et al. (2020), Eq. 2 of the supplement.
    """
    window = np.zeros((rows, columns))
    row, column = rows // 2, columns // 2
    for k in range(max(row, column) + 1):
        inner = slice(max(row - k, 0), row + k + 1), slice(max(column - k, 0), column + k + 1)
        window[inner] += 1 / (k + 1) ** (2 if order == 2 else 4)
    return window / np.linalg.norm(window.ravel(), order) if window.size else window


def double_bump(rows: int, columns: int, order: float) -> np.ndarray:
    """A bump above one of the other sign, `[rows, columns]`, of length 1."""
    halves = bump(rows // 2, columns, order), -bump(rows - rows // 2, columns, order)
    window = np.concatenate(halves)
    return window / np.linalg.norm(window.ravel(), order)


class Size(NamedTuple):
    """The size of the images."""

    height: int
    width: int
    channels: int

    def windows(self, queries: int, p_init: float, least: int) -> list[int]:
        """The side of the window of each query: at least `least` pixels; odd if that is above 1."""
        sides = []
        for query in range(queries):
            area = window_fraction(query, p_init) * self.height * self.width
            side = max(round(math.sqrt(area)), least)
            sides.append(side + 1 if least > 1 and side % 2 == 0 else side)
        return sides


class Stripes:
    """Proposals in Linf: corners of the ball, with a sign per channel in a window.

    Attributes:
        part: as of `Bumps`; the signs of a window are those of all images.
    """

    part: tuple[tf.Tensor, tf.Tensor] | None = None

    def __init__(self, ball: Ball, size: Size, queries: int, p_init: float):
        self._ball, self._size = ball, size
        self._sides = tf.constant(size.windows(queries, p_init, 1), tf.int32)

    def start(self, x: Images, seed: tf.Tensor) -> Images:
        """Vertical stripes."""
        shape = [tf.shape(x)[0], 1, self._size.width, self._size.channels]
        signs = _signs(shape, seed, upcast_half(x).dtype)
        return self._moved(x, x, signs)

    def next(self, x: Images, best: Images, query: tf.Tensor, seed: tf.Tensor) -> Images:
        """A window, the same for all images, moved by twice the radius and clipped."""
        seeds = random.split(seed, 2)
        window = random_window(self._size, self._sides[query], seeds[0])[0]
        signs = _signs([1, 1, 1, self._size.channels], seeds[1], upcast_half(x).dtype)
        return self._moved(x, best, 2 * tf.cast(window, signs.dtype) * signs)

    def _moved(self, x: Images, best: Images, radii: tf.Tensor) -> Images:
        delta = scalar(self._ball.radius, radii.dtype) * radii
        return self._ball.project(upcast_half(best) + delta, x)


class Bumps:
    """Proposals in L2 and L1: the mass of one window is moved to another, in the form of a bump.

    Attributes:
        part: rows of the images in a larger batch, and its size; they get the signs that they would
            get in it. None for a batch of its own.
    """

    part: tuple[tf.Tensor, tf.Tensor] | None = None

    def __init__(self, ball: Ball, size: Size, queries: int, p_init: float):
        self._ball, self._size = ball, size
        self._order: float = ball.p  # type: ignore[assignment]  # a key of PROPOSALS
        sides = size.windows(queries, p_init, 3)
        kinds = sorted(set(sides))
        self._sides = tf.constant(sides, tf.int32)
        self._kind = tf.constant([kinds.index(side) for side in sides], tf.int32)
        self._templates = np.stack([self._both(side) for side in kinds])

    def _both(self, side: int) -> np.ndarray:
        """A double bump upright and on its side, in the upper left corner, `[2, h, w]`."""
        rows, columns = min(side, self._size.height), min(side, self._size.width)
        corners = np.zeros((2, self._size.height, self._size.width))
        corners[0, :rows, :columns] = double_bump(rows, columns, self._order)
        corners[1, :rows, :columns] = double_bump(columns, rows, self._order).T
        return corners

    def start(self, x: Images, seed: tf.Tensor) -> Images:
        """A grid of five by five double bumps, each with a random sign and direction."""
        dtype = upcast_half(x).dtype
        seeds = random.split(seed, 2)
        height, width, channels = self._size
        side = max(min(height, width) // 5, 1)
        before = [max((extent - 5 * side) // 2, 0) for extent in (height, width)]
        counts = [(e - b) // side for e, b in zip((height, width), before, strict=True)]
        bumps = np.stack([double_bump(side, side, self._order)] * 2)
        bumps[1] = bumps[1].T
        turned = random.integers(counts, seeds[0], 2)
        tiles = tf.gather(tf.constant(bumps, dtype), turned)  # [rows, columns, side, side]
        tiles = tf.reshape(tf.transpose(tiles, [0, 2, 1, 3]), [c * side for c in counts])
        signs = _signs([tf.shape(x)[0], *counts, channels], seeds[1], dtype)
        grid = tiles[..., None] * tf.repeat(tf.repeat(signs, side, axis=1), side, axis=2)
        after = [
            extent - b - count * side
            for extent, b, count in zip((height, width), before, counts, strict=True)
        ]
        around = [[0, 0], *([b, a] for b, a in zip(before, after, strict=True)), [0, 0]]
        return self._placed(x, tf.pad(grid, around))

    def next(self, x: Images, best: Images, query: tf.Tensor, seed: tf.Tensor) -> Images:
        """A bump in one window, with the mass of two windows and the unused radius."""
        seeds = random.split(seed, 4)
        dtype, side = upcast_half(x).dtype, self._sides[query]
        (here, at), (there, _) = (
            random_window(self._size, side, one) for one in (seeds[0], seeds[1])
        )
        here, there = (without_masked(self._ball, tf.cast(w, dtype)) for w in (here, there))
        delta = upcast_half(best) - upcast_half(x)
        turned = random.integers([], seeds[2], 2)
        template = tf.constant(self._templates, dtype)[self._kind[query], turned]
        template = tf.roll(template, at, [0, 1])[None, ..., None]
        size = tf.shape(x)[0] if self.part is None else self.part[1]
        signs = _signs([size, 1, 1, self._size.channels], seeds[3], dtype)
        signs = signs if self.part is None else tf.gather(signs, self.part[0])
        held = delta * here
        bumped = template * signs + held / (self._length(held) + 1e-12)
        bumped = here * bumped / (self._length(here * bumped) + 1e-12)
        # For each channel: the mass of its windows, and an equal part of what is unused.
        radius = scalar(self._ball.radius, dtype) ** self._order
        spare = tf.maximum(radius - self._power(delta, [1, 2, 3]), 0) / self._size.channels
        inside = self._power(delta * tf.maximum(here, there), [1, 2])
        budget = (inside + spare) ** (1 / self._order)
        budget = budget * self._size.channels if self._order == 1 else budget
        return self._placed(x, (1 - here) * (1 - there) * delta + bumped * budget)

    def _power(self, values: tf.Tensor, axes: list[int]) -> tf.Tensor:
        return tf.reduce_sum(tf.abs(values) ** self._order, axes, keepdims=True)

    def _length(self, values: tf.Tensor) -> tf.Tensor:
        """The length of each channel, `[batch, 1, 1, channels]`."""
        return self._power(values, [1, 2]) ** (1 / self._order)

    def _placed(self, x: Images, delta: tf.Tensor) -> Images:
        """On the sphere in L2; in L1 projected, which makes it sparse."""
        if self._order == 2:
            delta = scalar(self._ball.radius, delta.dtype) * self._ball.steepest(delta)
        return self._ball.project(upcast_half(x) + delta, x)


PROPOSALS: dict[float | None, type[Bumps] | type[Stripes]] = {
    1.0: Bumps,
    2.0: Bumps,
    math.inf: Stripes,
}
NORMS = (1.0, 2.0, math.inf)


def _signs(shape: list, seed: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    bits = random.integers(shape, seed, 2)
    return tf.cast(2 * bits - 1, dtype)


def random_window(size: Size, side: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A random window as a mask `[1, h, w, 1]`, and its upper left corner `[2]`."""
    places = random.uniform([2], seed)
    masks, corner = [], []
    for place, extent in zip(tf.unstack(places), size[:2], strict=True):
        length = tf.minimum(side, extent)
        first = tf.cast(place * tf.cast(extent - length, tf.float32), tf.int32)
        pixel = tf.range(extent)
        masks.append((first <= pixel) & (pixel < first + length))
        corner.append(first)
    mask = masks[0][:, None] & masks[1][None, :]
    return mask[None, ..., None], tf.stack(corner)
