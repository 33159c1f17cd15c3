"""SPSA: an ascent along gradients that are estimated from values alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_robust.attacks.crafting import initialization, objectives
from keras_robust.attacks.crafting.gradient_ascent import GradientAttack, gradient_ascent, noinline
from keras_robust.attacks.crafting.step_rules import MomentumStep, default_step_size
from keras_robust.attacks.pgd import needs_gradient_at_clean
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, scalar, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, Objective, PerExample
from keras_robust.core.validation import check_integer
from keras_robust.threat_models.balls import clipped


class Estimated:
    """A climb that asks for values alone: the mean slope along random directions of +-1.

    `g = 1/n sum_i v_i (f(x + d v_i) - f(x - d v_i)) / 2d`, in which pixels at the end of their
    range stay there. The value it reports is the mean of all that it asked for.

    Args:
        value: `x_adv -> [batch]`, each value depending on its own image only.
        ball: the threat model, for the range of its pixels.
        samples: how many directions, each of two values.
        reach: `d`, in the units of the images.
        seed: an int tensor of shape `[2]`.

    Reference: Spall, "Multivariate Stochastic Approximation Using a Simultaneous Perturbation
    Gradient Approximation" (1992), Eq. 2.2; Uesato et al. (2018), Algorithm 1.
    """

    def __init__(
        self,
        value: Callable[[Images], PerExample],
        ball: Ball,
        samples: int,
        reach: float,
        seed: tf.Tensor,
    ):
        self._value = noinline(value)
        self._bounds, self._samples, self._reach, self._seed = ball.bounds, samples, reach, seed

    def init(self, x_start: Images) -> tf.Tensor:
        """How many directions have been drawn: none."""
        del x_start
        return tf.constant(0)

    def __call__(self, x_adv: Images, state: tf.Tensor) -> tuple[PerExample, tf.Tensor, Any]:
        """The mean value `[batch]`, the estimate, and how many directions have been drawn."""
        centre = upcast_half(x_adv)
        reach = scalar(self._reach, centre.dtype)

        def body(drawn: tf.Tensor, total: tf.Tensor, gradient: tf.Tensor) -> tuple:
            seed = tf.random.experimental.stateless_fold_in(self._seed, drawn)
            sides = tf.random.stateless_uniform(tf.shape(x_adv), seed, 0, 2, tf.int32)
            direction = tf.cast(2 * sides - 1, centre.dtype)
            ahead, behind = (
                tf.cast(self._value(clipped(self._bounds, point, x_adv.dtype)), centre.dtype)
                for point in (centre + reach * direction, centre - reach * direction)
            )
            # A value that is no number tells nothing of this direction.
            slope = (ahead - behind) / (2 * reach)
            slope = tf.where(tf.math.is_finite(slope), slope, 0)
            gradient += broadcast_to_images(slope, x_adv) * direction
            return drawn + 1, total + (ahead + behind) / 2, gradient

        drawn, total, gradient = tf.while_loop(
            lambda drawn, *_: drawn < state + self._samples,
            body,
            (state, tf.zeros(tf.shape(x_adv)[:1], centre.dtype), tf.zeros_like(centre)),
            (tf.TensorShape([]), tf.TensorShape([None]), x_adv.shape),
            parallel_iterations=1,
        )
        return total / self._samples, gradient / self._samples, drawn


@serializable
class Spsa(GradientAttack):
    """An ascent that asks the model for values alone.

    Args:
        samples: how many random directions a step asks about, with two passes each, >= 1.
        reach: how far it asks, as a share of the range of a pixel, > 0.

    The others are those of `keras_robust.GradientAttack`.

    Raises:
        ValueError: a number that cannot be.

    Example:
        >>> from keras_robust import LinfBall, objectives, step_rules
        >>> rule = step_rules.FixedStep(0.25)
        >>> attack = Spsa(LinfBall(0.25), objectives.LabelLoss("margin"), rule, 1, samples=8)
        >>> attack.queries
        16
    """

    samples: int = 32
    reach: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("SPSA: samples", self.samples, 1)
        if not 0 < self.reach <= 1:
            raise ValueError(
                f"SPSA: reach is {self.reach!r}; expected a share of the range in (0, 1]."
            )

    @property
    def is_random(self) -> bool:
        """The directions are drawn at random."""
        return True

    @property
    def queries(self) -> int:
        """How often the model is asked about each image."""
        return 2 * self.steps * self.samples

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Starts near the images and climbs along estimates."""
        seeds = tf.random.split(seed, 2)
        low, high = self.ball.bounds
        climb = Estimated(
            self.objective(forward, x, y, targets),
            self.ball,
            self.samples,
            self.reach * (high - low),
            seeds[1],
        )
        x_start = self.initialization(self.ball, x, seeds[0])
        return gradient_ascent(self.ball, self.step_rule, climb, x, x_start, self.steps).x


def spsa(
    ball: Ball,
    steps: int = 20,
    step_size: float | None = None,
    *,
    samples: int = 32,
    reach: float = 0.01,
    loss: str | Objective = "margin",
    targeted: bool = False,
) -> Spsa:
    """SPSA: an ascent from the image along gradients estimated from values, without any gradient.

    Args:
        ball: the threat model.
        steps: how many steps.
        step_size: the length of a step; default `2.5 radius / steps`.
        samples: how many random directions a step asks about, with two passes of the model each.
        reach: how far it asks, as a share of the range of a pixel. What the model rounds away
            within this distance stays unseen.
        loss: as for `pgd`; not `"kl"`, which is at its minimum at the clean image.
        targeted: climb towards `targets`.

    Returns:
        The attack; `queries` is how often it asks about each image.

    Raises:
        TypeError: a ball that is none.
        ValueError: as for `pgd`, or samples or a reach that cannot be.

    Example:
        >>> import tensorflow as tf
        >>> from keras_robust import LinfBall
        >>> attack = spsa(LinfBall(0.25), steps=5)
        >>> x, y = tf.constant([[0.5, 0.5]]), tf.constant([0])
        >>> attack(lambda x: {"logits": x}, x, y).numpy().tolist()
        [[0.25, 0.75]]

    Reference: Uesato et al., "Adversarial Risk and the Dangers of Evaluating Against Weak Attacks"
    (2018), section 4 and Algorithm 1.

    Differs: steps along the estimates accumulated with a decay of 0.9, of one length in the norm of
    the ball, where the paper takes Adam's; points that are asked about stay within the range.
    """
    needs_gradient_at_clean("SPSA", loss)
    rule = MomentumStep(default_step_size(ball, steps, step_size), 0.9)
    objective = objectives.get(loss, targeted)
    return Spsa(
        ball, objective, rule, steps, initialization.AtInput(), f"SPSA-{steps}", samples, reach
    )
