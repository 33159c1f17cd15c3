"""Minimum-norm attacks: they minimize the perturbation, and succeed if it lies within the radius.

Such an attack has the interface of all others. Its ball gives the norm that is minimized, and the
radius is applied once, at the end: an image whose closest adversarial example lies within the
radius comes back as that example, any other unchanged. So one search serves every radius, an image
that is misclassified already is its own closest adversarial example, and no result leaves the ball.

To get the distances themselves, pass a ball that holds the whole range of pixels, such as
`L2Ball(math.sqrt(pixels))` for images in [0, 1], and call `ball.distance(x_adv, x)`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting import objectives
from keras_robust.attacks.crafting.base import Attack
from keras_robust.core.config import replace
from keras_robust.core.numerics import broadcast_to_images, scalar, upcast_half
from keras_robust.core.types import (
    Ball,
    Forward,
    Images,
    Labels,
    Objective,
    PerExample,
    Radius,
)
from keras_robust.threat_models.clipping import allowed

if TYPE_CHECKING:
    from typing_extensions import Self


class BestSoFar(NamedTuple):
    """The closest adversarial examples so far, and their distances in the ball's norm."""

    x: Images  # the clean image where none has been found
    distance: PerExample  # the largest number of the dtype where none has been found


def initial_best(x: Images, misclassified: tf.Tensor) -> BestSoFar:
    """The clean images, at distance 0 where they are misclassified."""
    zeros = tf.zeros_like(misclassified, upcast_half(x).dtype)
    return BestSoFar(x, tf.where(misclassified, zeros, zeros.dtype.max))


def keep_closest(
    ball: Ball, best: BestSoFar, x: Images, candidate: Images, adversarial: tf.Tensor
) -> BestSoFar:
    """The best so far, replaced by the candidate where that is `adversarial` and closer to `x`."""
    distance = ball.distance(candidate, x)
    better = adversarial & (distance < best.distance)
    return BestSoFar(
        tf.where(broadcast_to_images(better, x), candidate, best.x),
        tf.where(better, distance, best.distance),
    )


def binary_search_boundary(
    is_adversarial: Callable[[Images], tf.Tensor],
    path: Callable[[PerExample], Images],
    x: Images,
    steps: int,
) -> Images:
    """Binary search for the decision boundary on a path from clean to adversarial images.

    Args:
        is_adversarial: `images -> [batch]`, bool.
        path: `fractions [batch] -> images`: at 0 the clean images, at 1 the adversarial ones. Where
            the latter are not adversarial, the search ends close to them.
        x: clean images.
        steps: the boundary is located up to `2 ** -steps` of the path.

    Returns:
        The last adversarial images, of the shape and dtype of `x`.
    """

    def body(index: tf.Tensor, low: PerExample, high: PerExample) -> tuple:
        middle = (low + high) / 2
        adversarial = is_adversarial(path(middle))
        low = tf.ensure_shape(tf.where(adversarial, low, middle), x.shape[:1])
        return index + 1, low, tf.ensure_shape(tf.where(adversarial, middle, high), x.shape[:1])

    zeros = tf.ensure_shape(tf.zeros(tf.shape(x)[:1], upcast_half(x).dtype), x.shape[:1])
    *_, fraction = tf.while_loop(
        lambda index, *_: index < steps,
        body,
        (tf.constant(0), zeros, tf.ones_like(zeros)),
        parallel_iterations=1,
    )
    return path(fraction)


def interpolate(ball: Ball, x: Images, x_adv: Images, fraction: PerExample) -> Images:
    """The point at a fraction of the segment from `x` to `x_adv`, inside the bounds."""
    fraction = broadcast_to_images(tf.cast(fraction, upcast_half(x).dtype), x)
    point = upcast_half(x) + fraction * (upcast_half(x_adv) - upcast_half(x))
    # x + (x_adv - x) may differ from x_adv
    return allowed(ball, tf.where(fraction < 1, point, upcast_half(x_adv)), x)


class MinimumNormAttack(Attack):
    """Base class of minimum-norm attacks: a new one implements `search` and has a field `ball`."""

    @abc.abstractmethod
    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> BestSoFar:
        """The closest adversarial example of each image, measured by `self.ball.distance`."""

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """The closest adversarial example where it lies within the radius, else the clean image."""
        best = self.search(forward, x, y, seed, targets)
        within = best.distance <= scalar(self.ball.radius, best.distance.dtype)
        return tf.where(broadcast_to_images(within, x), best.x, x)

    def at_radius(self, radius: Radius, step_size: float | None = None) -> Self:
        """The same search with another radius, on which no step depends."""
        del step_size
        return replace(self, ball=self.ball.replace(radius=radius))


class MarginSearch(MinimumNormAttack):
    """Base class of minimum-norm attacks that follow the margin's gradient, from the image.

    Subclasses have the fields `ball`, `steps` and perhaps `targeted`.
    """

    steps: int
    targeted: bool = False

    @property
    def gradient_steps(self) -> int:
        """The number of steps of one run."""
        return self.steps

    @property
    def is_random(self) -> bool:
        """It always starts at the image."""
        return False

    @property
    def takes_targets(self) -> bool:
        """Whether it is targeted."""
        return self.targeted

    @property
    def objective(self) -> Objective:
        """The margin, of the target if there is one."""
        return objectives.Targeted("margin") if self.targeted else objectives.LabelLoss("margin")
