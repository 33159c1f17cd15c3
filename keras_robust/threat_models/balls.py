"""Threat models: where a perturbed image may be.

A ball is an Lp neighbourhood of an image, cut with the range that pixels may take. Everything that
depends on the norm is here: drawing a point, projecting onto the ball, the steepest direction of
ascent and the distance; the geometry of planes in each norm is in `hyperplane`. Nothing else in the
library asks which norm it is.

Radii are in the units of the images, which lie in `bounds`: the usual CIFAR-10 radius is `8 / 255`.
A radius may be a float or a scalar tensor, so that one compiled attack serves many radii.

What comes out is inside the bounds exactly, as numbers of the images' dtype, and inside the ball
but for rounding: each pixel is the nearest number of the dtype to where it should be, and in L2 and
L1 the length is right to a few units of the last place. Images of half precision are moved in
float32 and rounded once. Numbers too small for the dtype's normal range may count as 0.
"""

from __future__ import annotations

import math
import numbers
from typing import Any, ClassVar

import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, scalar, upcast_half
from keras_robust.core.types import Images, PerExample
from keras_robust.threat_models.l1_projection import onto_ball, onto_ball_and_box


def _check(name: str, radius: Any, bounds: tuple[float, float]) -> None:
    if not isinstance(radius, numbers.Real) and not hasattr(radius, "dtype"):
        raise TypeError(f"{name}: radius is {radius!r}; expected a number, such as 8 / 255.")
    # The value of a tensor is known outside of graphs; a symbol has none yet, only a shape.
    value = tf.get_static_value(radius) if tf.is_tensor(radius) else radius
    several = getattr(radius, "shape", ()) not in ((), tf.TensorShape(None))
    if several or isinstance(radius, bool) or (value is not None and not 0 <= value < math.inf):
        raise ValueError(
            f"{name}: radius is {radius!r}; expected a finite number >= 0 in the units of the "
            "images, such as 8 / 255 for images in [0, 1]."
        )
    pair = isinstance(bounds, (tuple, list)) and len(bounds) == 2
    if not pair or not bounds[0] < bounds[1]:
        raise ValueError(f"{name}: bounds are {bounds!r}; expected (low, high) with low < high.")


def clipped(bounds: tuple[float, float], x: Images, dtype: tf.DType) -> Images:
    """Rounds to the dtype of the images, then clips, so that rounding cannot leave the bounds."""
    return tf.clip_by_value(tf.cast(x, dtype), scalar(bounds[0], dtype), scalar(bounds[1], dtype))


def _flat(x: tf.Tensor) -> tf.Tensor:
    x = tf.convert_to_tensor(x)
    # The number of pixels is spelled out: -1 cannot be inferred for an empty batch.
    pixels = x.shape[1:].num_elements()
    return tf.reshape(x, [-1, tf.reduce_prod(tf.shape(x)[1:]) if pixels is None else pixels])


def _scaled(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The largest entry of each example, `[batch, 1]`, and the flat examples divided by it.

    Squares of the tiny would vanish in float32, and squares of the huge are infinite.
    """
    flat = upcast_half(_flat(x))
    largest = tf.reduce_max(tf.abs(flat), axis=1, keepdims=True)
    return largest, tf.math.divide_no_nan(flat, largest)


def _length(delta: tf.Tensor) -> PerExample:
    largest, scaled = _scaled(delta)
    return largest[:, 0] * tf.norm(scaled, axis=1)


@serializable
class LinfBall:
    """Every pixel may move by at most `radius`.

    Args:
        radius: the largest change of a pixel, in the units of the images.
        bounds: the range of a valid pixel.

    Raises:
        ValueError: a negative or infinite radius, one larger than the range of a pixel, or bounds
            that are not `low < high`.

    Example:
        >>> import tensorflow as tf
        >>> ball = LinfBall(radius=0.25)
        >>> ball.project(tf.constant([[0.9, 0.1]]), tf.constant([[0.5, 0.0]])).numpy().tolist()
        [[0.75, 0.10000000149011612]]
    """

    order: ClassVar[float] = math.inf
    radius: Any
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        _check("LinfBall", self.radius, self.bounds)
        width = self.bounds[1] - self.bounds[0]
        if isinstance(self.radius, numbers.Real) and float(self.radius) > width:
            raise ValueError(
                f"LinfBall: radius is {self.radius:g}, more than the range {self.bounds} of a "
                f"pixel. Radii are in the units of the images: {self.radius:g} / 255, perhaps?"
            )

    def sample(self, x: Images, seed: tf.Tensor) -> Images:
        """Draws a point uniformly from the ball around `x`, then clips it into the bounds."""
        centre = upcast_half(x)
        noise = tf.random.stateless_uniform(tf.shape(x), seed, -1.0, 1.0, centre.dtype)
        return clipped(self.bounds, centre + scalar(self.radius, centre.dtype) * noise, x.dtype)

    def rim(self, x: Images, seed: tf.Tensor) -> Images:
        """Draws a uniform direction, as long as the ball is wide, then clips into the bounds."""
        centre = upcast_half(x)
        noise = tf.random.stateless_uniform(tf.shape(x), seed, -1.0, 1.0, centre.dtype)
        _, scaled = _scaled(noise)
        delta = scalar(self.radius, centre.dtype) * tf.reshape(scaled, tf.shape(x))
        return clipped(self.bounds, centre + delta, x.dtype)

    def project(self, x_adv: Images, x: Images) -> Images:
        """Brings `x_adv` to the nearest point in the ball around `x`, then into the bounds."""
        centre = upcast_half(x)
        radius = scalar(self.radius, centre.dtype)
        nearest = tf.clip_by_value(upcast_half(x_adv), centre - radius, centre + radius)
        return clipped(self.bounds, nearest, x.dtype)

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """The sign of the gradient: the steepest direction whose largest entry is 1."""
        return tf.sign(gradient)

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The largest change of a pixel."""
        return tf.reduce_max(tf.abs(_flat(upcast_half(x_adv) - upcast_half(x))), axis=1)


@serializable
class L2Ball:
    """The Euclidean length of the perturbation is at most `radius`.

    Args:
        radius: the largest Euclidean length, in the units of the images.
        bounds: the range of a valid pixel.

    Raises:
        ValueError: a negative or infinite radius, or bounds that are not `low < high`.

    Example:
        >>> import tensorflow as tf
        >>> ball = L2Ball(radius=0.5, bounds=(-1.0, 1.0))
        >>> ball.project(tf.constant([[0.6, 0.8]]), tf.zeros([1, 2])).numpy().round(2).tolist()
        [[0.30000001192092896, 0.4000000059604645]]
    """

    order: ClassVar[float] = 2.0
    radius: Any
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        _check("L2Ball", self.radius, self.bounds)

    def sample(self, x: Images, seed: tf.Tensor) -> Images:
        """Draws a point uniformly from the ball around `x`, then clips it into the bounds."""
        centre = upcast_half(x)
        dtype = centre.dtype
        seeds = tf.random.split(seed, 2)
        direction = self.steepest(tf.random.stateless_normal(tf.shape(x), seeds[0], dtype=dtype))
        uniform = tf.random.stateless_uniform(tf.shape(x)[:1], seeds[1], dtype=dtype)
        # The volume inside radius r grows like r^d, so the radius of a uniform point is U^(1/d).
        dimension = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), dtype)
        length = scalar(self.radius, dtype) * uniform ** (1 / dimension)
        return clipped(self.bounds, centre + broadcast_to_images(length, x) * direction, x.dtype)

    def rim(self, x: Images, seed: tf.Tensor) -> Images:
        """Draws a point uniformly from the rim of the ball, then clips it into the bounds."""
        centre = upcast_half(x)
        noise = tf.random.stateless_normal(tf.shape(x), seed, dtype=centre.dtype)
        delta = scalar(self.radius, centre.dtype) * self.steepest(noise)
        return clipped(self.bounds, centre + delta, x.dtype)

    def project(self, x_adv: Images, x: Images) -> Images:
        """Scales the perturbation down to the radius, then clips into the bounds.

        Clipping moves each pixel towards the clean one, so the result stays inside the ball. It is
        the nearest point of the ball, and of the box, not always of their intersection.
        """
        centre, x_adv = upcast_half(x), upcast_half(x_adv)
        delta = x_adv - centre
        radius = scalar(self.radius, delta.dtype)
        inside = broadcast_to_images(_length(delta) <= radius, delta)
        # Points inside are handed back, not rebuilt: x + (x_adv - x) need not be x_adv.
        nearest = tf.where(inside, x_adv, centre + radius * self.steepest(delta))
        return clipped(self.bounds, nearest, x.dtype)

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """The gradient scaled to Euclidean length 1; zero where the gradient is zero."""
        _, scaled = _scaled(gradient)
        unit = tf.math.divide_no_nan(scaled, tf.norm(scaled, axis=1, keepdims=True))
        return tf.cast(tf.reshape(unit, tf.shape(gradient)), gradient.dtype)

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The Euclidean length of the perturbation."""
        return _length(upcast_half(x_adv) - upcast_half(x))


@serializable
class L1Ball:
    """The absolute changes of the pixels sum to at most `radius`.

    Args:
        radius: the largest sum of absolute changes, in the units of the images.
        bounds: the range of a valid pixel.
        density: the share of the pixels that one step of ascent moves, in (0, 1]. The steepest
            direction in L1 moves a single pixel, which makes an attack needlessly slow.

    Raises:
        ValueError: a negative or infinite radius, bounds that are not `low < high`, or a density
            outside (0, 1].

    Example:
        >>> import tensorflow as tf
        >>> ball = L1Ball(radius=1.0, bounds=(-2.0, 2.0))
        >>> ball.project(tf.constant([[2.0, 1.5]]), tf.zeros([1, 2])).numpy().tolist()
        [[0.75, 0.25]]

    Reference: sparse steps after Tramer and Boneh, "Adversarial Training and Robustness for
    Multiple Perturbations" (2019), section 4; the projection: `keras_robust.threat_models.l1_projection`.
    """

    order: ClassVar[float] = 1.0
    radius: Any
    bounds: tuple[float, float] = (0.0, 1.0)
    density: float = 0.05

    def __post_init__(self) -> None:
        _check("L1Ball", self.radius, self.bounds)
        if not 0 < self.density <= 1:
            raise ValueError(f"L1Ball: density is {self.density!r}; expected a share in (0, 1].")

    def sample(self, x: Images, seed: tf.Tensor) -> Images:
        """Draws a point uniformly from the ball around `x`, then clips it into the bounds."""
        centre = upcast_half(x)
        dtype = centre.dtype
        seeds = tf.random.split(seed, 2)
        shape = tf.shape(_flat(x))
        # d + 1 exponentials over their sum are uniform on the simplex; dropping the last one
        # leaves a uniform point of the positive part of the L1 ball, and signs do the rest.
        uniform = tf.random.stateless_uniform(shape + tf.constant([0, 1]), seeds[0], dtype=dtype)
        exponential = -tf.math.log1p(-uniform)
        share = exponential / tf.reduce_sum(exponential, axis=1, keepdims=True)
        sign = tf.sign(tf.random.stateless_uniform(shape, seeds[1], -1.0, 1.0, dtype))
        delta = scalar(self.radius, dtype) * sign * share[:, :-1]
        return clipped(self.bounds, centre + tf.reshape(delta, tf.shape(x)), x.dtype)

    def rim(self, x: Images, seed: tf.Tensor) -> Images:
        """Draws Gaussian noise as wide as the bounds and projects it: few pixels stay moved."""
        centre = upcast_half(x)
        noise = tf.random.stateless_normal(tf.shape(x), seed, dtype=centre.dtype)
        return self.project(centre + (self.bounds[1] - self.bounds[0]) * noise, x)

    def project(self, x_adv: Images, x: Images) -> Images:
        """Brings `x_adv` to the nearest point that is in the L1 ball around `x` and in the bounds.

        Clipped after it was brought into the ball, it would waste what is cut off.
        """
        centre, x_adv = upcast_half(x), upcast_half(x_adv)
        flat, clean = _flat(x_adv - centre), _flat(centre)
        radius = scalar(self.radius, flat.dtype)
        low, high = (scalar(bound, flat.dtype) - clean for bound in self.bounds)
        inside = tf.reduce_sum(tf.abs(flat), axis=1) <= radius
        shrunk = onto_ball(flat, radius)
        fits = tf.reduce_all((low <= shrunk) & (shrunk <= high), axis=1, keepdims=True)
        # The second time, for the rounding of the first.
        boxed = onto_ball(onto_ball_and_box(flat, radius, low, high), radius)
        shrunk = tf.where(fits, shrunk, boxed)
        # Points inside are handed back, not rebuilt: x + (x_adv - x) need not be x_adv.
        nearest = tf.where(
            broadcast_to_images(inside, x), x_adv, centre + tf.reshape(shrunk, tf.shape(x))
        )
        return clipped(self.bounds, nearest, x.dtype)

    def steepest(self, gradient: tf.Tensor, count: tf.Tensor | None = None) -> tf.Tensor:
        """Signs of the largest entries, scaled to an absolute sum of 1.

        Args:
            gradient: `[batch, ...]`.
            count: how many entries, int32 `[batch]`, >= 1; by default `density` of them.

        Returns:
            A direction of the shape of the gradient.
        """
        flat = upcast_half(_flat(gradient))
        pixels = flat.shape[1] or tf.shape(flat)[1]
        if count is None:
            most = tf.cast(tf.math.ceil(self.density * tf.cast(pixels, tf.float32)), tf.int32)
            smallest_kept = tf.math.top_k(tf.abs(flat), k=most).values[:, -1:]
        else:
            descending = tf.sort(tf.abs(flat), axis=1, direction="DESCENDING")
            smallest_kept = tf.gather(descending, count - 1, axis=1, batch_dims=1)[:, None]
        signs = tf.sign(flat) * tf.cast(tf.abs(flat) >= smallest_kept, flat.dtype)
        unit = tf.math.divide_no_nan(signs, tf.reduce_sum(tf.abs(signs), axis=1, keepdims=True))
        return tf.cast(tf.reshape(unit, tf.shape(gradient)), gradient.dtype)

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The sum of the absolute changes."""
        return tf.reduce_sum(tf.abs(_flat(upcast_half(x_adv) - upcast_half(x))), axis=1)
