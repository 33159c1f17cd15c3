"""Threat models: Lp balls around an image, intersected with the range of a pixel.

Everything that depends on the norm is behind the members of `keras_robust.types.Ball`; a ball of
your own that has them works in every attack that does not name the norms it is defined for.

Radii are in the units of the images, which lie in `bounds`: the usual CIFAR-10 radius is `8 / 255`.
A radius may be a number or a scalar tensor, so that one compiled attack serves many radii.

Results are inside the bounds exactly, as numbers of the images' dtype, and inside the ball up to
rounding: each pixel is the nearest number of the dtype, and in L2 and L1 the length is right to a
few units in the last place. Images of half precision are moved in float32 and rounded once, toward
the clean image, so that they are inside the ball as exactly as those of float32. Subnormal numbers
may count as 0.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar

import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, pixel_range, scalar, upcast_half
from keras_robust.core.types import Images, PerExample, Radius
from keras_robust.core.validation import check_number, is_number
from keras_robust.threat_models import hyperplane_projection as planes
from keras_robust.threat_models import norms
from keras_robust.threat_models.l1_projection import onto_ball, onto_ball_and_box

if TYPE_CHECKING:
    from typing_extensions import Self

_UNITS = " in the units of the images, such as 8 / 255 for images in [0, 1]"


def clipped(
    bounds: tuple[float, float], x: Images, dtype: tf.DType, center: Images | None = None
) -> Images:
    """Rounds to the dtype of the images, then clips, so that rounding cannot leave the bounds.

    Args:
        bounds: the range of a pixel.
        x: images, float32 for a dtype of half precision.
        dtype: the dtype of the result.
        center: in half precision, pixels are rounded toward these images, of that dtype; None
            rounds to the nearest number.
    """
    if center is not None and dtype.size < 4:
        x = _rounded_toward(tf.cast(center, x.dtype), x, tf.as_dtype(dtype))
    return tf.clip_by_value(tf.cast(x, dtype), scalar(bounds[0], dtype), scalar(bounds[1], dtype))


@tf.custom_gradient
def _straight_through(x: Images, rounded: Images) -> tuple[Images, Any]:
    return tf.identity(rounded), lambda gradient: (gradient, None)


def _rounded_toward(center: Images, x: Images, dtype: tf.DType) -> Images:
    """Numbers of a half precision, as float32, next to `x` on the side of `center`."""
    # Computed rather than compared after a cast, as XLA may leave out casts to half precision.
    bits, down = tf.bitcast(x, tf.int32), x > center
    if dtype == tf.bfloat16:  # the upper half of the bits of a float32
        larger = tf.where(down == (x > 0), 0, 0xFFFF)
        rounded = tf.bitcast((bits + larger) & -0x10000, tf.float32)
    else:
        binade = tf.bitcast(bits & 0x7F800000, tf.float32)
        spacing = tf.maximum(binade * 2.0**-10, 2.0**-24)
        scaled = x / spacing
        rounded = spacing * tf.where(down, tf.floor(scaled), tf.math.ceil(scaled))
    return _straight_through(x, tf.where(tf.math.is_finite(x), rounded, x))


class _LpBall:
    """The parts that do not depend on the norm."""

    radius: Radius
    bounds: tuple[float, float]

    def __post_init__(self) -> None:
        owner = type(self).__name__
        _check_radius(f"{owner}: radius", self.radius)
        bounds = self.bounds
        pair = isinstance(bounds, (tuple, list)) and len(bounds) == 2
        if not pair or not bounds[0] < bounds[1]:
            raise ValueError(
                f"{owner}: bounds are {bounds!r}; expected (low, high) with low < high."
            )

    def replace(
        self, *, radius: Radius | None = None, bounds: tuple[float, float] | None = None
    ) -> Self:
        """The same ball with another radius or other bounds."""
        given = {"radius": radius, "bounds": bounds}
        changes = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def _check_radius(what: str, radius: Any) -> None:
    if is_number(radius) or isinstance(radius, bool):
        check_number(what, radius, hint=_UNITS)
    elif not hasattr(radius, "dtype"):
        raise TypeError(f"{what} is {radius!r}; expected a number, such as 8 / 255.")
    elif getattr(radius, "shape", ()) not in ((), tf.TensorShape(None)):
        shape = tuple(radius.shape)
        raise ValueError(
            f"{what} is an array of shape {shape}; expected a single number or a scalar tensor."
        )
    else:
        # A symbolic tensor has no value yet.
        value = tf.get_static_value(radius) if tf.is_tensor(radius) else radius
        if value is not None:
            check_number(what, float(value), hint=_UNITS)


@serializable
class LinfBall(_LpBall):
    """Every pixel may change by at most `radius`.

    Args:
        radius: the largest change of a pixel, in the units of the images.
        bounds: the range of a pixel.

    Raises:
        ValueError: a negative or infinite radius, one larger than the range of a pixel, or bounds
            that are not `low < high`.

    Example:
        >>> import tensorflow as tf
        >>> ball = LinfBall(radius=0.25)
        >>> ball.project(tf.constant([[0.9, 0.1]]), tf.constant([[0.5, 0.0]])).numpy().tolist()
        [[0.75, 0.10000000149011612]]
    """

    p: ClassVar[float] = math.inf
    radius: Radius
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        width = self.bounds[1] - self.bounds[0]
        if is_number(self.radius) and float(self.radius) > width:
            raise ValueError(
                f"LinfBall: radius is {self.radius:g}, more than the range {self.bounds} of a "
                f"pixel. Radii are in the units of the images: {self.radius:g} / 255, perhaps?"
            )

    def sample(self, x: Images, seed: tf.Tensor) -> Images:
        """A uniform point of the ball around `x`, clipped into the bounds."""
        center = upcast_half(x)
        noise = tf.random.stateless_uniform(tf.shape(x), seed, -1.0, 1.0, center.dtype)
        return clipped(self.bounds, center + scalar(self.radius, center.dtype) * noise, x.dtype, x)

    def sample_sphere(self, x: Images, seed: tf.Tensor) -> Images:
        """A uniform direction scaled to the radius, clipped into the bounds."""
        center = upcast_half(x)
        noise = tf.random.stateless_uniform(tf.shape(x), seed, -1.0, 1.0, center.dtype)
        _, scaled = norms.divided_by_largest(noise)
        delta = scalar(self.radius, center.dtype) * tf.reshape(scaled, tf.shape(x))
        return clipped(self.bounds, center + delta, x.dtype, x)

    def project(self, x_adv: Images, x: Images) -> Images:
        """The nearest point in the ball around `x`, clipped into the bounds."""
        center = upcast_half(x)
        radius = scalar(self.radius, center.dtype)
        nearest = tf.clip_by_value(upcast_half(x_adv), center - radius, center + radius)
        return clipped(self.bounds, nearest, x.dtype, x)

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """The sign of the gradient."""
        return tf.sign(gradient)

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The largest change of a pixel."""
        return norms.linf_norm(upcast_half(x_adv) - upcast_half(x))

    def dual_norm(self, gradient: tf.Tensor) -> PerExample:
        """The L1 norm."""
        return norms.l1_norm(gradient)

    def project_onto_hyperplane(self, x: Images, normal: tf.Tensor, value: PerExample) -> tf.Tensor:
        """The step `min(t, room)` of each pixel; see `hyperplane_projection`."""
        return planes.project_onto_hyperplane(planes.linf_amount, self.bounds, x, normal, value)


@serializable
class L2Ball(_LpBall):
    """The Euclidean length of the perturbation is at most `radius`.

    Args:
        radius: the largest Euclidean length, in the units of the images.
        bounds: the range of a pixel.

    Raises:
        ValueError: a negative or infinite radius, or bounds that are not `low < high`.

    Example:
        >>> import tensorflow as tf
        >>> ball = L2Ball(radius=0.5, bounds=(-1.0, 1.0))
        >>> ball.project(tf.constant([[0.6, 0.8]]), tf.zeros([1, 2])).numpy().round(2).tolist()
        [[0.30000001192092896, 0.4000000059604645]]
    """

    p: ClassVar[float] = 2.0
    radius: Radius
    bounds: tuple[float, float] = (0.0, 1.0)

    def sample(self, x: Images, seed: tf.Tensor) -> Images:
        """A uniform point of the ball around `x`, clipped into the bounds."""
        center = upcast_half(x)
        dtype = center.dtype
        seeds = tf.random.split(seed, 2)
        direction = self.steepest(tf.random.stateless_normal(tf.shape(x), seeds[0], dtype=dtype))
        uniform = tf.random.stateless_uniform(tf.shape(x)[:1], seeds[1], dtype=dtype)
        # The volume inside radius r grows like r^d, so the radius of a uniform point is U^(1/d).
        dimension = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), dtype)
        length = scalar(self.radius, dtype) * uniform ** (1 / dimension)
        return clipped(self.bounds, center + broadcast_to_images(length, x) * direction, x.dtype, x)

    def sample_sphere(self, x: Images, seed: tf.Tensor) -> Images:
        """A uniform point of the sphere around `x`, clipped into the bounds."""
        center = upcast_half(x)
        noise = tf.random.stateless_normal(tf.shape(x), seed, dtype=center.dtype)
        delta = scalar(self.radius, center.dtype) * self.steepest(noise)
        return clipped(self.bounds, center + delta, x.dtype, x)

    def project(self, x_adv: Images, x: Images) -> Images:
        """Scales the perturbation down to the radius, then clips into the bounds.

        Clipping moves each pixel toward the clean one, so the result stays inside the ball. It is
        the nearest point of the ball, not always of the ball's intersection with the bounds.
        """
        center, x_adv = upcast_half(x), upcast_half(x_adv)
        delta = x_adv - center
        radius = scalar(self.radius, delta.dtype)
        inside = broadcast_to_images(norms.l2_norm(delta) <= radius, delta)
        # Points inside are returned, not rebuilt: x + (x_adv - x) may differ from x_adv.
        nearest = tf.where(inside, x_adv, center + radius * self.steepest(delta))
        return clipped(self.bounds, nearest, x.dtype, x)

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """The gradient scaled to Euclidean length 1."""
        return norms.l2_unit(gradient)

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The Euclidean length of the perturbation."""
        return norms.l2_norm(upcast_half(x_adv) - upcast_half(x))

    def dual_norm(self, gradient: tf.Tensor) -> PerExample:
        """The L2 norm."""
        return norms.l2_norm(gradient)

    def project_onto_hyperplane(self, x: Images, normal: tf.Tensor, value: PerExample) -> tf.Tensor:
        """The step `min(t |normal|, room)` of each pixel; see `hyperplane_projection`."""
        return planes.project_onto_hyperplane(planes.l2_amount, self.bounds, x, normal, value)


@serializable
class L1Ball(_LpBall):
    """The absolute changes of the pixels sum to at most `radius`.

    Args:
        radius: the largest sum of absolute changes, in the units of the images.
        bounds: the range of a pixel.
        density: the fraction of the pixels that `steepest` moves, in (0, 1]. The steepest
            direction in L1 moves a single pixel, which makes attacks needlessly slow.

    Raises:
        ValueError: a negative or infinite radius, bounds that are not `low < high`, or a density
            outside (0, 1].

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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("L1Ball: density", self.density, above=0, most=1)

    def sample(self, x: Images, seed: tf.Tensor) -> Images:
        """A uniform point of the ball around `x`, clipped into the bounds."""
        center = upcast_half(x)
        dtype = center.dtype
        seeds = tf.random.split(seed, 2)
        shape = tf.shape(norms.flatten(x))
        # d + 1 exponentials over their sum are uniform on the simplex; dropping the last one
        # leaves a uniform point of the positive part of the L1 ball.
        uniform = tf.random.stateless_uniform(shape + tf.constant([0, 1]), seeds[0], dtype=dtype)
        exponential = -tf.math.log1p(-uniform)
        fraction = exponential / tf.reduce_sum(exponential, axis=1, keepdims=True)
        sign = tf.sign(tf.random.stateless_uniform(shape, seeds[1], -1.0, 1.0, dtype))
        delta = scalar(self.radius, dtype) * sign * fraction[:, :-1]
        return clipped(self.bounds, center + tf.reshape(delta, tf.shape(x)), x.dtype, x)

    def sample_sphere(self, x: Images, seed: tf.Tensor) -> Images:
        """Projects Gaussian noise as wide as the bounds, which leaves few pixels changed."""
        center = upcast_half(x)
        noise = tf.random.stateless_normal(tf.shape(x), seed, dtype=center.dtype)
        return self.project(center + pixel_range(self.bounds) * noise, x)

    def project(self, x_adv: Images, x: Images) -> Images:
        """The nearest point in the intersection of the ball around `x` and the bounds.

        Clipping after the projection would waste a part of the radius.
        """
        center, x_adv = upcast_half(x), upcast_half(x_adv)
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
        flat = norms.flatten(gradient)
        pixels = flat.shape[1] or tf.shape(flat)[1]
        count = tf.math.ceil(self.density * tf.cast(pixels, tf.float32))
        return norms.sparse_l1_unit(gradient, tf.cast(count, tf.int32))

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The sum of the absolute changes."""
        return norms.l1_norm(upcast_half(x_adv) - upcast_half(x))

    def dual_norm(self, gradient: tf.Tensor) -> PerExample:
        """The Linf norm."""
        return norms.linf_norm(gradient)

    def project_onto_hyperplane(self, x: Images, normal: tf.Tensor, value: PerExample) -> tf.Tensor:
        """Uses the room of the pixels with the largest normal; see `hyperplane_projection`."""
        return planes.project_onto_hyperplane(planes.l1_amount, self.bounds, x, normal, value)
