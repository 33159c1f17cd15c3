"""A union of balls: for each image the attacker may stay in any one of several norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from keras_robust.core import random
from keras_robust.core.config import replace, serializable
from keras_robust.core.numerics import broadcast_to_images, pixel_range, scalar, upcast_half
from keras_robust.core.types import Ball, Images, PerExample, Radius
from keras_robust.core.validation import check_ball, check_number, is_number
from keras_robust.threat_models.masks import Mask, mask_of


@serializable
class UnionBall:
    """A perturbation is allowed if at least one of several balls allows it.

    Lengths are fractions of the radii: the distance is the smallest of `distance / radius` over the
    balls, and the radius, 1 by default, multiplies all radii. A step of 0.1 is a tenth of the
    radius in each norm.

    As a ball it is one norm among others for every attack; `keras_robust.attacks.union_pgd` and
    `keras_robust.attacks.in_each_ball` attack all norms.

    Args:
        balls: at least two balls with the same bounds and the same mask, each with a number as
            radius.
        radius: factor of all radii.

    Raises:
        TypeError: not a ball.
        ValueError: fewer than two balls, a radius of 0 or that is not a number, different bounds or
            masks, a union inside of a union.

    Example:
        >>> from keras_robust import L2Ball, LinfBall, UnionBall
        >>> ball = UnionBall((LinfBall(0.25), L2Ball(1.0)))
        >>> x = tf.zeros([1, 100])
        >>> one_pixel = tf.one_hot([7], 100)  # 4 radii in Linf, 1 in L2
        >>> float(ball.distance(one_pixel, x)[0]), float(ball.distance(x + 0.25, x)[0])
        (1.0, 1.0)

    Reference: Tramer and Boneh, "Adversarial Training and Robustness for Multiple Perturbations"
    (2019); Maini et al., "Adversarial Robustness Against the Union of Multiple Perturbation Models"
    (2020).
    """

    p: ClassVar[float | None] = None  # not an Lp norm
    balls: tuple[Ball, ...]
    radius: Radius = 1.0

    def __post_init__(self) -> None:
        balls = tuple(self.balls) if isinstance(self.balls, Sequence) else (self.balls,)
        object.__setattr__(self, "balls", balls)
        for ball in balls:
            check_number("UnionBall: radius of a ball", check_ball(ball), above=0)
            if isinstance(ball, UnionBall):
                raise ValueError(f"UnionBall: {ball} is a union itself; expected its balls.")
        if len(balls) < 2:
            raise ValueError(
                f"UnionBall: balls is {balls!r}; expected at least two, such as "
                "`(LinfBall(8 / 255), L2Ball(0.5))`."
            )
        for name, value in (("bounds", lambda ball: ball.bounds), ("mask", mask_of)):
            found = [value(ball) for ball in balls]
            if any(other != found[0] for other in found):
                raise ValueError(
                    f"UnionBall: the balls have different {name}, {found}; expected the same."
                )
        if is_number(self.radius):
            check_number("UnionBall: radius", self.radius, hint=", a factor of the balls' radii")

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of a pixel."""
        return self.balls[0].bounds

    @property
    def mask(self) -> Mask | None:
        """The mask of all balls."""
        return mask_of(self.balls[0])

    @property
    def scaled(self) -> tuple[Ball, ...]:
        """The balls, their radii times the radius of the union."""
        return tuple(ball.replace(radius=self._scaled(ball)) for ball in self.balls)

    def _scaled(self, ball: Ball) -> Radius:
        radius = self.radius * ball.radius
        if is_number(radius) and ball.p == math.inf:
            # No change of a pixel is larger, and a Linf ball refuses one that is.
            return min(float(radius), pixel_range(self.bounds))
        return radius

    def replace(
        self, *, radius: Radius | None = None, bounds: tuple[float, float] | None = None
    ) -> UnionBall:
        """The same union with another factor of the radii or other bounds."""
        changes: dict[str, Any] = {} if radius is None else {"radius": radius}
        if bounds is not None:
            changes["balls"] = tuple(ball.replace(bounds=bounds) for ball in self.balls)
        return replace(self, **changes)

    def sample(self, x: Images, seed: tf.Tensor) -> Images:
        """A random point of a ball that is drawn for each image."""
        return self._drawn(x, seed, lambda ball, own: ball.sample(x, own))

    def sample_sphere(self, x: Images, seed: tf.Tensor) -> Images:
        """A random point at the radius of a ball that is drawn for each image."""
        return self._drawn(x, seed, lambda ball, own: ball.sample_sphere(x, own))

    def _drawn(
        self, x: Images, seed: tf.Tensor, point: Callable[[Ball, tf.Tensor], Images]
    ) -> Images:
        index, seeds = draw(len(self.balls), x, seed)
        points = [point(ball, own) for ball, own in zip(self.scaled, seeds, strict=True)]
        return chosen(index, points)

    def project(self, x_adv: Images, x: Images) -> Images:
        """The closest of the projections onto the balls, by the Euclidean distance."""
        moved = [ball.project(x_adv, x) for ball in self.scaled]
        far = [_square(upcast_half(point) - upcast_half(x_adv)) for point in moved]
        return chosen(tf.argmin(tf.stack(far), axis=0), moved)

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """The steepest direction of the ball that gains most, to first order."""
        directions = [
            scalar(ball.radius, gradient.dtype) * ball.steepest(gradient) for ball in self.balls
        ]
        gains = [_square(direction, gradient) for direction in directions]
        return chosen(tf.argmax(tf.stack(gains), axis=0), directions)

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The smallest of `distance / radius`, over the balls."""
        return tf.reduce_min(self.distances(x_adv, x), axis=0)

    def distances(self, x_adv: Images, x: Images) -> tf.Tensor:
        """`distance / radius` in each ball, `[balls, batch]`."""
        found = [(ball.distance(x_adv, x), ball.radius) for ball in self.balls]
        return tf.stack([distance / scalar(radius, distance.dtype) for distance, radius in found])

    def dual_norm(self, gradient: tf.Tensor) -> PerExample:
        """The largest of `radius * dual norm`, over the balls."""
        found = [(ball.dual_norm(gradient), ball.radius) for ball in self.balls]
        return tf.reduce_max([scalar(radius, norm.dtype) * norm for norm, radius in found], axis=0)

    def project_onto_hyperplane(self, x: Images, normal: tf.Tensor, value: PerExample) -> tf.Tensor:
        """The step of the ball in which it is shortest."""
        steps = [ball.project_onto_hyperplane(x, normal, value) for ball in self.balls]
        lengths = [self.distance(upcast_half(x) + step, x) for step in steps]
        return chosen(tf.argmin(tf.stack(lengths), axis=0), steps)


def draw(count: int, x: Images, seed: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The number of a ball for each image of `x`, `[batch]`, and a seed for each of the balls."""
    first, *seeds = tf.unstack(random.split(seed, count + 1))
    return random.integers(tf.shape(x)[:1], first, count), seeds


def chosen(index: tf.Tensor, candidates: Sequence[Images]) -> Images:
    """One of several batches for each image.

    Args:
        index: `[batch]`, the number of a candidate.
        candidates: batches of one shape.

    Example:
        >>> chosen(tf.constant([1, 0]), [tf.zeros([2, 1]), tf.ones([2, 1])]).numpy().tolist()
        [[1.0], [0.0]]
    """
    found = candidates[0]
    for number, candidate in enumerate(candidates[1:], start=1):
        found = tf.where(broadcast_to_images(tf.equal(index, number), found), candidate, found)
    return found


def _square(first: tf.Tensor, second: tf.Tensor | None = None) -> PerExample:
    """The scalar product of each pair of images, or of each image with itself."""
    product = first * (first if second is None else second)
    return tf.reduce_sum(product, axis=list(range(1, product.shape.rank)))
