"""One perturbation that fools a model on many images."""

from __future__ import annotations

import math
from typing import cast

import tensorflow as tf

from keras_robust.attacks.multi_task.tasks.problem import Problem, stacked_logits
from keras_robust.core.config import serializable
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, PerExample
from keras_robust.core.validation import check_integer
from keras_robust.threat_models.clipping import clipped
from keras_robust.threat_models.masks import mask_of


@serializable
class Universal:
    """One task for each image of a group, with one perturbation for the group.

    The perturbation stays inside the ball, and each image of the group inside the bounds. A group
    consists of consecutive images of the batch; shuffle first for random groups. Leave out
    misclassified images, as `keras_robust.evaluation.success_rates` does: a task is achieved if the
    prediction changes, the attack increases the loss of the label, and weights would go to images
    that cannot succeed.

    Args:
        group: the number of images that share a perturbation, a divisor of the batch size; None for
            all images of the batch.

    Raises:
        ValueError: a group below 1; when called, one that does not divide the batch.

    Example:
        >>> import keras_robust as kr
        >>> attack = kr.attacks.multi_task(kr.LinfBall(0.25), 1, tasks=Universal(group=2))
        >>> x = tf.constant([[0.5, 0.5], [0.6, 0.2]])
        >>> x_adv = attack(lambda x: {"logits": x}, x, tf.constant([0, 0]))
        >>> (x_adv - x).numpy().round(2).tolist()
        [[-0.25, 0.25], [-0.25, 0.25]]

    Reference: UNI of Bui et al. (2023), section 3.2.

    Differs: the paper draws groups at random; its code takes the images in order.
    """

    group: int | None = None
    success_criterion = "prediction"
    stochastic = False

    def __post_init__(self) -> None:
        if self.group is not None:
            check_integer("Universal: group", self.group, 1)
            # A NumPy integer would not be static in a graph.
            object.__setattr__(self, "group", int(self.group))

    def on(self, forward: Forward, ball: Ball, x: Images, y: Labels) -> Problem:
        """One task for each image of a group, one point for each group."""
        size = self.group or x.shape[0] or tf.maximum(tf.shape(x)[0], 1)
        x, y = _divisible(x, y, size)

        def grouped(values: tf.Tensor) -> tf.Tensor:  # [batch, ...] -> [tasks, groups, ...]
            rest = tf.shape(values)[1:]
            groups = tf.shape(values)[0] // size
            parts = tf.reshape(values, tf.concat([[groups, size], rest], axis=0))
            known = self.group or x.shape[0]
            parts.set_shape([None, known, *values.shape[1:]])
            return tf.transpose(parts, [1, 0, *range(2, parts.shape.rank)])

        def images(points: Images) -> Images:
            moved = upcast_half(x) + upcast_half(tf.repeat(points, size, axis=0))
            return clipped(ball.bounds, tf.reshape(moved, tf.shape(x)), x.dtype, x)

        originals = grouped(x)
        return Problem(
            ball=cast(Ball, _SharedBall(ball, originals)),
            center=tf.zeros_like(originals[0]),
            logits=lambda copies, _: stacked_logits(forward, originals + copies),
            clean=lambda: grouped(forward(x)["logits"]),
            labels=grouped(y),
            images=images,
            num_tasks=size,
        )


class _SharedBall:
    """The ball around 0 of a perturbation that several images share, inside all their bounds.

    What initializations and step rules use of a `Ball`.

    Args:
        ball: the ball of each image.
        images: `[tasks, points, ...]`; one point perturbs the images of all tasks.
    """

    def __init__(self, ball: Ball, images: Images):
        images = upcast_half(images)
        self.radius, self.mask = ball.radius, mask_of(ball)
        self.bounds = (-math.inf, math.inf)
        self._free = ball.replace(bounds=self.bounds)
        # 0 lies between the two, so that clipping keeps the perturbation inside the ball.
        self._low = ball.bounds[0] - tf.reduce_min(images, axis=0)
        self._high = ball.bounds[1] - tf.reduce_max(images, axis=0)

    def _clipped(self, delta: Images) -> Images:
        low, high = (tf.cast(bound, delta.dtype) for bound in (self._low, self._high))
        return tf.minimum(tf.maximum(delta, low), high)

    def sample(self, x: Images, seed: tf.Tensor) -> Images:
        return self._clipped(self._free.sample(x, seed))

    def sample_sphere(self, x: Images, seed: tf.Tensor) -> Images:
        return self._clipped(self._free.sample_sphere(x, seed))

    def project(self, x_adv: Images, x: Images) -> Images:
        return self._clipped(self._free.project(x_adv, x))

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        return self._free.steepest(gradient)

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        return self._free.distance(x_adv, x)


def _divisible(x: Images, y: Labels, size: int | tf.Tensor) -> tuple[Images, Labels]:
    """Images and labels; raises unless groups of this size divide them."""
    known = x.shape[0]
    if known is not None and isinstance(size, int):
        if known % size:
            raise ValueError(
                f"Universal: the batch has {known} images and groups have {size}; expected whole "
                "groups. Use `batch(..., drop_remainder=True)` with a multiple, or another group."
            )
        return x, y
    whole = tf.debugging.assert_equal(
        tf.shape(x)[0] % size,
        0,
        f"Universal: groups of {size} images do not divide the batch; expected whole groups.",
    )
    with tf.control_dependencies([] if whole is None else [whole]):
        return tf.identity(x), tf.identity(y)
