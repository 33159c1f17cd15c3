"""Sparse balls: some pixels change, each as much as the bounds allow; what L0 and patches share."""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_robust.core import random
from keras_robust.core.numerics import broadcast_to_images, pixel_range, scalar, upcast_half
from keras_robust.core.types import Images, PerExample, Radius
from keras_robust.core.validation import check_ball, is_number
from keras_robust.threat_models import hyperplane_projection as planes
from keras_robust.threat_models import l0_projection, masks
from keras_robust.threat_models.clipping import clipped
from keras_robust.threat_models.lp_ball import LpBall

if TYPE_CHECKING:
    from typing_extensions import Self


class SparseBall(LpBall, abc.ABC):
    """A ball whose radius limits which pixels change, and not by how much.

    Subclasses choose pixels in `_best`, measure the `distance`, and step onto hyperplanes.
    """

    per_channel: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if is_number(self.radius) and 0 < float(self.radius) < 1:
            raise ValueError(
                f"{type(self).__name__}: radius is {self.radius:g}, less than one pixel; expected "
                "a number of pixels, such as 24."
            )

    def replace(
        self, *, radius: Radius | None = None, bounds: tuple[float, float] | None = None
    ) -> Self:
        """The same ball with another radius, of which a number below 1 counts as 0, or bounds."""
        if is_number(radius) and 0 < float(radius) < 1:  # type: ignore[arg-type]
            radius = 0.0
        return super().replace(radius=radius, bounds=bounds)

    @abc.abstractmethod
    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The least radius of a ball that contains the change."""

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
        moved, gain = l0_projection.clipped_gain(delta, low, high)
        kept = tf.not_equal(moved, 0) & self._best(gain, x)[..., None]
        kept = _as_images(kept, x)
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

    def dual_norm(self, gradient: tf.Tensor) -> PerExample:
        """The most that one pixel gains: its range times its largest sum of absolute gradients."""
        pixels = self._pixels(masks.without_masked(self, upcast_half(gradient)))
        largest = tf.reduce_max(tf.reduce_sum(tf.abs(pixels), axis=2), axis=1)
        return scalar(pixel_range(self.bounds), pixels.dtype) * largest

    def _pixels(self, x: Images) -> tf.Tensor:
        return l0_projection.as_pixels(x, self.per_channel)

    @abc.abstractmethod
    def _best(self, score: tf.Tensor, x: Images) -> tf.Tensor:
        """The pixels of the ball with the largest sum of scores, bool, `[batch, pixels]`."""

    def _drawn(self, score: tf.Tensor, x: Images) -> tf.Tensor:
        """Random pixels of the ball, by independent scores of all."""
        return self._best(score, x)

    def _limit(self, pixels: tf.Tensor) -> tf.Tensor:
        """The largest distance, a scalar of the dtype of `pixels`."""
        return tf.floor(scalar(self.radius, pixels.dtype))

    def _random(self, x: Images, seed: tf.Tensor, at_bounds: bool) -> Images:
        center = self._center(x)
        dtype, seeds = center.dtype, random.split(seed, 2)
        noise = random.uniform(tf.shape(x), seeds[0], -1.0, 1.0, dtype)
        if at_bounds:
            noise = tf.where(noise < 0, -tf.ones_like(noise), tf.ones_like(noise))
        low, high = self.bounds
        if math.isfinite(high - low):
            moved = scalar(low, dtype) + (noise + 1) / 2 * scalar(high - low, dtype)
        else:
            moved = center + noise
        moved = masks.restored(self, moved, center)
        pixels = self._pixels(center)
        score = random.uniform(tf.shape(pixels)[:2], seeds[1], dtype=dtype)
        if masks.mask_of(self) is not None:
            free = masks.without_masked(self, tf.ones_like(center))
            score += tf.reduce_max(self._pixels(free), axis=2)  # pixels that may change first
        chosen = self._drawn(score, x)[..., None]
        chosen = _as_images(chosen & tf.ones_like(pixels, tf.bool), x)
        return clipped(self.bounds, tf.where(chosen, moved, center), x.dtype, x)


def _as_images(pixels: tf.Tensor, like: Images) -> tf.Tensor:
    return tf.ensure_shape(tf.reshape(pixels, tf.shape(like)), like.shape)


def pixel_reach(slope: planes.Slope, values: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The room of each value, finite, and how far all values of a pixel get, `[batch, pixels]`."""
    shape = tf.shape(slope.rate)
    # Infinity times a rate of 0 is NaN.
    enough = 2 * tf.math.divide_no_nan(slope.need, slope.rate)
    room = tf.minimum(tf.minimum(slope.room, enough), enough.dtype.max)
    reach = tf.reshape(slope.rate * room, [shape[0], shape[1] // values, values])
    return room, tf.reduce_sum(reach, axis=2)


def refuse_sparse(owner: str, ball: Any) -> None:
    """Raises TypeError if the distance in `ball` is a number of pixels.

    Args:
        owner: what needs a distance that shrinks toward the clean image, for the message.
        ball: the threat model received.

    Example:
        >>> from keras_robust import L0Ball
        >>> refuse_sparse("Fab", L0Ball(24))
        Traceback (most recent call last):
        ...
        TypeError: Fab is defined in norms that shrink on the way to the clean image, such as L2; \
ball is L0Ball(radius=24, bounds=(0.0, 1.0), per_channel=False).
    """
    if isinstance(ball, SparseBall):
        raise TypeError(
            f"{owner} is defined in norms that shrink on the way to the clean image, such as L2; "
            f"ball is {ball!r}."
        )


def check_sparse(owner: str, ball: Any) -> None:
    """Raises TypeError unless the radius of `ball` limits which pixels change.

    Args:
        owner: what is defined for such balls only, for the message.
        ball: the threat model received.
    """
    check_ball(ball)
    if not isinstance(ball, SparseBall):
        raise TypeError(
            f"{owner} is defined in L0 and for patches; ball is {ball!r}. Take a "
            "`keras_robust.L0Ball` or a `keras_robust.threat_models.PatchBall`."
        )
