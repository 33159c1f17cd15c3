"""SPSA: gradient ascent along gradients estimated from values alone."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_robust.attacks.crafting import initialization, objectives
from keras_robust.attacks.crafting.gradient_ascent import GradientAttack, gradient_ascent, noinline
from keras_robust.attacks.crafting.step_rules import MomentumStep, default_step_size
from keras_robust.attacks.pgd import needs_gradient_at_clean
from keras_robust.core import random
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, pixel_range, scalar, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, Objective, PerExample
from keras_robust.core.validation import check_integer, check_number
from keras_robust.threat_models.clipping import allowed
from keras_robust.threat_models.masks import without_masked

_DECAY = 0.9  # of the accumulated estimates


class SpsaEstimator:
    """The mean slope along random directions of +-1, in the place of a gradient.

    `g = 1/n sum_i v_i (f(x + d v_i) - f(x - d v_i)) / 2d`, with the points clipped into the bounds.
    The value is the mean of all values queried.

    Args:
        value: `x_adv -> [batch]`, each value depending on its own image only.
        ball, n_directions, seed: as for an attack.
        delta: `d`, in the units of the images.

    Reference: Spall, "Multivariate Stochastic Approximation Using a Simultaneous Perturbation
    Gradient Approximation" (1992), Eq. 2.2; Uesato et al. (2018), Algorithm 1.
    """

    def __init__(
        self,
        value: Callable[[Images], PerExample],
        ball: Ball,
        n_directions: int,
        delta: float,
        seed: tf.Tensor,
    ):
        self._value = noinline(value)
        self._ball, self._delta, self._seed = ball, delta, seed
        self._n_directions = n_directions

    def init(self, x_start: Images) -> tf.Tensor:
        """The number of directions drawn so far."""
        del x_start
        return tf.constant(0)

    def __call__(self, x_adv: Images, state: tf.Tensor) -> tuple[PerExample, tf.Tensor, tf.Tensor]:
        """The mean value `[batch]`, the estimate, and the number of directions drawn so far."""
        center = upcast_half(x_adv)
        delta = scalar(self._delta, center.dtype)

        def body(drawn: tf.Tensor, total: tf.Tensor, gradient: tf.Tensor) -> tuple:
            seed = random.fold_in(self._seed, drawn)
            bits = random.integers(tf.shape(x_adv), seed, 2)
            direction = without_masked(self._ball, tf.cast(2 * bits - 1, center.dtype))
            ahead, behind = (
                tf.cast(self._value(allowed(self._ball, point, x_adv)), center.dtype)
                for point in (center + delta * direction, center - delta * direction)
            )
            slope = (ahead - behind) / (2 * delta)
            slope = tf.where(tf.math.is_finite(slope), slope, 0)
            gradient += broadcast_to_images(slope, x_adv) * direction
            return drawn + 1, total + (ahead + behind) / 2, gradient

        drawn, total, gradient = tf.while_loop(
            lambda drawn, *_: drawn < state + self._n_directions,
            body,
            (state, tf.zeros(tf.shape(x_adv)[:1], center.dtype), tf.zeros_like(center)),
            (tf.TensorShape([]), tf.TensorShape([None]), x_adv.shape),
            parallel_iterations=1,
        )
        return total / self._n_directions, gradient / self._n_directions, drawn


@serializable
class Spsa(GradientAttack):
    """A gradient attack along estimated gradients; see `spsa`.

    Args:
        ball, objective, step_rule, steps, initialization, name: as for
            `keras_robust.GradientAttack`.
        n_directions, delta: as for `spsa`.
    """

    n_directions: int = 32
    delta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("SPSA: n_directions", self.n_directions, 1)
        check_number("SPSA: delta", self.delta, above=0, most=1)

    @property
    def is_random(self) -> bool:
        """The directions are drawn at random."""
        return True

    @property
    def queries(self) -> int:
        """The number of queries per image."""
        return 2 * self.steps * self.n_directions

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Starts near the images and ascends along estimates."""
        seeds = random.split(seed, 2)
        oracle = SpsaEstimator(
            self.objective(forward, x, y, targets),
            self.ball,
            self.n_directions,
            self.delta * pixel_range(self.ball.bounds),
            seeds[1],
        )
        x_start = self.initialization(self.ball, x, seeds[0])
        return gradient_ascent(self.ball, self.step_rule, oracle, x, x_start, self.steps).x


def spsa(
    ball: Ball,
    steps: int = 20,
    step_size: float | None = None,
    *,
    n_directions: int = 32,
    delta: float = 0.01,
    loss: str | Objective = "margin",
    targeted: bool = False,
) -> Spsa:
    """SPSA: a score-based attack, by gradient ascent along gradients estimated from values.

    Args:
        ball: the threat model.
        steps: the number of steps, >= 0.
        step_size: the length of a step in the ball's norm; default `2.5 radius / steps`.
        n_directions: random directions per step, two queries each, >= 1.
        delta: the distance of the queries, as a fraction of the range of a pixel, in (0, 1].
            Differences that the model rounds away within it have no effect.
        loss: as for `pgd`; not `"kl"`, which is minimal at the clean image.
        targeted: reach `targets`, passed when the attack is called.

    Returns:
        The attack; its `queries` are the number of queries per image.

    Raises:
        TypeError: `ball` is not a threat model.
        ValueError: as for `pgd`, or an argument out of range.

    Example:
        >>> import tensorflow as tf
        >>> from keras_robust import LinfBall
        >>> attack = spsa(LinfBall(0.25), steps=5)
        >>> x, y = tf.constant([[0.5, 0.5]]), tf.constant([0])
        >>> attack(lambda x: {"logits": x}, x, y).numpy().tolist()
        [[0.25, 0.75]]

    Reference: Uesato et al., "Adversarial Risk and the Dangers of Evaluating Against Weak Attacks"
    (2018), section 4 and Algorithm 1.

    Differs: steps of a fixed length in the ball's norm along the estimates accumulated with a decay
    of 0.9, where the paper takes Adam's; queries stay within the range of a pixel.
    """
    needs_gradient_at_clean("SPSA", loss)
    rule = MomentumStep(default_step_size(ball, steps, step_size), _DECAY)
    return Spsa(
        ball,
        objectives.get(loss, targeted),
        rule,
        steps,
        initialization.AtInput(),
        f"SPSA-{steps}",
        n_directions,
        delta,
    )
