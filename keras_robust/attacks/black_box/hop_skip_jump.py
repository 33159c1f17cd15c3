"""HopSkipJump: a decision-based attack that estimates the normal of the decision boundary."""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from keras_robust.attacks.crafting import decision_boundary, objectives
from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.decision_boundary import IsAdversarial, euclidean
from keras_robust.attacks.crafting.minimum_norm import (
    BestSoFar,
    MinimumNormAttack,
    initial_best,
    keep_closest,
)
from keras_robust.core import random
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, pixel_range, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, PerExample
from keras_robust.core.validation import check_ball, check_integer
from keras_robust.threat_models.clipping import allowed
from keras_robust.threat_models.masks import pixels_of, without_masked
from keras_robust.threat_models.sparse_ball import refuse_sparse

_STEP_HALVINGS = 20  # of a step that ends in a correctly classified point


@serializable
class HopSkipJump(MinimumNormAttack):
    """HopSkipJump: decision-based, minimum-norm, along estimated normals of the boundary.

    Each step estimates the normal from the predictions in random directions, moves along it, and
    returns to the decision boundary by binary search.

    Args:
        ball: the threat model. Distances and the radius are in its norm; the steps and the search
            are those of the paper for Linf in an `LinfBall`, and for L2 elsewhere. Images without
            an adversarial example within the radius stay unchanged.
        steps: the number of steps, >= 0.
        n_directions: random directions of the first step, >= 2, one query each; step `t` takes
            `n_directions * sqrt(t)`.
        start: an attack that provides the starting point; choose its radius large enough to
            succeed. None: uniform noise.

    Raises:
        TypeError: `ball` is not a threat model, or `start` not an attack.
        ValueError: an argument out of range, or a `start` that returns one batch per member; when
            called, targets.

    Example:
        >>> from keras_robust import L2Ball
        >>> attack = hop_skip_jump(L2Ball(0.5), steps=10).compiled(lambda x: {"logits": x})
        >>> x_adv = attack(tf.constant([[0.7, 0.3]]), tf.constant([0]))
        >>> x_adv.numpy().round(1).tolist()  # the logits are tied at [0.5, 0.5]
        [[0.5, 0.5]]

    Reference: Chen et al., "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack" (2020),
    Algorithm 2.
    """

    ball: Ball
    steps: int = 30
    _: dataclasses.KW_ONLY
    n_directions: int = 100
    start: Attack | None = None

    def __post_init__(self) -> None:
        check_ball(self.ball)
        refuse_sparse("HopSkipJump", self.ball)
        check_integer("HopSkipJump: steps", self.steps)
        check_integer("HopSkipJump: n_directions", self.n_directions, 2)
        decision_boundary.check_start("HopSkipJump", self.start, self.ball)

    @property
    def name(self) -> str:  # type: ignore[override]
        """What reports call it."""
        return f"HopSkipJump-{self.steps}"

    @property
    def _steps_in_linf(self) -> bool:
        return self.ball.p == math.inf

    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> BestSoFar:
        """The closest adversarial example of all steps."""
        objectives.refuse_targets("HopSkipJump", targets)
        seeds = random.split(seed, 2)
        is_adversarial = decision_boundary.label_query(forward, y)
        begin = decision_boundary.starting_point(self.ball, self.start, forward, x, y, seeds[0])
        best = initial_best(x, is_adversarial(x))
        best = keep_closest(self.ball, best, x, begin.x, begin.found)
        pixels = pixels_of(self.ball, x)
        # theta of the paper: the tolerance of the search, as a fraction of the distance.
        power = 2.0 if self._steps_in_linf else 1.5
        search_steps = max(10, math.ceil(power * math.log2(pixels)))

        def body(index: tf.Tensor, x_adv: Images, best: BestSoFar) -> tuple:
            step_seed = random.fold_in(seeds[1], index)
            step = tf.cast(index + 1, upcast_half(x).dtype)
            delta = self._delta(x, x_adv, index, pixels)
            count = tf.cast(tf.cast(self.n_directions, step.dtype) * tf.sqrt(step), tf.int32)
            normal = self._normal(is_adversarial, x_adv, delta, count, step_seed)
            x_adv = self._jump(is_adversarial, x, x_adv, normal, step)
            x_adv = decision_boundary.binary_search_boundary(
                self.ball, is_adversarial, x, x_adv, search_steps
            )
            best = keep_closest(self.ball, best, x, x_adv, begin.found)
            return index + 1, tf.ensure_shape(x_adv, x.shape), best

        *_, best = tf.while_loop(
            lambda index, *_: index < self.steps,
            body,
            (tf.constant(0), begin.x, best),
            parallel_iterations=1,
        )
        return best

    def _delta(self, x: Images, x_adv: Images, index: tf.Tensor, pixels: int) -> PerExample:
        """The distance of queries from the boundary: `sqrt(d) theta` of that to the clean image.

        A tenth of the range in the first step, where the distance is unknown.
        """
        first = 0.1 * pixel_range(self.ball.bounds)
        distance = self._distance(x, x_adv)
        return tf.where(index == 0, first * tf.ones_like(distance), distance / pixels)

    def _distance(self, x: Images, x_adv: Images) -> PerExample:
        """From the clean image, in the norm of the steps."""
        if self._steps_in_linf:
            return self.ball.distance(x_adv, x)
        return euclidean(upcast_half(x_adv) - upcast_half(x))

    def _jump(
        self,
        is_adversarial: IsAdversarial,
        x: Images,
        x_adv: Images,
        normal: tf.Tensor,
        step: tf.Tensor,
    ) -> Images:
        """A step of `distance / sqrt(t)`, halved until the image stays misclassified."""
        length = self._distance(x, x_adv) / tf.sqrt(step)

        def body(index: tf.Tensor, length: PerExample, x_next: Images, done: tf.Tensor) -> tuple:
            candidate = upcast_half(x_adv) + broadcast_to_images(length, x) * normal
            candidate = allowed(self.ball, candidate, x)
            success = is_adversarial(candidate) & ~done
            x_next = tf.ensure_shape(
                tf.where(broadcast_to_images(success, x), candidate, x_next), x.shape
            )
            return index + 1, length / 2, x_next, tf.ensure_shape(done | success, done.shape)

        none = tf.zeros_like(length, tf.bool)
        *_, x_next, _ = tf.while_loop(
            lambda index, _, __, done: (index < _STEP_HALVINGS) & ~tf.reduce_all(done),
            body,
            (tf.constant(0), length, x_adv, none),
            parallel_iterations=1,
        )
        return x_next

    def _normal(
        self,
        is_adversarial: IsAdversarial,
        x_adv: Images,
        delta: PerExample,
        count: tf.Tensor,
        seed: tf.Tensor,
    ) -> tf.Tensor:
        """The estimated normal, Eq. 16 of the paper, of length 1 in the norm of the steps.

        `sum_b (phi_b - mean phi) u_b` over random directions `u_b`, with `phi_b` 1 where the point
        in that direction is misclassified, else -1; if all are equal, `phi sum_b u_b`.
        """
        here = upcast_half(x_adv)
        length = broadcast_to_images(delta, x_adv)

        def body(
            index: tf.Tensor, total: PerExample, plain: tf.Tensor, weighted: tf.Tensor
        ) -> tuple:
            direction_seed = random.fold_in(seed, index)
            noise = random.normal(tf.shape(x_adv), direction_seed, dtype=here.dtype)
            noise = without_masked(self.ball, noise)
            noise /= broadcast_to_images(euclidean(noise), x_adv)
            point = allowed(self.ball, here + length * noise, x_adv)
            phi = tf.where(is_adversarial(point), tf.ones_like(delta), -tf.ones_like(delta))
            # The direction that was queried, after clipping.
            direction = tf.math.divide_no_nan(upcast_half(point) - here, length)
            weighted += broadcast_to_images(phi, x_adv) * direction
            return index + 1, total + phi, plain + direction, weighted

        zeros = tf.zeros_like(here)
        _, total, plain, weighted = tf.while_loop(
            lambda index, *_: index < count,
            body,
            (tf.constant(0), tf.zeros_like(delta), zeros, zeros),
            parallel_iterations=1,
        )
        mean = broadcast_to_images(total / tf.cast(count, total.dtype), x_adv)
        normal = tf.where(tf.abs(mean) < 1, weighted - mean * plain, weighted)
        if self._steps_in_linf:
            return self.ball.steepest(normal)
        return tf.math.divide_no_nan(normal, broadcast_to_images(euclidean(normal), x_adv))


hop_skip_jump = HopSkipJump
