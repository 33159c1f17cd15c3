"""FAB: the fast adaptive boundary attack, which looks for the nearest decision boundary."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.attacks.composite import restarts as repeated
from keras_robust.attacks.composite import worst_of
from keras_robust.attacks.crafting import objectives
from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.gradient_ascent import (
    logits_and_jacobian,
    noinline,
    value_and_gradient,
)
from keras_robust.attacks.crafting.minimum_norm import (
    BestSoFar,
    MinimumNormAttack,
    initial_best,
    keep_closest,
)
from keras_robust.core.config import replace, serializable
from keras_robust.core.numerics import broadcast_to_images, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, PerExample
from keras_robust.core.validation import check_ball, check_integer
from keras_robust.losses import classification as losses
from keras_robust.threat_models.balls import clipped


class _Boundary(NamedTuple):
    """The nearest boundary of each image, linearised: it runs where `value + normal . d = 0`.

    Attributes:
        value: another logit minus the label's, `[batch]`.
        normal: its gradient, the shape of the images.
    """

    value: PerExample
    normal: tf.Tensor


@serializable
class Fab(MinimumNormAttack):
    """Steps onto the linearised boundary, drawn towards the clean image; keeps the nearest mistake.

    `x <- (1 - a) (x + eta d(x)) + a (x_0 + eta d(x_0))`, where `d` is the smallest step onto the
    boundary and `a = min(|d(x)| / (|d(x)| + |d(x_0)|), a_max)`; after a mistake
    `x <- x_0 + beta (x - x_0)`.

    Args:
        ball: the norm, the bounds, and the radius within which a mistake counts.
        steps: how many steps, >= 0; each costs a forward pass and one backward pass for every
            class, or for the target alone.
        targeted: look at the boundary between the label and a target; any mistake counts.
        random_start: begin at a random point of the ball of half the radius, not at the image.
        bias: `a_max`, in [0, 1]: how strongly a step is drawn towards the clean image.
        overshoot: `eta`, >= 1: how far a step goes beyond the boundary.
        pull_back: `beta`, in (0, 1): what is left of the perturbation after a mistake.

    Raises:
        ValueError: a setting outside of its range; or, when called, targets that are missing or of
            no use.

    Example:
        >>> from keras_robust import L2Ball
        >>> x, y = tf.constant([[0.7, 0.3]]), tf.constant([0])
        >>> nearest = Fab(L2Ball(0.5), steps=20)(lambda x: {"logits": x}, x, y)
        >>> nearest.numpy().round(2).tolist()  # the logits are tied at [0.5, 0.5]
        [[0.5, 0.5]]

    Reference: Croce and Hein, "Minimally Distorted Adversarial Examples with a Fast Adaptive
    Boundary Attack" (2020), Algorithm 1, as in the official AutoAttack (without the final search).
    """

    ball: Any
    steps: int = 100
    targeted: bool = False
    random_start: bool = False
    bias: float = 0.1
    overshoot: float = 1.05
    pull_back: float = 0.9

    def __post_init__(self) -> None:
        check_integer("Fab: steps", self.steps)
        if not 0 <= self.bias <= 1:
            raise ValueError(f"Fab: bias is {self.bias!r}; expected a number in [0, 1].")
        if not 1 <= self.overshoot < math.inf:
            raise ValueError(f"Fab: overshoot is {self.overshoot!r}; expected a number >= 1.")
        if not 0 < self.pull_back < 1:
            raise ValueError(f"Fab: pull_back is {self.pull_back!r}; expected a share in (0, 1).")

    @property
    def name(self) -> str:  # type: ignore[override]
        """What reports call it."""
        return f"{'targeted ' if self.targeted else ''}FAB-{self.steps}"

    @property
    def gradient_steps(self) -> int:
        """The number of steps."""
        return self.steps

    @property
    def is_random(self) -> bool:
        """Whether it starts at random."""
        return self.random_start

    @property
    def takes_targets(self) -> bool:
        """Whether it is targeted."""
        return self.targeted

    @property
    def objective(self) -> Any:
        """What grows as the boundary is crossed: the margin, of the target where there is one."""
        return objectives.Targeted("margin") if self.targeted else objectives.LabelLoss("margin")

    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> BestSoFar:
        """The nearest mistake of all steps."""
        self.objective(forward, x, y, targets)  # refuses targets that are missing or of no use
        boundary = noinline(lambda x_adv: _boundary(self.ball, forward, x_adv, y, targets))

        def body(index: tf.Tensor, x_adv: Images, best: BestSoFar) -> tuple:
            x_adv = self._step(boundary(x_adv), x, x_adv)
            wrong = losses.misclassified(forward(x_adv)["logits"], y)
            best = keep_closest(self.ball, best, x, x_adv, wrong)
            back = upcast_half(x) + self.pull_back * (upcast_half(x_adv) - upcast_half(x))
            back = tf.where(
                broadcast_to_images(wrong, x), clipped(self.ball.bounds, back, x.dtype), x_adv
            )
            return index + 1, tf.ensure_shape(back, x.shape), best

        found = initial_best(x, losses.misclassified(forward(x)["logits"], y))
        start = (tf.constant(0), self._start(x, seed), found)
        *_, found = tf.while_loop(
            lambda index, *_: index < self.steps, body, start, parallel_iterations=1
        )
        return found

    def _start(self, x: Images, seed: tf.Tensor) -> Images:
        if not self.random_start:
            return x
        return self.ball.replace(radius=0.5 * self.ball.radius).sample(x, seed)

    def _step(self, boundary: _Boundary, x: Images, x_adv: Images) -> Images:
        """Eq. 8 and 9 of the paper."""
        clean, here = upcast_half(x), upcast_half(x_adv)
        value, normal = boundary
        pixels = list(range(1, x.shape.rank))
        # The value of the linear function at the clean image.
        at_clean = value + tf.reduce_sum(normal * (clean - here), axis=pixels)
        from_here = self.ball.project_onto_hyperplane(here, normal, value)
        from_clean = self.ball.project_onto_hyperplane(clean, normal, at_clean)
        zero = tf.zeros_like(from_here)
        # The floors of the official implementation: where both are 0, neither is preferred.
        near, far = (tf.maximum(self.ball.distance(d, zero), 1e-8) for d in (from_here, from_clean))
        share = broadcast_to_images(tf.minimum(near / (near + far), self.bias), x)
        x_next = (here + self.overshoot * from_here) * (1 - share)
        x_next += (clean + self.overshoot * from_clean) * share
        return clipped(self.ball.bounds, tf.where(tf.math.is_finite(x_next), x_next, here), x.dtype)


def _boundary(
    ball: Ball, forward: Forward, x_adv: Images, y: Labels, targets: Labels | None
) -> _Boundary:
    """The boundary with the target, or with the class whose boundary is nearest (Eq. 7)."""
    if targets is not None:

        def ahead(x_adv: Images) -> PerExample:
            logits = upcast_half(forward(x_adv)["logits"])
            label, target = (tf.gather(logits, c, axis=1, batch_dims=1) for c in (y, targets))
            return target - label

        value, normal = value_and_gradient(ahead, x_adv)
        # Logits and images need not share a dtype.
        return _Boundary(tf.cast(value, upcast_half(normal).dtype), upcast_half(normal))
    logits, jacobian = logits_and_jacobian(forward, x_adv)
    value = logits - tf.gather(logits, y[:, None], axis=1, batch_dims=1)
    normal = jacobian - tf.gather(jacobian, y[:, None], axis=1, batch_dims=1)
    flat = tf.reshape(normal, tf.concat([[-1], tf.shape(normal)[2:]], axis=0))
    slope = tf.cast(tf.reshape(ball.dual_norm(flat), tf.shape(value)), value.dtype)
    # Nothing leads to a boundary without a slope, and the label has none with itself.
    distance = tf.where(slope > 0, tf.abs(value) / slope, value.dtype.max)
    is_label = tf.one_hot(y, value.shape[1], on_value=True, off_value=False, dtype=tf.bool)
    nearest = tf.argmin(tf.where(is_label, tf.constant(math.inf, value.dtype), distance), axis=1)
    value, normal = (tf.gather(a, nearest, axis=1, batch_dims=1) for a in (value, normal))
    return _Boundary(tf.cast(value, normal.dtype), normal)


def fab(
    ball: Ball,
    steps: int = 100,
    *,
    targeted: bool = False,
    restarts: int = 1,
) -> Attack:
    """FAB: the nearest mistake along linearised decision boundaries, counted within the radius.

    Args:
        ball: the norm, the bounds, and the radius within which a mistake counts. Images without one
            come back as they were.
        steps: how many steps.
        targeted: look at the boundary with `targets`, passed when the attack is called; cheaper, as
            only one gradient is needed. Any mistake counts, not the target alone. For all classes,
            wrap it in `multi_targeted`.
        restarts: how many runs; all but the first begin at a random point of half the radius.

    Returns:
        The attack: a `Fab`, or several as `worst_of` and `restarts` combine them.

    Raises:
        TypeError: a ball whose hyperplanes are not known.
        ValueError: negative steps, restarts below 1, or restarts of a targeted attack.

    Example:
        >>> from keras_robust import LinfBall
        >>> fab(LinfBall(8 / 255)).name
        'FAB-100'
        >>> len(fab(LinfBall(8 / 255), restarts=5).rounds(classes=10))
        5

    Reference: Croce and Hein, "Minimally Distorted Adversarial Examples with a Fast Adaptive
    Boundary Attack" (2020), Algorithm 1.
    """
    check_ball(ball)
    check_integer("restarts", restarts, 1)
    first = Fab(ball, steps, targeted)
    if restarts == 1:
        return first
    if targeted:
        raise ValueError(
            "restarts of a targeted FAB keep the worst for the label, over all targets: write "
            "`restarts(multi_targeted(Fab(ball, targeted=True, random_start=True)), count)`."
        )
    return worst_of(first, repeated(replace(first, random_start=True), restarts - 1))
