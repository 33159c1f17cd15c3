"""HopSkipJump: gradients of a decision's boundary, estimated from predictions alone."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from keras_robust.attacks.crafting import decision_boundary, objectives
from keras_robust.attacks.crafting.decision_boundary import Decide, euclidean
from keras_robust.attacks.crafting.minimum_norm import (
    BestSoFar,
    MinimumNormAttack,
    initial_best,
    keep_closest,
)
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, PerExample
from keras_robust.core.validation import check_integer
from keras_robust.threat_models.balls import clipped

_HALVINGS = 20  # of a step that leads back into the right class


@serializable
class HopSkipJump(MinimumNormAttack):
    """To the boundary by halving, along its normal by what random directions say, and again.

    Args:
        ball: the norm, the bounds, and the radius within which a mistake counts. The way to the
            boundary and the step along the normal are those of the norm in an `LinfBall`, Euclidean
            elsewhere.
        steps: how many steps, >= 0.
        samples: how many random directions the first step asks about, >= 2; step `t` asks about
            `samples * sqrt(t)`.
        start: an attack to begin from, in a ball as large as it takes; None for uniform noise.

    Raises:
        TypeError: a start that is no attack.
        ValueError: a number that cannot be; or, when called, targets.

    Example:
        >>> from keras_robust import L2Ball
        >>> attack = HopSkipJump(L2Ball(0.5), steps=10).compiled(lambda x: {"logits": x})
        >>> nearest = attack(tf.constant([[0.7, 0.3]]), tf.constant([0]))
        >>> nearest.numpy().round(1).tolist()  # the logits are tied at [0.5, 0.5]
        [[0.5, 0.5]]

    Reference: Chen et al., "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack" (2020),
    Algorithm 2.
    """

    ball: Any
    steps: int = 30
    samples: int = 100
    start: Any = None

    def __post_init__(self) -> None:
        check_integer("HopSkipJump: steps", self.steps)
        check_integer("HopSkipJump: samples", self.samples, 2)
        decision_boundary.check_start("HopSkipJump", self.start)

    @property
    def name(self) -> str:  # type: ignore[override]
        """What reports call it."""
        return f"HopSkipJump-{self.steps}"

    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> BestSoFar:
        """The nearest mistake of all steps."""
        objectives.refuse_targets("HopSkipJump", targets)
        seeds = tf.random.split(seed, 2)
        decide = decision_boundary.decision(forward, y)
        begun = decision_boundary.begin(self.ball, self.start, forward, x, y, seeds[0])
        best = keep_closest(self.ball, initial_best(x, decide(x)), x, begun.x, begun.found)
        pixels = decision_boundary.pixels_of(x)
        # theta of the paper: what the halving leaves unknown, as a share of the distance.
        power = 2.0 if self.ball.p == math.inf else 1.5
        halvings = max(10, math.ceil(power * math.log2(pixels)))

        def body(index: tf.Tensor, x_adv: Images, best: BestSoFar) -> tuple:
            own = tf.random.experimental.stateless_fold_in(seeds[1], index)
            step = tf.cast(index + 1, upcast_half(x).dtype)
            reach = self._reach(x, x_adv, index, pixels)
            count = tf.cast(tf.cast(self.samples, step.dtype) * tf.sqrt(step), tf.int32)
            normal = _normal(self.ball, decide, x_adv, reach, count, own)
            x_adv = self._jump(decide, x, x_adv, normal, step)
            x_adv = decision_boundary.binary_search_boundary(self.ball, decide, x, x_adv, halvings)
            best = keep_closest(self.ball, best, x, x_adv, begun.found)
            return index + 1, tf.ensure_shape(x_adv, x.shape), best

        *_, best = tf.while_loop(
            lambda index, *_: index < self.steps,
            body,
            (tf.constant(0), begun.x, best),
            parallel_iterations=1,
        )
        return best

    def _reach(self, x: Images, x_adv: Images, index: tf.Tensor, pixels: int) -> PerExample:
        """How far from the boundary to ask: `sqrt(d) theta` of the distance, at first a tenth of
        the range, as the distance is not known yet.
        """
        low, high = self.ball.bounds
        distance = self._distance(x, x_adv)
        return tf.where(index == 0, 0.1 * (high - low) * tf.ones_like(distance), distance / pixels)

    def _distance(self, x: Images, x_adv: Images) -> PerExample:
        """From the clean image, in the norm in which the attack steps."""
        if self.ball.p == math.inf:
            return self.ball.distance(x_adv, x)
        return euclidean(upcast_half(x_adv) - upcast_half(x))

    def _jump(
        self, decide: Decide, x: Images, x_adv: Images, normal: tf.Tensor, step: tf.Tensor
    ) -> Images:
        """A step of `distance / sqrt(t)`, halved until the image stays mistaken."""
        length = self._distance(x, x_adv) / tf.sqrt(step)

        def body(index: tf.Tensor, length: PerExample, x_next: Images, done: tf.Tensor) -> tuple:
            there = upcast_half(x_adv) + broadcast_to_images(length, x) * normal
            there = clipped(self.ball.bounds, there, x.dtype)
            fooled = decide(there) & ~done
            x_next = tf.ensure_shape(
                tf.where(broadcast_to_images(fooled, x), there, x_next), x.shape
            )
            return index + 1, length / 2, x_next, tf.ensure_shape(done | fooled, done.shape)

        none = tf.zeros_like(length, tf.bool)
        *_, x_next, _ = tf.while_loop(
            lambda index, _, __, done: (index < _HALVINGS) & ~tf.reduce_all(done),
            body,
            (tf.constant(0), length, x_adv, none),
            parallel_iterations=1,
        )
        return x_next


def _normal(
    ball: Ball, decide: Decide, x_adv: Images, reach: PerExample, count: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """The direction in which the mistake grows: Eq. 16 of the paper, of length 1 in the norm.

    `sum_b (phi_b - mean phi) u_b` over random directions `u_b`, with `phi_b` 1 where the point in
    that direction is mistaken, else -1; where all are the same, `phi sum_b u_b`.
    """
    here = upcast_half(x_adv)
    far = broadcast_to_images(reach, x_adv)

    def body(index: tf.Tensor, said: PerExample, plain: tf.Tensor, weighed: tf.Tensor) -> tuple:
        own = tf.random.experimental.stateless_fold_in(seed, index)
        noise = tf.random.stateless_normal(tf.shape(x_adv), own, dtype=here.dtype)
        noise /= broadcast_to_images(euclidean(noise), x_adv)
        there = clipped(ball.bounds, here + far * noise, x_adv.dtype)
        phi = tf.where(decide(there), tf.ones_like(reach), -tf.ones_like(reach))
        # What the bounds cut off was not asked about.
        direction = tf.math.divide_no_nan(upcast_half(there) - here, far)
        return (
            index + 1,
            said + phi,
            plain + direction,
            weighed + broadcast_to_images(phi, x_adv) * direction,
        )

    zeros = tf.zeros_like(here)
    _, said, plain, weighed = tf.while_loop(
        lambda index, *_: index < count,
        body,
        (tf.constant(0), tf.zeros_like(reach), zeros, zeros),
        parallel_iterations=1,
    )
    mean = broadcast_to_images(said / tf.cast(count, said.dtype), x_adv)
    normal = tf.where(tf.abs(mean) < 1, weighed - mean * plain, weighed)
    if ball.p == math.inf:
        return tf.sign(normal)
    return tf.math.divide_no_nan(normal, broadcast_to_images(euclidean(normal), x_adv))


def hop_skip_jump(
    ball: Ball, steps: int = 30, *, samples: int = 100, start: Any = None
) -> HopSkipJump:
    """HopSkipJump: the nearest mistake along estimated normals, asking for predictions alone.

    Args:
        ball: the norm, the bounds, and the radius within which a mistake counts; Linf and L2 are
            the paper's. Images without one come back as they were.
        steps: how many steps.
        samples: how many random directions the first step asks about; later ones ask about more.
        start: an attack to begin from, in a ball as large as it takes; None for uniform noise.

    Returns:
        The attack.

    Raises:
        TypeError, ValueError: a start that is no attack, or numbers that cannot be.

    Example:
        >>> from keras_robust import LinfBall
        >>> hop_skip_jump(LinfBall(8 / 255), steps=10).name
        'HopSkipJump-10'

    Reference: Chen et al., "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack" (2020),
    Algorithm 2.
    """
    return HopSkipJump(ball, steps, samples, start)
