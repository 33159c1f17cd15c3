"""Threat models: Lp balls around an image, intersected with the range of a pixel.

Everything that depends on the norm is behind the members of `keras_robust.types.Ball`; a ball of
your own that has them works in every attack that does not name the norms it is defined for.

Radii are in the units of the images, which lie in `bounds`: the usual CIFAR-10 radius is `8 / 255`.
A radius may be a number or a scalar tensor, so that one compiled attack serves many radii.

A `mask` restricts the perturbation to some of the pixels: the ball is then that of images that have
no others. Lengths, directions and random points are those of the pixels that may change, and an
image that differs elsewhere is infinitely far away.

Results are inside the bounds exactly, as numbers of the images' dtype, and inside the ball up to
rounding: each pixel is the nearest number of the dtype, and in L2 and L1 the length is right to a
few units in the last place. Images of half precision are moved in float32 and rounded once, toward
the clean image, so that they are inside the ball as exactly as those of float32. Subnormal numbers
may count as 0.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_robust.core import random
from keras_robust.core.config import OMIT_NONE, serializable
from keras_robust.core.numerics import broadcast_to_images, pixel_range, scalar, upcast_half
from keras_robust.core.types import Images, PerExample, Radius
from keras_robust.core.validation import check_number, is_number
from keras_robust.threat_models import hyperplane_projection as planes
from keras_robust.threat_models import masks, norms
from keras_robust.threat_models.clipping import clipped
from keras_robust.threat_models.l1_projection import onto_ball, onto_ball_and_box
from keras_robust.threat_models.lp_ball import LpBall


@serializable
class LinfBall(LpBall):
    """Every pixel may change by at most `radius`.

    Args:
        radius: the largest change of a pixel, in the units of the images. An array of radii, of the
            shape of one image, is short for their largest and a mask.
        bounds: the range of a pixel.
        mask: fractions of the radius by which each pixel may change, in [0, 1]; an array of the
            shape of one image, or with an axis of 1 where all share a value. None: all may change.
            The distance counts changes in units of the fraction.

    Raises:
        ValueError: a negative or infinite radius, one larger than the range of a pixel, bounds
            that are not `low < high`, or a mask with values outside [0, 1] or 0 everywhere.

    Example:
        >>> import tensorflow as tf
        >>> ball = LinfBall(radius=0.25)
        >>> ball.project(tf.constant([[0.9, 0.1]]), tf.constant([[0.5, 0.0]])).numpy().tolist()
        [[0.75, 0.10000000149011612]]
        >>> ball = LinfBall(radius=tf.constant([0.25, 0.0]))
        >>> ball.project(tf.constant([[0.9, 0.1]]), tf.constant([[0.5, 0.0]])).numpy().tolist()
        [[0.75, 0.0]]
    """

    p: ClassVar[float] = math.inf
    radius: Radius
    bounds: tuple[float, float] = (0.0, 1.0)
    mask: masks.Mask | npt.ArrayLike | None = dataclasses.field(
        default=None, kw_only=True, metadata=OMIT_NONE
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        width = self.bounds[1] - self.bounds[0]
        if is_number(self.radius) and float(self.radius) > width:
            raise ValueError(
                f"LinfBall: radius is {self.radius:g}, more than the range {self.bounds} of a "
                f"pixel. Radii are in the units of the images: {self.radius:g} / 255, perhaps?"
            )

    def _limit(self, center: Images) -> tf.Tensor:
        """The largest change of each pixel: a scalar, or the shape of `center`."""
        radius = scalar(self.radius, center.dtype)
        mask = masks.mask_of(self)
        if mask is None:
            return radius
        fractions = mask.fractions(center.dtype)
        limit = radius * fractions
        # A pixel is rounded by more than a small fraction of the radius may allow: round inward.
        rounding = np.finfo(center.dtype.as_numpy_dtype).eps * (tf.abs(center) + limit)
        return tf.where(fractions < 1, tf.maximum(limit - rounding, 0), limit)

    def sample(self, x: Images, seed: tf.Tensor) -> Images:
        """A uniform point of the ball around `x`, clipped into the bounds."""
        center = self._center(x)
        noise = random.uniform(tf.shape(x), seed, -1.0, 1.0, center.dtype)
        return clipped(self.bounds, center + self._limit(center) * noise, x.dtype, x)

    def sample_sphere(self, x: Images, seed: tf.Tensor) -> Images:
        """A uniform direction scaled to the radius, clipped into the bounds."""
        center = self._center(x)
        noise = random.uniform(tf.shape(x), seed, -1.0, 1.0, center.dtype)
        _, scaled = norms.divided_by_largest(masks.without_masked(self, noise))
        delta = self._limit(center) * tf.reshape(scaled, tf.shape(x))
        return clipped(self.bounds, center + delta, x.dtype, x)

    def project(self, x_adv: Images, x: Images) -> Images:
        """The nearest point in the ball around `x`, clipped into the bounds."""
        center = self._center(x)
        limit = self._limit(center)
        nearest = tf.clip_by_value(upcast_half(x_adv), center - limit, center + limit)
        return clipped(self.bounds, nearest, x.dtype, x)

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """The sign of the gradient, times the fractions of the mask."""
        mask = masks.mask_of(self)
        sign = tf.sign(gradient)
        return sign if mask is None else sign * mask.fractions(sign.dtype)

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The largest change of a pixel; with a mask, divided by its fraction."""
        delta = upcast_half(x_adv) - self._center(x)
        mask = masks.mask_of(self)
        if mask is not None:
            fractions = mask.fractions(delta.dtype)
            forbidden = tf.where(tf.equal(delta, 0), delta, tf.constant(math.inf, delta.dtype))
            inside = fractions > 0
            delta = tf.where(inside, delta / tf.where(inside, fractions, 1), forbidden)
        return norms.linf_norm(delta)

    def dual_norm(self, gradient: tf.Tensor) -> PerExample:
        """The L1 norm; with a mask, of the gradient times its fractions."""
        mask = masks.mask_of(self)
        if mask is not None:
            gradient = masks.without_masked(self, upcast_half(gradient))
            gradient *= mask.fractions(gradient.dtype)
        return norms.l1_norm(gradient)

    def project_onto_hyperplane(self, x: Images, normal: tf.Tensor, value: PerExample) -> tf.Tensor:
        """The step `min(t, room)` of each pixel; see `hyperplane_projection`."""
        amount, mask = planes.linf_amount, masks.mask_of(self)
        if mask is not None:
            center = self._center(x)
            fractions = tf.broadcast_to(mask.fractions(center.dtype), tf.shape(x)[1:])
            amount = functools.partial(amount, fractions=tf.reshape(fractions, [1, -1]))
            normal = masks.without_masked(self, normal)
        return planes.project_onto_hyperplane(amount, self.bounds, x, normal, value)


@serializable
class L2Ball(LpBall):
    """The Euclidean length of the perturbation is at most `radius`.

    Args:
        radius: the largest Euclidean length, in the units of the images.
        bounds: the range of a pixel.
        mask: 1 where a pixel may change, 0 where not; an array of the shape of one image, or with
            an axis of 1 where all share a value. None: all may change.

    Raises:
        ValueError: a negative or infinite radius, bounds that are not `low < high`, or a mask
            with other values than 0 and 1, or 0 everywhere.

    Example:
        >>> import tensorflow as tf
        >>> ball = L2Ball(radius=0.5, bounds=(-1.0, 1.0))
        >>> ball.project(tf.constant([[0.6, 0.8]]), tf.zeros([1, 2])).numpy().round(2).tolist()
        [[0.30000001192092896, 0.4000000059604645]]
    """

    p: ClassVar[float] = 2.0
    radius: Radius
    bounds: tuple[float, float] = (0.0, 1.0)
    mask: masks.Mask | npt.ArrayLike | None = dataclasses.field(
        default=None, kw_only=True, metadata=OMIT_NONE
    )

    def sample(self, x: Images, seed: tf.Tensor) -> Images:
        """A uniform point of the ball around `x`, clipped into the bounds."""
        center = self._center(x)
        dtype = center.dtype
        seeds = random.split(seed, 2)
        direction = self.steepest(random.normal(tf.shape(x), seeds[0], dtype=dtype))
        uniform = random.uniform(tf.shape(x)[:1], seeds[1], dtype=dtype)
        # The volume inside radius r grows like r^d, so the radius of a uniform point is U^(1/d).
        dimension = tf.cast(masks.pixels_of(self, x), dtype)
        length = scalar(self.radius, dtype) * uniform ** (1 / dimension)
        return clipped(self.bounds, center + broadcast_to_images(length, x) * direction, x.dtype, x)

    def sample_sphere(self, x: Images, seed: tf.Tensor) -> Images:
        """A uniform point of the sphere around `x`, clipped into the bounds."""
        center = self._center(x)
        noise = random.normal(tf.shape(x), seed, dtype=center.dtype)
        delta = scalar(self.radius, center.dtype) * self.steepest(noise)
        return clipped(self.bounds, center + delta, x.dtype, x)

    def project(self, x_adv: Images, x: Images) -> Images:
        """Scales the perturbation down to the radius, then clips into the bounds.

        Clipping moves each pixel toward the clean one, so the result stays inside the ball. It is
        the nearest point of the ball, not always of the ball's intersection with the bounds.
        """
        center = self._center(x)
        x_adv = masks.restored(self, upcast_half(x_adv), center)
        delta = x_adv - center
        radius = scalar(self.radius, delta.dtype)
        inside = broadcast_to_images(norms.l2_norm(delta) <= radius, delta)
        # Points inside are returned, not rebuilt: x + (x_adv - x) may differ from x_adv.
        nearest = tf.where(inside, x_adv, center + radius * self.steepest(delta))
        return clipped(self.bounds, nearest, x.dtype, x)

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """The gradient scaled to Euclidean length 1."""
        return norms.l2_unit(masks.without_masked(self, gradient))

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The Euclidean length of the perturbation."""
        delta = upcast_half(x_adv) - self._center(x)
        return masks.infinite_outside(self, norms.l2_norm(delta), delta)

    def dual_norm(self, gradient: tf.Tensor) -> PerExample:
        """The L2 norm."""
        return norms.l2_norm(masks.without_masked(self, gradient))

    def project_onto_hyperplane(self, x: Images, normal: tf.Tensor, value: PerExample) -> tf.Tensor:
        """The step `min(t |normal|, room)` of each pixel; see `hyperplane_projection`."""
        normal = masks.without_masked(self, normal)
        return planes.project_onto_hyperplane(planes.l2_amount, self.bounds, x, normal, value)


@serializable
class L1Ball(LpBall):
    """The absolute changes of the pixels sum to at most `radius`.

    Args:
        radius: the largest sum of absolute changes, in the units of the images.
        bounds: the range of a pixel.
        density: the fraction of the pixels that `steepest` moves, in (0, 1], of those that may
            change. The steepest direction in L1 moves a single pixel, which makes attacks
            needlessly slow.
        mask: as in `L2Ball`.

    Raises:
        ValueError: a negative or infinite radius, bounds that are not `low < high`, a density
            outside (0, 1], or a mask with other values than 0 and 1, or 0 everywhere.

    Example:
        >>> import tensorflow as tf
        >>> ball = L1Ball(radius=1.0, bounds=(-2.0, 2.0))
        >>> ball.project(tf.constant([[2.0, 1.5]]), tf.zeros([1, 2])).numpy().tolist()
        [[0.75, 0.25]]

    Reference: sparse steps after Tramer and Boneh, "Adversarial Training and Robustness for
    Multiple Perturbations" (2019), section 4; the projection: `l1_projection`.
    """

    p: ClassVar[float] = 1.0
    radius: Radius
    bounds: tuple[float, float] = (0.0, 1.0)
    density: float = 0.05
    mask: masks.Mask | npt.ArrayLike | None = dataclasses.field(
        default=None, kw_only=True, metadata=OMIT_NONE
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("L1Ball: density", self.density, above=0, most=1)

    def sample(self, x: Images, seed: tf.Tensor) -> Images:
        """A uniform point of the ball around `x`, clipped into the bounds."""
        center = self._center(x)
        dtype = center.dtype
        seeds = random.split(seed, 2)
        shape = tf.shape(norms.flatten(x))
        # d + 1 exponentials over their sum are uniform on the simplex; dropping the last one
        # leaves a uniform point of the positive part of the L1 ball.
        uniform = random.uniform(shape + tf.constant([0, 1]), seeds[0], dtype=dtype)
        exponential = -tf.math.log1p(-uniform)
        mask = masks.mask_of(self)
        if mask is not None:
            free = tf.broadcast_to(mask.allowed(), tf.shape(x)[1:])
            free = tf.concat([tf.reshape(free, [-1]), [True]], axis=0)
            exponential = tf.where(free, exponential, tf.zeros_like(exponential))
        fraction = exponential / tf.reduce_sum(exponential, axis=1, keepdims=True)
        sign = tf.sign(random.uniform(shape, seeds[1], -1.0, 1.0, dtype))
        delta = scalar(self.radius, dtype) * sign * fraction[:, :-1]
        return clipped(self.bounds, center + tf.reshape(delta, tf.shape(x)), x.dtype, x)

    def sample_sphere(self, x: Images, seed: tf.Tensor) -> Images:
        """Projects Gaussian noise as wide as the bounds, which leaves few pixels changed."""
        center = self._center(x)
        noise = random.normal(tf.shape(x), seed, dtype=center.dtype)
        delta = masks.without_masked(self, pixel_range(self.bounds) * noise)
        # A few pixels may not reach the radius.
        reach = tf.math.divide_no_nan(scalar(self.radius, delta.dtype), norms.l1_norm(delta))
        return self.project(center + broadcast_to_images(tf.maximum(reach, 1), x) * delta, x)

    def project(self, x_adv: Images, x: Images) -> Images:
        """The nearest point in the intersection of the ball around `x` and the bounds.

        Clipping after the projection would waste a part of the radius.
        """
        center = self._center(x)
        x_adv = masks.restored(self, upcast_half(x_adv), center)
        flat, clean = norms.flatten(x_adv - center), norms.flatten(center)
        radius = scalar(self.radius, flat.dtype)
        low, high = (scalar(bound, flat.dtype) - clean for bound in self.bounds)
        inside = tf.reduce_sum(tf.abs(flat), axis=1) <= radius
        shrunk = onto_ball(flat, radius)
        fits = tf.reduce_all((low <= shrunk) & (shrunk <= high), axis=1, keepdims=True)
        # Twice, because the first projection rounds.
        boxed = onto_ball(onto_ball_and_box(flat, radius, low, high), radius)
        shrunk = tf.where(fits, shrunk, boxed)
        # Points inside are returned, not rebuilt: x + (x_adv - x) may differ from x_adv.
        nearest = tf.where(
            broadcast_to_images(inside, x), x_adv, center + tf.reshape(shrunk, tf.shape(x))
        )
        return clipped(self.bounds, nearest, x.dtype, x)

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """Signs of the `density` largest entries, scaled to an absolute sum of 1."""
        pixels = masks.pixels_of(self, gradient)
        count = tf.math.ceil(self.density * tf.cast(pixels, tf.float32))
        gradient = masks.without_masked(self, gradient)
        return norms.sparse_l1_unit(gradient, tf.cast(count, tf.int32))

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The sum of the absolute changes."""
        delta = upcast_half(x_adv) - self._center(x)
        return masks.infinite_outside(self, norms.l1_norm(delta), delta)

    def dual_norm(self, gradient: tf.Tensor) -> PerExample:
        """The Linf norm."""
        return norms.linf_norm(masks.without_masked(self, gradient))

    def project_onto_hyperplane(self, x: Images, normal: tf.Tensor, value: PerExample) -> tf.Tensor:
        """Uses the room of the pixels with the largest normal; see `hyperplane_projection`."""
        normal = masks.without_masked(self, normal)
        return planes.project_onto_hyperplane(planes.l1_amount, self.bounds, x, normal, value)
