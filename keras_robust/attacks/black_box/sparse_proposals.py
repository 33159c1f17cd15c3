"""The proposals of Sparse-RS: few pixels, a patch anywhere, and what a mask allows."""

from __future__ import annotations

import math
from typing import Any, Protocol

import tensorflow as tf

from keras_robust.core import random
from keras_robust.core.numerics import broadcast_to_images, scalar, upcast_half
from keras_robust.core.types import Ball, Images
from keras_robust.core.validation import is_number
from keras_robust.threat_models.clipping import allowed
from keras_robust.threat_models.l0_ball import L0Ball
from keras_robust.threat_models.l0_projection import as_pixels, largest
from keras_robust.threat_models.masks import mask_of, without_masked
from keras_robust.threat_models.patches import PatchBall, window

# Queries of 10,000 after which the fraction of the pixels is divided by the next number.
_FEW = ((0, 2), (50, 4), (200, 5), (500, 6), (1000, 8), (2000, 10), (4000, 12), (6000, 15),
        (8000, 20))  # fmt: skip
_SQUARES = ((10, 2), (50, 4), (200, 8), (500, 16), (1000, 32), (4000, 64), (8000, 128))


class Proposals(Protocol):
    """A random search in one ball: pure, the state of each image is passed in and returned."""

    def start(self, x: Images, seed: tf.Tensor) -> Any:
        """The first state: tensors `[batch, ...]`."""

    def next(self, x: Images, state: Any, index: tf.Tensor, seed: tf.Tensor) -> Any:
        """The state of the proposal with a number, from 1."""

    def images(self, x: Images, state: Any) -> Images:
        """The images of a state."""


def proposals_in(ball: Ball, queries: int, alpha_init: float | None, universal: bool) -> Proposals:
    """The proposals of a ball.

    Raises:
        TypeError: a ball without any.
        ValueError: a universal perturbation in L0.
    """
    if isinstance(ball, L0Ball):
        if universal:
            raise ValueError(
                "SparseRS: universal is True in L0; expected a patch or a mask, whose content the "
                "images of a batch can share."
            )
        return _Pixels(ball, queries, 0.3 if alpha_init is None else alpha_init)
    if not isinstance(ball, PatchBall) and not _is_masked(ball):
        raise TypeError(
            "SparseRS is defined in L0, for patches, and in a Linf ball that has a mask of zeros "
            f"and ones and the range of a pixel as radius; ball is {ball!r}."
        )
    alpha = 0.4 if alpha_init is None else alpha_init
    kind = _Patch if isinstance(ball, PatchBall) else _Masked
    return kind(ball, queries, alpha, universal)


def _is_masked(ball: Any) -> bool:
    mask = mask_of(ball)
    full = not is_number(ball.radius) or ball.radius in (0, ball.bounds[1] - ball.bounds[0])
    return ball.p == math.inf and mask is not None and mask.is_binary and full


def _corners(ball: Ball, shape: Any, seed: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """One of the bounds for each value, at random."""
    low, high = (scalar(bound, dtype) for bound in ball.bounds)
    return tf.where(random.uniform(shape, seed) < 0.5, low, high)


def _fraction(
    alpha: float, table: tuple[tuple[int, int], ...], index: tf.Tensor, queries: int
) -> tf.Tensor:
    """The fraction of the pixels that a proposal changes, as if of 10,000 queries; a scalar."""
    place = tf.cast(index, tf.float32) * (10_000 / queries)
    fraction = tf.constant(alpha)
    for after, divisor in table:
        fraction = tf.where(tf.floor(place) > after, alpha / divisor, fraction)
    return fraction


class _Pixels:
    """Few pixels: some of those that have changed are put back, and as many others change."""

    def __init__(self, ball: L0Ball, queries: int, alpha: float):
        self._ball, self._queries, self._alpha = ball, queries, alpha

    def start(self, x: Images, seed: tf.Tensor) -> Any:
        seeds = random.split(seed, 2)
        free = self._free(x)
        score = tf.where(free, random.uniform(tf.shape(free), seeds[0]), -1.0)
        chosen = largest(score, self._count(free)) & free
        return chosen, _corners(self._ball, tf.shape(x), seeds[1], x.dtype)

    def next(self, x: Images, state: Any, index: tf.Tensor, seed: tf.Tensor) -> Any:
        chosen, content = state
        seeds = random.split(seed, 2)
        count = self._count(chosen)
        share = _fraction(self._alpha, _FEW, index, self._queries)
        moved = tf.cast(share * tf.cast(count, share.dtype), tf.int32)
        moved = tf.minimum(tf.maximum(moved, 1), count)
        score = random.uniform(tf.shape(chosen), seeds[0])
        others = ~chosen & self._free(x)
        dropped = largest(tf.where(chosen, score, -1.0), moved) & chosen
        added = largest(tf.where(others, score, -1.0), moved) & others
        fresh = _corners(self._ball, tf.shape(x), seeds[1], x.dtype)
        content = tf.where(self._as_images(added, x), fresh, content)
        return (chosen & ~dropped) | added, content

    def images(self, x: Images, state: Any) -> Images:
        chosen, content = state
        return allowed(self._ball, tf.where(self._as_images(chosen, x), content, x), x)

    def _free(self, x: Images) -> tf.Tensor:
        """The pixels of which a value may change."""
        free = without_masked(self._ball, tf.ones_like(upcast_half(x)))
        return tf.reduce_any(as_pixels(free, self._ball.per_channel) > 0, axis=2)

    def _count(self, pixels: tf.Tensor) -> tf.Tensor:
        return self._ball.count(tf.cast(pixels, tf.float32))

    def _as_images(self, chosen: tf.Tensor, x: Images) -> tf.Tensor:
        pixels = as_pixels(x, self._ball.per_channel)
        return tf.reshape(chosen[..., None] & tf.ones_like(pixels, tf.bool), tf.shape(x))


class _Painted:
    """The content of each image as a canvas `[batch, height, width, channels]`, in squares."""

    def __init__(self, ball: Any, queries: int, alpha: float, universal: bool):
        self._ball, self._queries, self._universal = ball, queries, universal
        self._alpha = alpha

    def _rows(self, x: Images) -> tf.Tensor:
        """How many contents are drawn: one, or one per image."""
        return tf.constant(1) if self._universal else tf.shape(x)[0]

    def _stripes(self, x: Images, seed: tf.Tensor) -> tf.Tensor:
        """Vertical stripes of random colors."""
        shape = tf.concat([[self._rows(x), 1], tf.shape(x)[2:]], axis=0)
        stripes = _corners(self._ball, shape, seed, x.dtype)
        return tf.ensure_shape(tf.broadcast_to(stripes, tf.shape(x)), x.shape)

    def _square(self, index: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
        """The side of the square that a proposal paints, int32."""
        share = _fraction(self._alpha, _SQUARES, index, self._queries)
        side = tf.sqrt(share * tf.cast(pixels, share.dtype))
        return tf.maximum(tf.cast(side, tf.int32), 1)

    def _painted(
        self, x: Images, canvas: tf.Tensor, square: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """The canvas, with one random color in the square, bool `[batch or 1, height, width]`."""
        color = _corners(self._ball, [self._rows(x), 1, 1, x.shape[-1]], seed, x.dtype)
        return tf.where(square[..., None], color, canvas)


def _places(count: tf.Tensor, most: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Random integers from 0 to `most`, `[count, 2]`."""
    uniform = random.uniform([count, 2], seed)
    return tf.minimum(tf.cast(uniform * tf.cast(most + 1, uniform.dtype), tf.int32), most)


class _Patch(_Painted):
    """A patch: its content, in the upper left corner of the canvas, and its location `[batch, 2]`.

    Every fifth proposal moves it, later fewer, by less and less.
    """

    def start(self, x: Images, seed: tf.Tensor) -> Any:
        seeds = random.split(seed, 2)
        location = _places(tf.shape(x)[0], self._room(x), seeds[0])
        return self._stripes(x, seeds[1]), location

    def next(self, x: Images, state: Any, index: tf.Tensor, seed: tf.Tensor) -> Any:
        canvas, location = state
        seeds = random.split(seed, 3)
        side = self._ball.side(x)
        square = tf.minimum(self._square(index, side * side), tf.maximum(side, 1))
        corner = _places(self._rows(x), tf.maximum(side - square, 0), seeds[0])
        shape = tf.concat([[self._rows(x)], tf.shape(x)[1:]], axis=0)
        painted = self._painted(
            x, canvas, window(shape, corner[:, 0], corner[:, 1], square), seeds[1]
        )
        if self._universal:
            return painted, location
        reach = 0.75 * (1 - tf.cast(index, tf.float32) / self._queries)
        reach = tf.cast(reach * tf.cast(tf.shape(x)[1], tf.float32), tf.int32)
        shift = _places(tf.shape(x)[0], 2 * reach, seeds[2]) - reach
        moved = tf.clip_by_value(location + shift, 0, self._room(x))
        moves = tf.equal(index % (5 * (1 + index // 1000)), 0) & (reach > 0)
        return tf.where(moves, canvas, painted), tf.where(moves, moved, location)

    def images(self, x: Images, state: Any) -> Images:
        canvas, location = state
        shifted = canvas
        for axis in (1, 2):
            extent = tf.shape(x)[axis]
            place = tf.range(extent)[None] - location[:, axis - 1 : axis]
            shifted = tf.gather(shifted, tf.clip_by_value(place, 0, extent - 1), axis=axis,
                                batch_dims=1)  # fmt: skip
        inside = window(tf.shape(x), location[:, 0], location[:, 1], self._ball.side(x))
        return allowed(self._ball, tf.where(inside[..., None], shifted, x), x)

    def _room(self, x: Images) -> tf.Tensor:
        """The last possible location of a row and a column, `[2]`."""
        return tf.maximum(tf.shape(x)[1:3] - self._ball.side(x), 0)


class _Masked(_Painted):
    """What a mask allows, such as a frame, painted by squares around a random allowed pixel."""

    def start(self, x: Images, seed: tf.Tensor) -> Any:
        return (self._stripes(x, seed),)

    def next(self, x: Images, state: Any, index: tf.Tensor, seed: tf.Tensor) -> Any:
        seeds = random.split(seed, 3)
        shape = tf.concat([[self._rows(x)], tf.shape(x)[1:]], axis=0)
        free = tf.reduce_any(without_masked(self._ball, tf.ones(shape)) > 0, axis=3)
        free = tf.reshape(free, [shape[0], -1])
        score = tf.where(free, random.uniform(tf.shape(free), seeds[0]), -1.0)
        pixel = tf.argmax(score, axis=1, output_type=tf.int32)
        side = self._square(index, tf.reduce_sum(tf.cast(free[0], tf.int32)))
        shift = _places(shape[0], side - 1, seeds[1])
        top, left = pixel // shape[2] - shift[:, 0], pixel % shape[2] - shift[:, 1]
        return (self._painted(x, state[0], window(shape, top, left, side), seeds[2]),)

    def images(self, x: Images, state: Any) -> Images:
        # Of a radius of 0 nothing may change.
        moves = scalar(self._ball.radius, upcast_half(x).dtype) > 0
        moved = allowed(self._ball, state[0], x)
        return tf.where(broadcast_to_images(moves[None], x), moved, x)
