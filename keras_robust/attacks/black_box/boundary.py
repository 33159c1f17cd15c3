"""The boundary attack: a random walk along the decision boundary, toward the clean image."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from keras_robust.attacks.crafting import objectives
from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.decision_boundary import (
    check_start,
    euclidean,
    label_query,
    starting_point,
)
from keras_robust.attacks.crafting.minimum_norm import (
    BestSoFar,
    MinimumNormAttack,
    initial_best,
    keep_closest,
)
from keras_robust.core import random
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, PerExample
from keras_robust.core.validation import check_ball, check_integer
from keras_robust.threat_models.clipping import allowed
from keras_robust.threat_models.masks import without_masked
from keras_robust.threat_models.sparse_ball import refuse_sparse

# How fast the logarithm of a step length follows the success of proposals, and the success rates
# aimed at: half of the spherical steps, a quarter of those that also move toward the clean image.
_ADAPTATION, _SPHERICAL_RATE, _SOURCE_RATE = 0.1, 0.5, 0.25
_INITIAL_STEP, _SMALLEST_STEP, _LARGEST_STEP = 0.01, 1e-6, 1.0


@serializable
class Boundary(MinimumNormAttack):
    """The boundary attack: decision-based, minimum-norm, by a random walk.

    Each step proposes a random point on the sphere around the clean image, then one closer to the
    clean image, and moves there if that is misclassified.

    Args:
        ball: the threat model. Distances and the radius are in its norm; the walk is Euclidean, so
            the attack is strongest in an `L2Ball`. Images without an adversarial example within the
            radius stay unchanged.
        steps: the number of steps, >= 0; each queries the model twice.
        start: an attack that provides the starting point; choose its radius large enough to
            succeed. None: uniform noise.

    Raises:
        TypeError: `ball` is not a threat model, or `start` not an attack.
        ValueError: negative steps, or a `start` that returns one batch per member; when called,
            targets.

    Example:
        >>> from keras_robust import L2Ball
        >>> attack = boundary(L2Ball(0.5), steps=100).compiled(lambda x: {"logits": x})
        >>> x_adv = attack(tf.constant([[0.7, 0.3]]), tf.constant([0]))
        >>> x_adv.numpy().round(1).tolist()  # the logits are tied at [0.5, 0.5]
        [[0.5, 0.5]]

    Reference: Brendel et al., "Decision-Based Adversarial Attacks" (2018), Algorithm 1, Figure 2.

    Differs: both step lengths follow the success of every proposal, where the paper counts
    successes over a window; the walk never stops before the last step.
    """

    ball: Ball
    steps: int = 1000
    _: dataclasses.KW_ONLY
    start: Attack | None = None

    def __post_init__(self) -> None:
        check_ball(self.ball)
        refuse_sparse("Boundary", self.ball)
        check_integer("Boundary: steps", self.steps)
        check_start("Boundary", self.start, self.ball)

    @property
    def name(self) -> str:  # type: ignore[override]
        """What reports call it."""
        return f"Boundary-{self.steps}"

    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> BestSoFar:
        """The closest adversarial example of the walk."""
        objectives.refuse_targets("Boundary", targets)
        seeds = random.split(seed, 2)
        is_adversarial = label_query(forward, y)
        begin = starting_point(self.ball, self.start, forward, x, y, seeds[0])
        best = initial_best(x, is_adversarial(x))
        best = keep_closest(self.ball, best, x, begin.x, begin.found)

        def body(index: tf.Tensor, x_adv: Images, lengths: tuple, best: BestSoFar) -> tuple:
            step_seed = random.fold_in(seeds[1], index)
            on_sphere, closer = _proposals(self.ball, x, x_adv, lengths, step_seed)
            sphere_success = is_adversarial(on_sphere) & begin.found
            success = is_adversarial(closer) & begin.found
            approaches = euclidean(upcast_half(closer) - upcast_half(x)) < euclidean(
                upcast_half(x_adv) - upcast_half(x)
            )
            lengths = (
                _adapted(lengths[0], sphere_success, _SPHERICAL_RATE),
                _adapted(lengths[1], sphere_success & success, _SOURCE_RATE),
            )
            best = keep_closest(self.ball, best, x, closer, success)
            x_adv = tf.where(broadcast_to_images(success & approaches, x), closer, x_adv)
            return index + 1, tf.ensure_shape(x_adv, x.shape), lengths, best

        length = tf.ones_like(begin.found, upcast_half(x).dtype) * _INITIAL_STEP
        *_, best = tf.while_loop(
            lambda index, *_: index < self.steps,
            body,
            (tf.constant(0), begin.x, (length, length), best),
            parallel_iterations=1,
        )
        return best


boundary = Boundary


def _proposals(
    ball: Ball, x: Images, x_adv: Images, lengths: tuple[PerExample, PerExample], seed: tf.Tensor
) -> tuple[Images, Images]:
    """A random point at the distance of the current one, and one closer to the clean image.

    `lengths` are those of the spherical step and of the step toward the clean image, both
    `[batch]`, as fractions of the distance.
    """
    clean, here = upcast_half(x), upcast_half(x_adv)
    spherical, toward = (broadcast_to_images(length, x) for length in lengths)
    delta = here - clean
    distance = broadcast_to_images(euclidean(delta), x)
    outward = tf.math.divide_no_nan(delta, distance)
    noise = random.normal(tf.shape(x), seed, dtype=clean.dtype)
    noise = without_masked(ball, noise)
    noise -= outward * broadcast_to_images(_inner(noise, outward), x)
    tangent = tf.math.divide_no_nan(noise, broadcast_to_images(euclidean(noise), x))
    # A step along the tangent, then back onto the sphere.
    moved = distance * (outward + spherical * tangent) / tf.sqrt(1 + spherical**2)
    on_sphere = allowed(ball, clean + moved, x)
    delta = upcast_half(on_sphere) - clean
    length = broadcast_to_images(euclidean(delta), x)
    # Clipping may have shortened the perturbation already.
    target_length = tf.minimum(length, (1 - toward) * distance)
    closer = clean + tf.math.divide_no_nan(delta, length) * target_length
    return on_sphere, allowed(ball, closer, x)


def _adapted(length: PerExample, success: tf.Tensor, target_rate: float) -> PerExample:
    """Lengthens a step after a success, and shortens it after a failure."""
    change = tf.exp(_ADAPTATION * (tf.cast(success, length.dtype) - target_rate))
    return tf.clip_by_value(length * change, _SMALLEST_STEP, _LARGEST_STEP)


def _inner(a: tf.Tensor, b: tf.Tensor) -> PerExample:
    return tf.reduce_sum(a * b, axis=list(range(1, a.shape.rank)))
