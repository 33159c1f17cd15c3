"""The L0 threat model: few pixels change, each as much as the bounds allow."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import numpy.typing as npt
import tensorflow as tf

from keras_robust.core.config import OMIT_NONE, serializable
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Images, PerExample, Radius
from keras_robust.threat_models import hyperplane_projection as planes
from keras_robust.threat_models import l0_projection, masks
from keras_robust.threat_models.sparse_ball import SparseBall, pixel_reach


@serializable
class L0Ball(SparseBall):
    """At most `radius` pixels may change, each by any amount inside the bounds.

    A pixel of an image `[height, width, channels]` is a position with all its channels, as in the
    attacks of Croce et al.; in data of other ranks, each value is a pixel.

    Args:
        radius: the largest number of pixels; its fraction does not count.
        bounds: the range of a pixel.
        per_channel: count each value of `[height, width, channels]` instead of each position, as
            FMN and sigma-zero do.
        mask: as in `L2Ball`.

    Raises:
        ValueError: a radius that is negative, infinite or between 0 and 1, bounds that are not
            `low < high`, or a mask with other values than 0 and 1, or 0 everywhere.

    Example:
        >>> import tensorflow as tf
        >>> ball, x = L0Ball(radius=1), tf.zeros([1, 1, 2, 3])
        >>> moved = ball.project(tf.constant([[[[0.5, 0.5, 0.0], [0.9, 0.0, 0.0]]]]), x)
        >>> moved.numpy()[0, 0].round(1).tolist(), ball.distance(moved, x).numpy().tolist()
        ([[0.0, 0.0, 0.0], [0.8999999761581421, 0.0, 0.0]], [1.0])

    Reference: Croce and Hein, "Sparse and Imperceivable Adversarial Attacks" (2019), section 4.1.
    """

    p: ClassVar[float] = 0.0
    radius: Radius
    bounds: tuple[float, float] = (0.0, 1.0)
    per_channel: bool = False
    mask: masks.Mask | npt.ArrayLike | None = dataclasses.field(
        default=None, kw_only=True, metadata=OMIT_NONE
    )

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The number of pixels that differ."""
        differs = tf.not_equal(upcast_half(x_adv), self._center(x))
        delta = tf.cast(differs, upcast_half(x).dtype)
        length = tf.reduce_sum(tf.reduce_max(self._pixels(delta), axis=2), axis=1)
        return masks.infinite_outside(self, length, delta)

    def project_onto_hyperplane(self, x: Images, normal: tf.Tensor, value: PerExample) -> tf.Tensor:
        """Moves the pixels that approach the plane most as far as they can, the last one partly."""
        values = l0_projection.values_per_pixel(upcast_half(x), self.per_channel)
        amount = functools.partial(_hyperplane_amount, values=values)
        normal = masks.without_masked(self, normal)
        return planes.project_onto_hyperplane(amount, self.bounds, x, normal, value)

    def _best(self, score: tf.Tensor, x: Images) -> tf.Tensor:
        del x
        return l0_projection.largest(score, self.count(score))

    def count(self, pixels: tf.Tensor) -> tf.Tensor:
        """The number of pixels that may change, of those in `pixels`, `[batch, pixels, ...]`."""
        total = tf.cast(tf.shape(pixels)[1], pixels.dtype)
        return tf.cast(tf.minimum(self._limit(pixels), total), tf.int32)


def _hyperplane_amount(slope: planes.Slope, values: int | tf.Tensor) -> tf.Tensor:
    """How far each value moves: all the room of the pixels that cover most of the need.

    The last of the pixels moves its values by one fraction of their room.
    """
    room, reach = pixel_reach(slope, values)
    order = tf.argsort(reach, axis=1, direction="DESCENDING", stable=True)
    covered = tf.cumsum(tf.gather(reach, order, axis=1, batch_dims=1), axis=1, exclusive=True)
    covered = tf.gather(covered, tf.argsort(order, axis=1), axis=1, batch_dims=1)
    left = tf.maximum(slope.need - covered, 0)
    fraction = tf.minimum(tf.math.divide_no_nan(left, reach), 1)
    return room * tf.repeat(fraction, values, axis=1)
