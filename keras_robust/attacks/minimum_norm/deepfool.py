"""DeepFool: steps onto the closest linearized decision boundary, until it is crossed."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from keras_robust.attacks.crafting.gradient_ascent import noinline
from keras_robust.attacks.crafting.linearized import closest_boundary
from keras_robust.attacks.crafting.minimum_norm import (
    BestSoFar,
    MarginSearch,
    initial_best,
    keep_closest,
)
from keras_robust.attacks.crafting.objectives import refuse_targets
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels
from keras_robust.core.validation import check_ball, check_integer, check_number
from keras_robust.losses import classification as losses
from keras_robust.threat_models.clipping import allowed
from keras_robust.threat_models.sparse_ball import refuse_sparse


@serializable
class DeepFool(MarginSearch):
    """DeepFool: a fast minimum-norm attack by steps onto the closest linearized boundary.

    Adds up the shortest steps onto the boundary of the class that is closest at the present point,
    until `x + (1 + overshoot) d` is misclassified. The example is close, but not the closest.

    Args:
        ball: the threat model; its norm is that of the steps. Images without an adversarial example
            within the radius stay unchanged.
        steps: the largest number of steps, >= 0. Each costs two forward passes, and a backward
            pass per class; there are no more once all images are misclassified.
        overshoot: how far the perturbation leads beyond the boundary, >= 0.

    Raises:
        TypeError: `ball` is not a threat model, or one in L0, where whole pixels leave no room for
            the overshoot.
        ValueError: an argument out of range; when called, targets.

    Example:
        >>> from keras_robust import LinfBall
        >>> x, y = tf.constant([[0.7, 0.3]]), tf.constant([0])
        >>> x_adv = deepfool(LinfBall(0.5))(lambda x: {"logits": x}, x, y)
        >>> x_adv.numpy().round(3).tolist()  # 1.02 times the way to the tie at [0.5, 0.5]
        [[0.4959999918937683, 0.5040000081062317]]

    Reference: Moosavi-Dezfooli et al., "DeepFool: a Simple and Accurate Method to Fool Deep Neural
    Networks" (2016), Algorithm 2.

    Differs: steps stay inside the bounds; all classes are candidates, not those of the ten largest
    logits alone.
    """

    ball: Ball
    steps: int = 50
    _: dataclasses.KW_ONLY
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        check_ball(self.ball)
        refuse_sparse("DeepFool", self.ball)
        check_integer("DeepFool: steps", self.steps)
        check_number("DeepFool: overshoot", self.overshoot)

    @property
    def name(self) -> str:  # type: ignore[override]
        """What reports call it."""
        return f"DeepFool-{self.steps}"

    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> BestSoFar:
        """The first adversarial example."""
        del seed
        refuse_targets("DeepFool", targets)
        clean = upcast_half(x)
        linearized = noinline(lambda x_adv: closest_boundary(self.ball, forward, x_adv, y, None))

        def body(index: tf.Tensor, x_adv: Images, delta: tf.Tensor, best: BestSoFar) -> tuple:
            value, normal = linearized(x_adv)
            step = self.ball.project_onto_hyperplane(x_adv, normal, value)
            delta += tf.where(tf.math.is_finite(step), step, tf.zeros_like(step))
            moved = allowed(self.ball, clean + (1 + self.overshoot) * delta, x)
            # Where an example is known, the image stays, whatever its batch still does.
            going = broadcast_to_images(_unknown(best), x)
            x_adv = tf.ensure_shape(tf.where(going, moved, x_adv), x.shape)
            adversarial = losses.misclassified(forward(x_adv)["logits"], y)
            best = keep_closest(self.ball, best, x, x_adv, adversarial)
            return index + 1, x_adv, tf.ensure_shape(delta, x.shape), best

        best = initial_best(x, losses.misclassified(forward(x)["logits"], y))
        *_, best = tf.while_loop(
            lambda index, _x, _delta, best: (index < self.steps) & tf.reduce_any(_unknown(best)),
            body,
            (tf.constant(0), x, tf.zeros_like(clean), best),
            parallel_iterations=1,
        )
        return best


def _unknown(best: BestSoFar) -> tf.Tensor:
    """Where no adversarial example is known, `[batch]`."""
    return best.distance >= best.distance.dtype.max


deepfool = DeepFool
