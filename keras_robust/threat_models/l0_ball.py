"""The L0 threat model: few pixels change, each as much as the bounds allow."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, ClassVar

import numpy.typing as npt
import tensorflow as tf

from keras_robust.core.config import OMIT_NONE, serializable
from keras_robust.core.numerics import broadcast_to_images, pixel_range, scalar, upcast_half
from keras_robust.core.types import Images, PerExample, Radius
from keras_robust.core.validation import is_number
from keras_robust.threat_models import hyperplane_projection as planes
from keras_robust.threat_models import l0_projection, masks
from keras_robust.threat_models.clipping import clipped
from keras_robust.threat_models.lp_ball import LpBall


@serializable
class L0Ball(LpBall):
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if is_number(self.radius) and 0 < float(self.radius) < 1:
            raise ValueError(
                f"L0Ball: radius is {self.radius:g}, less than one pixel; expected the number of "
                "pixels that may change, such as 24."
            )

    def replace(
        self, *, radius: Radius | None = None, bounds: tuple[float, float] | None = None
    ) -> L0Ball:
        """The same ball with another radius, of which a number below 1 counts as 0, or bounds."""
        if is_number(radius) and 0 < float(radius) < 1:  # type: ignore[arg-type]
            radius = 0.0
        return super().replace(radius=radius, bounds=bounds)

    def sample(self, x: Images, seed: tf.Tensor) -> Images:
        """Gives random values inside the bounds to `radius` random pixels."""
        return self._random(x, seed, at_bounds=False)

    def sample_sphere(self, x: Images, seed: tf.Tensor) -> Images:
        """Moves the values of `radius` random pixels to a random one of the bounds each."""
        return self._random(x, seed, at_bounds=True)

    def project(self, x_adv: Images, x: Images) -> Images:
        """The nearest point, in L2, in the ball around `x` and the bounds."""
        center = self._center(x)
        x_adv = masks.restored(self, upcast_half(x_adv), center)
        delta = self._pixels(x_adv - center)
        low, high = (scalar(bound, delta.dtype) - self._pixels(center) for bound in self.bounds)
        moved = l0_projection.onto_ball_and_box(delta, self._count(delta), low, high)
        kept = _as_images(tf.not_equal(moved, 0), x)
        # Points inside are returned, not rebuilt: x + (x_adv - x) may differ from x_adv.
        inside = broadcast_to_images(self.distance(x_adv, center) <= self._limit(delta), x)
        return clipped(self.bounds, tf.where(inside | kept, x_adv, center), x.dtype, x)

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """The pixel with the largest sum of absolute gradients, moved by the range of a pixel."""
        values = masks.without_masked(self, gradient)
        pixels = self._pixels(values)
        scale = tf.reduce_max(tf.abs(pixels), axis=[1, 2], keepdims=True)
        size = tf.reduce_sum(tf.abs(tf.math.divide_no_nan(pixels, scale)), axis=2)
        first = l0_projection.largest(size, tf.constant(1))
        step = tf.where(first[..., None], tf.sign(pixels), tf.zeros_like(pixels))
        step *= scalar(pixel_range(self.bounds), pixels.dtype)
        return tf.cast(_as_images(step, gradient), values.dtype)

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The number of pixels that differ."""
        differs = tf.not_equal(upcast_half(x_adv), self._center(x))
        delta = tf.cast(differs, upcast_half(x).dtype)
        length = tf.reduce_sum(tf.reduce_max(self._pixels(delta), axis=2), axis=1)
        return masks.infinite_outside(self, length, delta)

    def dual_norm(self, gradient: tf.Tensor) -> PerExample:
        """The most that one pixel gains: its range times its largest sum of absolute gradients."""
        pixels = self._pixels(masks.without_masked(self, upcast_half(gradient)))
        largest = tf.reduce_max(tf.reduce_sum(tf.abs(pixels), axis=2), axis=1)
        return scalar(pixel_range(self.bounds), pixels.dtype) * largest

    def project_onto_hyperplane(self, x: Images, normal: tf.Tensor, value: PerExample) -> tf.Tensor:
        """Moves the pixels that approach the plane most as far as they can, the last one partly."""
        values = l0_projection.values_per_pixel(upcast_half(x), self.per_channel)
        amount = functools.partial(_hyperplane_amount, values=values)
        normal = masks.without_masked(self, normal)
        return planes.project_onto_hyperplane(amount, self.bounds, x, normal, value)

    def _pixels(self, x: Images) -> tf.Tensor:
        return l0_projection.as_pixels(x, self.per_channel)

    def _limit(self, pixels: tf.Tensor) -> tf.Tensor:
        """The number of pixels that may change, a scalar of the dtype of `pixels`."""
        total = tf.cast(tf.shape(pixels)[1], pixels.dtype)
        return tf.floor(tf.minimum(scalar(self.radius, pixels.dtype), total))

    def _count(self, pixels: tf.Tensor) -> tf.Tensor:
        return tf.cast(self._limit(pixels), tf.int32)

    def _random(self, x: Images, seed: tf.Tensor, at_bounds: bool) -> Images:
        center = self._center(x)
        dtype, seeds = center.dtype, tf.random.split(seed, 2)
        noise = tf.random.stateless_uniform(tf.shape(x), seeds[0], -1.0, 1.0, dtype)
        if at_bounds:
            noise = tf.where(noise < 0, -tf.ones_like(noise), tf.ones_like(noise))
        low, high = self.bounds
        if math.isfinite(high - low):
            moved = scalar(low, dtype) + (noise + 1) / 2 * scalar(high - low, dtype)
        else:
            moved = center + noise
        moved = masks.restored(self, moved, center)
        pixels = self._pixels(center)
        score = tf.random.stateless_uniform(tf.shape(pixels)[:2], seeds[1], dtype=dtype)
        if masks.mask_of(self) is not None:
            free = masks.without_masked(self, tf.ones_like(center))
            score += tf.reduce_max(self._pixels(free), axis=2)  # pixels that may change first
        chosen = l0_projection.largest(score, self._count(pixels))[..., None]
        chosen = _as_images(chosen & tf.ones_like(pixels, tf.bool), x)
        return clipped(self.bounds, tf.where(chosen, moved, center), x.dtype, x)


def _as_images(pixels: tf.Tensor, like: Images) -> tf.Tensor:
    return tf.ensure_shape(tf.reshape(pixels, tf.shape(like)), like.shape)


def _hyperplane_amount(slope: planes.Slope, values: int | tf.Tensor) -> tf.Tensor:
    """How far each value moves: all the room of the pixels that cover most of the need.

    The last of the pixels moves its values by one fraction of their room.
    """
    shape = tf.shape(slope.rate)
    # Infinity times a rate of 0 is NaN.
    enough = 2 * tf.math.divide_no_nan(slope.need, slope.rate)
    room = tf.minimum(tf.minimum(slope.room, enough), enough.dtype.max)
    reach = tf.reshape(slope.rate * room, [shape[0], shape[1] // values, values])
    reach = tf.reduce_sum(reach, axis=2)
    order = tf.argsort(reach, axis=1, direction="DESCENDING", stable=True)
    covered = tf.cumsum(tf.gather(reach, order, axis=1, batch_dims=1), axis=1, exclusive=True)
    covered = tf.gather(covered, tf.argsort(order, axis=1), axis=1, batch_dims=1)
    left = tf.maximum(slope.need - covered, 0)
    fraction = tf.minimum(tf.math.divide_no_nan(left, reach), 1)
    return room * tf.repeat(fraction, values, axis=1)


def refuse_sparse(owner: str, ball: Any) -> None:
    """Raises TypeError if the distance in `ball` is a number of pixels.

    Args:
        owner: what needs a distance that shrinks toward the clean image, for the message.
        ball: the threat model received.

    Example:
        >>> refuse_sparse("Fab", L0Ball(24))
        Traceback (most recent call last):
        ...
        TypeError: Fab is defined in norms that shrink on the way to the clean image, such as L2; \
ball is L0Ball(radius=24, bounds=(0.0, 1.0), per_channel=False).
    """
    if isinstance(ball, L0Ball):
        raise TypeError(
            f"{owner} is defined in norms that shrink on the way to the clean image, such as L2; "
            f"ball is {ball!r}."
        )
