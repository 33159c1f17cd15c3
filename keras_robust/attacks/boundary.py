"""The boundary attack: a random walk along the boundary of a decision, towards the clean image."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.attacks.crafting import decision_boundary, objectives
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

# How fast the logarithm of a step follows its success, and the share of proposals that is to
# succeed: half of those around the clean image, a quarter of those towards it as well.
_RATE, _AROUND, _TOWARDS = 0.1, 0.5, 0.25
_FIRST, _LEAST, _MOST = 0.01, 1e-6, 1.0


@serializable
class Boundary(MinimumNormAttack):
    """Steps at random around the clean image, then a little towards it, while it stays mistaken.

    Args:
        ball: the bounds, and the norm and radius by which a mistake counts. The walk itself is
            Euclidean, so it is at its best in an `L2Ball`.
        steps: how many steps, >= 0; each asks for two predictions.
        start: an attack to begin from, in a ball as large as it takes; None for uniform noise.

    Raises:
        TypeError: a start that is no attack.
        ValueError: a negative number of steps; or, when called, targets.

    Example:
        >>> from keras_robust import L2Ball
        >>> attack = Boundary(L2Ball(0.5), steps=100).compiled(lambda x: {"logits": x})
        >>> nearest = attack(tf.constant([[0.7, 0.3]]), tf.constant([0]))
        >>> nearest.numpy().round(1).tolist()  # the logits are tied at [0.5, 0.5]
        [[0.5, 0.5]]

    Reference: Brendel et al., "Decision-Based Adversarial Attacks" (2018), Algorithm 1, Figure 2.

    Differs: both lengths follow the success of every proposal, where the paper counts successes
    over a window; none of them stops before the last step.
    """

    ball: Any
    steps: int = 1000
    start: Any = None

    def __post_init__(self) -> None:
        check_integer("Boundary: steps", self.steps)
        decision_boundary.check_start("Boundary", self.start)

    @property
    def name(self) -> str:  # type: ignore[override]
        """What reports call it."""
        return f"Boundary-{self.steps}"

    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> BestSoFar:
        """The nearest mistake of the walk."""
        objectives.refuse_targets("Boundary", targets)
        seeds = tf.random.split(seed, 2)
        decide = decision_boundary.decision(forward, y)
        begun = decision_boundary.begin(self.ball, self.start, forward, x, y, seeds[0])
        best = keep_closest(self.ball, initial_best(x, decide(x)), x, begun.x, begun.found)

        def body(index: tf.Tensor, x_adv: Images, lengths: tuple, best: BestSoFar) -> tuple:
            own = tf.random.experimental.stateless_fold_in(seeds[1], index)
            around, nearby = _proposals(self.ball, x, x_adv, lengths, own)
            stays, comes = decide(around) & begun.found, decide(nearby) & begun.found
            closer = decision_boundary.euclidean(
                upcast_half(nearby) - upcast_half(x)
            ) < decision_boundary.euclidean(upcast_half(x_adv) - upcast_half(x))
            lengths = (
                _adapted(lengths[0], stays, _AROUND),
                _adapted(lengths[1], stays & comes, _TOWARDS),
            )
            best = keep_closest(self.ball, best, x, nearby, comes)
            x_adv = tf.where(broadcast_to_images(comes & closer, x), nearby, x_adv)
            return index + 1, tf.ensure_shape(x_adv, x.shape), lengths, best

        first = tf.ones_like(begun.found, upcast_half(x).dtype) * _FIRST
        *_, best = tf.while_loop(
            lambda index, *_: index < self.steps,
            body,
            (tf.constant(0), begun.x, (first, first), best),
            parallel_iterations=1,
        )
        return best


def _proposals(
    ball: Ball, x: Images, x_adv: Images, lengths: tuple[PerExample, PerExample], seed: tf.Tensor
) -> tuple[Images, Images]:
    """A random point as far from the clean image as the present one, and one that is nearer."""
    clean, here = upcast_half(x), upcast_half(x_adv)
    around, towards = (broadcast_to_images(length, x) for length in lengths)
    source = here - clean
    distance = broadcast_to_images(decision_boundary.euclidean(source), x)
    outward = tf.math.divide_no_nan(source, distance)
    noise = tf.random.stateless_normal(tf.shape(x), seed, dtype=clean.dtype)
    noise -= outward * broadcast_to_images(_inner(noise, outward), x)
    sideways = tf.math.divide_no_nan(
        noise, broadcast_to_images(decision_boundary.euclidean(noise), x)
    )
    # A step along the tangent, then back onto the sphere.
    onto = distance * (outward + around * sideways) / tf.sqrt(1 + around**2)
    sphere = clipped(ball.bounds, clean + onto, x.dtype)
    back = upcast_half(sphere) - clean
    length = broadcast_to_images(decision_boundary.euclidean(back), x)
    # What the bounds cut off is not taken for progress.
    wanted = tf.minimum(length, (1 - towards) * distance)
    nearby = clean + tf.math.divide_no_nan(back, length) * wanted
    return sphere, clipped(ball.bounds, nearby, x.dtype)


def _adapted(length: PerExample, success: tf.Tensor, wanted: float) -> PerExample:
    """A length that grows where more proposals succeed than wanted, and else shrinks."""
    change = tf.exp(_RATE * (tf.cast(success, length.dtype) - wanted))
    return tf.clip_by_value(length * change, _LEAST, _MOST)


def _inner(a: tf.Tensor, b: tf.Tensor) -> PerExample:
    return tf.reduce_sum(a * b, axis=list(range(1, a.shape.rank)))


def boundary(ball: Ball, steps: int = 1000, *, start: Any = None) -> Boundary:
    """The boundary attack: the nearest mistake of a random walk that asks for predictions alone.

    Args:
        ball: the bounds, and the norm and radius by which a mistake counts; at its best in an
            `L2Ball`. Images without one come back as they were.
        steps: how many steps, of two predictions each.
        start: an attack to begin from, in a ball as large as it takes; None for uniform noise.

    Returns:
        The attack.

    Raises:
        TypeError, ValueError: a start that is no attack, or negative steps.

    Example:
        >>> from keras_robust import L2Ball
        >>> boundary(L2Ball(0.5)).name
        'Boundary-1000'

    Reference: Brendel et al., "Decision-Based Adversarial Attacks" (2018), Algorithm 1.
    """
    return Boundary(ball, steps, start)
