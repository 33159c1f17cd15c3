"""FAB: the fast adaptive boundary attack, by projection onto linearized decision boundaries."""

from __future__ import annotations

import tensorflow as tf

from keras_robust.attacks.composite import restarts as repeated
from keras_robust.attacks.composite import worst_of
from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.gradient_ascent import noinline
from keras_robust.attacks.crafting.linearized import Hyperplane, closest_boundary
from keras_robust.attacks.crafting.minimum_norm import (
    BestSoFar,
    MarginSearch,
    initial_best,
    keep_closest,
)
from keras_robust.core.config import replace, serializable
from keras_robust.core.numerics import broadcast_to_images, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels
from keras_robust.core.validation import check_ball, check_integer, check_number
from keras_robust.losses import classification as losses
from keras_robust.threat_models.clipping import allowed
from keras_robust.threat_models.sparse_ball import refuse_sparse


@serializable
class Fab(MarginSearch):
    """One run of FAB, as `fab` builds it; see there for the other arguments.

    Args:
        random_start: start at a random point of the ball of half the radius, not at the image.
    """

    ball: Ball
    steps: int = 100
    targeted: bool = False
    random_start: bool = False
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        check_ball(self.ball)
        refuse_sparse("Fab", self.ball)
        check_integer("Fab: steps", self.steps)
        check_number("Fab: alpha_max", self.alpha_max, most=1)
        check_number("Fab: eta", self.eta, 1)
        check_number("Fab: beta", self.beta, above=0, below=1)

    @property
    def name(self) -> str:  # type: ignore[override]
        """What reports call it."""
        return f"{'targeted ' if self.targeted else ''}FAB-{self.steps}"

    @property
    def is_random(self) -> bool:
        """Whether it starts at random."""
        return self.random_start

    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> BestSoFar:
        """The closest adversarial example of all steps."""
        self.objective(forward, x, y, targets)  # refuses targets that are missing or not used
        linearized = noinline(lambda x_adv: closest_boundary(self.ball, forward, x_adv, y, targets))

        def body(index: tf.Tensor, x_adv: Images, best: BestSoFar) -> tuple:
            x_adv = self._step(linearized(x_adv), x, x_adv)
            adversarial = losses.misclassified(forward(x_adv)["logits"], y)
            best = keep_closest(self.ball, best, x, x_adv, adversarial)
            closer = upcast_half(x) + self.beta * (upcast_half(x_adv) - upcast_half(x))
            closer = allowed(self.ball, closer, x)
            x_adv = tf.where(broadcast_to_images(adversarial, x), closer, x_adv)
            return index + 1, tf.ensure_shape(x_adv, x.shape), best

        best = initial_best(x, losses.misclassified(forward(x)["logits"], y))
        *_, best = tf.while_loop(
            lambda index, *_: index < self.steps,
            body,
            (tf.constant(0), self._start(x, seed), best),
            parallel_iterations=1,
        )
        return best

    def _start(self, x: Images, seed: tf.Tensor) -> Images:
        if not self.random_start:
            return x
        return self.ball.replace(radius=0.5 * self.ball.radius).sample(x, seed)

    def _step(self, plane: Hyperplane, x: Images, x_adv: Images) -> Images:
        """Eq. 8 and 9 of the paper."""
        clean, here = upcast_half(x), upcast_half(x_adv)
        value, normal = plane
        pixels = list(range(1, x.shape.rank))
        value_at_clean = value + tf.reduce_sum(normal * (clean - here), axis=pixels)
        from_here = self.ball.project_onto_hyperplane(here, normal, value)
        from_clean = self.ball.project_onto_hyperplane(clean, normal, value_at_clean)
        zero = tf.zeros_like(from_here)
        # The floors of the official implementation: if both are 0, neither is preferred.
        near, far = (tf.maximum(self.ball.distance(d, zero), 1e-8) for d in (from_here, from_clean))
        alpha = broadcast_to_images(tf.minimum(near / (near + far), self.alpha_max), x)
        x_next = (here + self.eta * from_here) * (1 - alpha)
        x_next += (clean + self.eta * from_clean) * alpha
        return allowed(self.ball, tf.where(tf.math.is_finite(x_next), x_next, here), x)


def fab(
    ball: Ball,
    steps: int = 100,
    *,
    targeted: bool = False,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
) -> Attack:
    """FAB: a minimum-norm attack by projection onto linearized decision boundaries.

    `x <- (1 - a) (x + eta d(x)) + a (x_0 + eta d(x_0))`, where `d` is the shortest step onto the
    boundary and `a = min(|d(x)| / (|d(x)| + |d(x_0)|), alpha_max)`; where that is misclassified,
    `x <- x_0 + beta (x - x_0)`.

    Args:
        ball: the threat model. Images without an adversarial example within the radius stay
            unchanged.
        steps: the number of steps, >= 0. Each costs a forward pass, and a backward pass per class,
            or a single one if targeted.
        targeted: use the boundary between the label and `targets`, passed when the attack is
            called. Any misclassified image counts, not only those of the target class. For all
            classes, wrap it in `multi_targeted`.
        restarts: the number of runs, >= 1; all but the first start at a random point of half the
            radius.
        alpha_max: how strongly a step is biased toward the clean image, in [0, 1].
        eta: overshoot: how far a step leads beyond the boundary, >= 1.
        beta: the fraction of the perturbation that is kept after a misclassified point, in (0, 1).

    Returns:
        The attack; several runs are combined by `worst_of` and `restarts`.

    Raises:
        TypeError: `ball` is not a threat model.
        ValueError: an argument out of range, or restarts of a targeted attack; when called,
            targets that are missing or not used.

    Example:
        >>> from keras_robust import L2Ball
        >>> x, y = tf.constant([[0.7, 0.3]]), tf.constant([0])
        >>> x_adv = fab(L2Ball(0.5), steps=20)(lambda x: {"logits": x}, x, y)
        >>> x_adv.numpy().round(2).tolist()  # the logits are tied at [0.5, 0.5]
        [[0.5, 0.5]]
        >>> len(fab(L2Ball(0.5), restarts=5).rounds(classes=10))
        5

    Reference: Croce and Hein, "Minimally Distorted Adversarial Examples with a Fast Adaptive
    Boundary Attack" (2020), Algorithm 1, as in the official AutoAttack (without the final search).
    """
    first = Fab(ball, steps, targeted, alpha_max=alpha_max, eta=eta, beta=beta)
    check_integer("restarts", restarts, 1)
    if restarts == 1:
        return first
    if targeted:
        raise ValueError(
            "fab: restarts of a targeted attack are not combined; only the worst result over all "
            "targets counts. Use `restarts(multi_targeted(Fab(ball, targeted=True, "
            "random_start=True)), count)`, with `Fab` of `keras_robust.attacks.minimum_norm.fab`."
        )
    return worst_of(first, repeated(replace(first, random_start=True), restarts - 1))
