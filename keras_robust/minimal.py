"""Attacks that look for the nearest adversarial image; the ball then decides whether it counts.

Such an attack asks how far the nearest mistake is, not whether there is one within a radius. It has
the interface of all others: its `ball` says in which norm distance is measured, and the radius is
applied once, at the end. An image whose nearest mistake lies within the radius comes back as that
mistake; any other comes back as it was. So one search answers for every radius, an image that the
model gets wrong already is its own nearest mistake, and nothing leaves the ball.

To see the distances themselves, take a ball that holds the whole range of pixels, such as
`L2Ball(math.sqrt(pixels))` for images in [0, 1], and ask `ball.distance(x_adv, x)`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.attack import Attack
from keras_robust.balls import clipped
from keras_robust.config import replace
from keras_robust.types import Ball, Forward, Images, Labels, PerExample, per_pixel, scalar, wide


class Nearest(NamedTuple):
    """The nearest adversarial images so far.

    Attributes:
        x: `[batch, ...]`; the clean image where none has been found.
        distance: from the clean image in the ball's norm, `[batch]`; infinite where there is none.
    """

    x: Images
    distance: PerExample


def nothing_found(x: Images, mistaken: tf.Tensor) -> Nearest:
    """Before the search: the clean image, at distance 0 where the model is mistaken about it.

    Args:
        x: clean images.
        mistaken: where their prediction is wrong, `[batch]`, bool.
    """
    zeros = tf.zeros_like(mistaken, wide(x).dtype)
    return Nearest(x, tf.where(mistaken, zeros, zeros.dtype.max))


def nearer(
    ball: Ball, best: Nearest, x: Images, candidate: Images, adversarial: tf.Tensor
) -> Nearest:
    """The nearer of the best so far and a candidate, for each image.

    Args:
        ball: measures the distance.
        best: the nearest so far.
        x: clean images.
        candidate: images of the shape and dtype of `x`, inside the bounds.
        adversarial: where the candidate is one, `[batch]`, bool.
    """
    distance = ball.distance(candidate, x)
    better = adversarial & (distance < best.distance)
    return Nearest(
        tf.where(per_pixel(better, x), candidate, best.x),
        tf.where(better, distance, best.distance),
    )


def onto_boundary(
    mistaken: Callable[[Images], tf.Tensor],
    way: Callable[[PerExample], Images],
    x: Images,
    halvings: int,
) -> Images:
    """Draws mistakes towards the clean images, as long as they are mistakes, by halving the way.

    Args:
        mistaken: `images -> [batch]`, bool.
        way: shares `[batch]` of the way -> images; at 0 the clean ones, at 1 mistakes. Where one is
            none, the bisection ends close to it.
        x: clean images.
        halvings: how often; what is left of the way is unknown up to `2 ** -halvings` of it.

    Returns:
        The nearest mistakes found on the ways, of the shape and dtype of `x`.
    """

    def body(index: tf.Tensor, right: PerExample, wrong: PerExample) -> tuple:
        middle = (right + wrong) / 2
        fooled = mistaken(way(middle))
        right = tf.ensure_shape(tf.where(fooled, right, middle), x.shape[:1])
        return index + 1, right, tf.ensure_shape(tf.where(fooled, middle, wrong), x.shape[:1])

    zeros = tf.ensure_shape(tf.zeros(tf.shape(x)[:1], wide(x).dtype), x.shape[:1])
    *_, share = tf.while_loop(
        lambda index, *_: index < halvings,
        body,
        (tf.constant(0), zeros, tf.ones_like(zeros)),
        parallel_iterations=1,
    )
    return way(share)


def straight(ball: Ball, x: Images, x_adv: Images, share: PerExample) -> Images:
    """The point at a share of the straight way from clean images to others, inside the bounds."""
    share = per_pixel(tf.cast(share, wide(x).dtype), x)
    here = wide(x) + share * (wide(x_adv) - wide(x))
    # x + (x_adv - x) need not be x_adv
    return clipped(ball.bounds, tf.where(share < 1, here, wide(x_adv)), x.dtype)


class Minimal(Attack):
    """An attack whose search minds no radius: a new one implements `search`, and has a `ball`."""

    @abc.abstractmethod
    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Nearest:
        """The nearest adversarial image of each, measured by `self.ball.distance`."""

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """What was found, where it lies within the radius; else the clean image."""
        found = self.search(forward, x, y, seed, targets)
        within = found.distance <= scalar(self.ball.radius, found.distance.dtype)
        return tf.where(per_pixel(within, x), found.x, x)

    def at_radius(self, radius: Any, step_size: Any = None) -> Minimal:
        """The same search judged by another radius, which no step of it depends on."""
        del step_size
        return replace(self, ball=replace(self.ball, radius=radius))  # type: ignore[type-var]
