"""Patches: squares anywhere in the image, and masks of a patch or a frame at a fixed location."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_robust.core.config import OMIT_NONE, serializable
from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Images, PerExample, Radius
from keras_robust.core.validation import check_integer
from keras_robust.threat_models import hyperplane_projection as planes
from keras_robust.threat_models import masks
from keras_robust.threat_models.sparse_ball import SparseBall, pixel_reach


@serializable
class PatchBall(SparseBall):
    """The pixels of one square patch may change, anywhere in the image, each by any amount.

    The distance is the side of the smallest square that contains all changes. For a patch at a
    fixed location take a `LinfBall` with the range of a pixel as radius and a `patch_mask`.

    Args:
        radius: the side of the patch in pixels; its fraction does not count.
        bounds: the range of a pixel.
        mask: as in `L2Ball`.

    Raises:
        ValueError: as for `L0Ball`; when used, images that are not `[batch, height, width,
            channels]`.

    Example:
        >>> ball, x = PatchBall(radius=2), tf.zeros([1, 3, 3, 1])
        >>> moved = ball.project(x + 0.5, x)
        >>> moved.numpy()[0, :, :, 0].tolist(), ball.distance(moved, x).numpy().tolist()
        ([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]], [2.0])
    """

    p: ClassVar[float | None] = None  # type: ignore[assignment,misc]
    radius: Radius
    bounds: tuple[float, float] = (0.0, 1.0)
    mask: masks.Mask | npt.ArrayLike | None = dataclasses.field(
        default=None, kw_only=True, metadata=OMIT_NONE
    )

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The side of the smallest square around all changes."""
        differs = tf.not_equal(upcast_half(x_adv), self._center(x))
        delta = tf.cast(differs, upcast_half(x).dtype)
        changed = tf.reduce_any(differs, axis=3)
        side = tf.maximum(*(_extent(tf.reduce_any(changed, axis)) for axis in (1, 2)))
        return masks.infinite_outside(self, tf.cast(side, delta.dtype), delta)

    def project_onto_hyperplane(self, x: Images, normal: tf.Tensor, value: PerExample) -> tf.Tensor:
        """Moves the smallest patch that reaches the plane, all values by one part of their room."""
        amount = functools.partial(_hyperplane_amount, shape=tf.shape(self._center(x)))
        normal = masks.without_masked(self, normal)
        return planes.project_onto_hyperplane(amount, self.bounds, x, normal, value)

    def side(self, x: Images) -> tf.Tensor:
        """The side of a patch in the images `x`, int32."""
        limit = tf.floor(scalar(self.radius, upcast_half(x).dtype))
        return tf.cast(tf.minimum(limit, tf.cast(tf.reduce_max(tf.shape(x)[1:3]), limit.dtype)),
                       tf.int32)  # fmt: skip

    def _best(self, score: tf.Tensor, x: Images) -> tf.Tensor:
        shape = tf.shape(x)[:3]
        best, _ = best_window(tf.reshape(score, shape), tf.fill(shape[:1], self.side(x)))
        return tf.reshape(best, tf.shape(score))

    def _drawn(self, score: tf.Tensor, x: Images) -> tf.Tensor:
        # The pixel with the largest score is uniform; the patch that begins there, moved inside.
        shape, side = tf.shape(x), self.side(x)
        corner = tf.argmax(score, axis=1, output_type=tf.int32)
        top = tf.minimum(corner // shape[2], tf.maximum(shape[1] - side, 0))
        left = tf.minimum(corner % shape[2], tf.maximum(shape[2] - side, 0))
        return tf.reshape(window(shape, top, left, side), tf.shape(score))

    def _center(self, x: Images) -> Images:
        center = super()._center(x)
        if center.shape.rank not in (4, None):
            raise ValueError(
                f"PatchBall: images have the shape {center.shape}; expected [batch, height, width, "
                "channels]."
            )
        return center


def patch_mask(
    shape: tuple[int, ...], size: int | tuple[int, int], location: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """The mask of a rectangular patch at a fixed location.

    Args:
        shape: of an image, `(height, width, channels)`.
        size: the side of the patch, or its height and width.
        location: the row and the column of its first pixel.

    Returns:
        Zeros and ones, `[height, width, 1]`.

    Raises:
        ValueError: a patch that is not inside the image.

    Example:
        >>> patch_mask((3, 4, 1), (2, 1), location=(1, 2))[..., 0].astype(int).tolist()
        [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
    """
    extent = (size, size) if isinstance(size, int) else tuple(size)
    for name, value in zip(("height", "width"), extent, strict=True):
        check_integer(f"patch_mask: {name}", value, 1)
    ends = [first + length for first, length in zip(location, extent, strict=True)]
    if min(location) < 0 or ends[0] > shape[0] or ends[1] > shape[1]:
        raise ValueError(
            f"patch_mask: a patch of {extent[0]} x {extent[1]} at {tuple(location)} is not inside "
            f"an image of {shape[0]} x {shape[1]}; expected a smaller patch or another location."
        )
    mask = np.zeros((shape[0], shape[1], 1), np.float32)
    mask[location[0] : ends[0], location[1] : ends[1]] = 1
    return mask


def frame_mask(shape: tuple[int, ...], width: int) -> np.ndarray:
    """The mask of a frame along the border of an image.

    Args:
        shape: of an image, `(height, width, channels)`.
        width: of the frame in pixels, >= 1.

    Returns:
        Zeros and ones, `[height, width, 1]`.

    Example:
        >>> frame_mask((3, 4, 1), 1)[..., 0].astype(int).tolist()
        [[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    """
    check_integer("frame_mask: width", width, 1)
    mask = np.ones((shape[0], shape[1], 1), np.float32)
    mask[width : shape[0] - width, width : shape[1] - width] = 0
    return mask


def window(shape: tf.Tensor, top: tf.Tensor, left: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """Marks the pixels of a square in each image, bool, `[batch, height, width]`."""
    parts = []
    for first, extent in ((top, shape[1]), (left, shape[2])):
        place = tf.range(extent)[None] - first[:, None]
        parts.append((place >= 0) & (place < tf.reshape(side, [-1, 1])))
    return parts[0][:, :, None] & parts[1][:, None, :]


def best_window(score: tf.Tensor, side: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The square of each image with the largest sum of scores.

    Args:
        score: `[batch, height, width]`, >= 0.
        side: of the square, int32 `[batch]`; what is larger than the image is cut.

    Returns:
        Where the square is, bool, the shape of `score`; and its sum, `[batch]`.
    """
    shape = tf.shape(score)
    integral = tf.pad(tf.cumsum(tf.cumsum(score, axis=1), axis=2), [[0, 0], [1, 0], [1, 0]])
    tall, wide = tf.minimum(side, shape[1]), tf.minimum(side, shape[2])
    # Sums over `side` rows from each row on, then over columns; impossible starts are cut off.
    rows, columns = (
        tf.range(n)[None] + s[:, None] for n, s in ((shape[1], tall), (shape[2], wide))
    )
    stop = tf.gather(integral, tf.minimum(rows, shape[1]), axis=1, batch_dims=1)
    strip = tf.transpose(stop - integral[:, :-1], [0, 2, 1])
    stop = tf.gather(strip, tf.minimum(columns, shape[2]), axis=1, batch_dims=1)
    sums = tf.transpose(stop - strip[:, :-1], [0, 2, 1])
    possible = (rows <= shape[1])[:, :, None] & (columns <= shape[2])[:, None, :]
    flat = tf.reshape(tf.where(possible, sums, tf.constant(-1, sums.dtype)), [shape[0], -1])
    first = tf.argmax(flat, axis=1, output_type=tf.int32)
    chosen = window(shape, first // shape[2], first % shape[2], side)
    return chosen, tf.reduce_sum(tf.where(chosen, score, 0), axis=[1, 2])


def _extent(changed: tf.Tensor) -> tf.Tensor:
    """From the first to the last true entry of each row, `[batch]`."""
    place = tf.range(tf.shape(changed)[1])[None]
    last = tf.reduce_max(tf.where(changed, place, -1), axis=1)
    first = tf.reduce_min(tf.where(changed, place, tf.shape(changed)[1]), axis=1)
    return tf.maximum(last - first + 1, 0)


def _hyperplane_amount(slope: planes.Slope, shape: tf.Tensor) -> tf.Tensor:
    """The smallest square whose pixels reach the plane, all moved by one fraction of their room."""
    room, reach = pixel_reach(slope, shape[3])
    reach = tf.reshape(reach, shape[:3])
    need = slope.need[:, 0]

    def body(side: tf.Tensor, chosen: tf.Tensor, total: tf.Tensor) -> tuple:
        wider, sums = best_window(reach, tf.fill(shape[:1], side))
        grow = total < need
        return (
            side + 1,
            tf.where(grow[:, None, None], wider, chosen),
            tf.where(grow, sums, total),
        )

    start = (tf.constant(1), tf.zeros(shape[:3], tf.bool), tf.zeros_like(need))
    _, chosen, total = tf.while_loop(
        lambda side, *_: side <= tf.maximum(shape[1], shape[2]), body, start
    )
    fraction = tf.minimum(tf.math.divide_no_nan(need, total), 1)[:, None]
    chosen = tf.repeat(tf.reshape(chosen, [shape[0], -1]), shape[3], axis=1)
    return tf.where(chosen, fraction * room, tf.zeros_like(room))
