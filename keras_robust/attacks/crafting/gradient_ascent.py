"""The crafting loop: every gradient-based attack of the library is a setting of it.

`gradient_ascent` is the loop itself: it asks for a gradient, lets a step rule move the point, and repeats.
`GradientAttack` is the attack made of it: a ball, an objective, a step rule, a start and a number of steps.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.initialization import AtInput, Uniform
from keras_robust.attacks.crafting.objectives import Targeted
from keras_robust.attacks.crafting.step_rules import Point
from keras_robust.core.config import replace, serializable
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, Logits, PerExample, StepRule
from keras_robust.core.validation import check_integer


class GradientOracle(Protocol):
    """Values and gradients for the loop: of one task, or of many weighed by a solver."""

    def init(self, x_start: Images) -> Any:
        """The state before the first step: nothing for one task, weights for many."""

    def __call__(self, x_adv: Images, state: Any) -> tuple[PerExample, tf.Tensor, Any]:
        """The value `[batch]`, its gradient in `x_adv`, and the next state."""


class SingleObjective:
    """The gradient of a single objective; it keeps no state.

    Args:
        value: `x_adv -> [batch]`, each value depending on its own image only.
    """

    def __init__(self, value: Callable[[Images], PerExample]):
        self._gradient = noinline(lambda x_adv: value_and_gradient(value, x_adv))

    def init(self, x_start: Images) -> tuple[()]:
        """No state."""
        del x_start
        return ()

    def __call__(self, x_adv: Images, state: Any) -> tuple[PerExample, tf.Tensor, Any]:
        """The value and its gradient."""
        value, gradient = self._gradient(x_adv)
        return value, gradient, state


class NoGradient(ValueError):
    """No differentiable path leads from the images to what is climbed."""


def value_and_gradient(
    value: Callable[[Images], PerExample], x_adv: Images
) -> tuple[PerExample, tf.Tensor]:
    """A value per example and the gradient of each in its own image.

    Watching the images alone keeps the weights' gradients from being computed. The *sum* over the
    batch is differentiated: a mean would shrink the gradient of half-precision models for nothing.
    """
    per_example, gradient = value_and_sum_gradient(value, x_adv)
    return per_example, zero_nonfinite(gradient)


def value_and_sum_gradient(
    function: Callable[[Images], Any], x_adv: Images
) -> tuple[Any, tf.Tensor]:
    """What a function found, and the gradient of the sum of the first tensor that it found.

    Raises:
        ValueError: there is none.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x_adv)
        found = function(x_adv)
        total = tf.reduce_sum(tf.nest.flatten(found)[0])
    return found, _existing(tape.gradient(total, x_adv))


def logits_and_jacobian(forward: Forward, x_adv: Images) -> tuple[Logits, tf.Tensor]:
    """The logits `[batch, classes]`, and the gradient of each of them, `[batch, classes, ...]`.

    One forward pass, then one backward pass for each class, in a loop: the batch is in memory once,
    whatever the number of classes. All classes at once, as copies of the batch or by vectorising
    the backward pass, would need `classes` times the memory and save no arithmetic.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        x = upcast_half(x_adv)
        tape.watch(x)
        logits = upcast_half(forward(tf.cast(x, x_adv.dtype))["logits"])
        # As for one value: of the sum over the batch, each image has its own gradient. A Jacobian
        # is taken between one dtype, which logits and images need not share.
        totals = tf.reduce_sum(tf.cast(logits, x.dtype), axis=0)
    jacobian = tape.jacobian(totals, x, parallel_iterations=1, experimental_use_pfor=False)
    gradients = zero_nonfinite(_existing(jacobian))
    return tf.stop_gradient(logits), tf.transpose(gradients, [1, 0, *range(2, x.shape.rank + 1)])


def _existing(gradient: tf.Tensor | None) -> tf.Tensor:
    """A gradient, or an error where there is none."""
    if gradient is None:
        raise NoGradient(
            "The model's logits do not depend on its input by a differentiable path, so there is "
            "no gradient to climb. Use a gradient-free attack."
        )
    return gradient


def zero_nonfinite(gradient: tf.Tensor) -> tf.Tensor:
    """Zero in the place of what is no number.

    A NaN would spread over the image and leave the ball; without a gradient the pixel stays.
    """
    return tf.where(tf.math.is_finite(gradient), gradient, tf.zeros_like(gradient))


def noinline(function: Callable) -> Callable:
    """Keeps a function of the loop's body out of line, where a graph is being built.

    Inlined, the body becomes part of a cyclic graph, in which oneDNN rewrites the gradient of max
    pooling only sometimes; out of line it is fast every time (see `benchmarks/`).
    """
    if not tf.inside_function():
        return function
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


class AscentResult(NamedTuple):
    """Where a climb ended.

    Attributes:
        x: the last point, `[batch, ...]`, gradients stopped.
        climb: the last state of the climb, such as weights of tasks.
        rule: the last state of the step rule, such as the best point so far.
    """

    x: Images
    climb: Any
    rule: Any


def gradient_ascent(
    ball: Ball,
    rule: StepRule,
    climb: GradientOracle,
    x: Images,
    x_start: Images,
    steps: int | tf.Tensor,
) -> AscentResult:
    """Climbs for a number of steps.

    Args:
        ball: the threat model; the rule projects onto it.
        rule: how a gradient moves a point.
        climb: gives the gradient.
        x: clean images `[batch, ...]`.
        x_start: the first point, of the same shape.
        steps: how many steps to take.

    Returns:
        The last point, and the last states of the climb and of the rule, gradients stopped.
    """

    def body(index: tf.Tensor, x_adv: Images, climb_state: Any, rule_state: Any) -> tuple:
        value, gradient, climb_state = climb(x_adv, climb_state)
        point = Point(index, x_adv, value, gradient)
        x_next, rule_state = rule.update(ball, x, point, rule_state)
        x_next.set_shape(x.shape)
        return index + 1, x_next, climb_state, rule_state

    start = (tf.constant(0), x_start, climb.init(x_start), rule.init(ball, x_start))
    _, *ended = tf.while_loop(lambda index, *_: index < steps, body, start, parallel_iterations=1)
    return AscentResult(*tf.nest.map_structure(tf.stop_gradient, ended))


@serializable
class GradientAttack(Attack):
    """A gradient-based attack: start near the image, climb the objective, stay in the ball.

    Args:
        ball: the threat model.
        objective: what to climb.
        rule: how a gradient moves the point.
        steps: the number of steps, >= 0.
        start: where to begin.
        name: what reports call it.

    Raises:
        ValueError: a negative number of steps.

    Example:
        >>> import tensorflow as tf
        >>> from keras_robust import LinfBall, initialization, objectives, step_rules
        >>> attack = GradientAttack(
        ...     LinfBall(0.25), objectives.LabelLoss("margin"), step_rules.FixedStep(0.25), steps=1,
        ...     start=initialization.AtInput())
        >>> x, y = tf.constant([[0.5, 0.5]]), tf.constant([0])
        >>> attack(lambda x: {"logits": x}, x, y).numpy().tolist()
        [[0.25, 0.75]]
    """

    ball: Any
    objective: Any
    rule: Any
    steps: int
    start: Any = Uniform()
    name: str = "ascent"

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)

    @property
    def gradient_steps(self) -> int:
        """The number of steps."""
        return self.steps

    @property
    def is_random(self) -> bool:
        """Whether it starts at random."""
        return not isinstance(self.start, AtInput)

    @property
    def takes_targets(self) -> bool:
        """Whether the objective is targeted."""
        return isinstance(self.objective, Targeted)

    @property
    def step_rule(self) -> StepRule:
        """How a gradient moves the point."""
        return self.rule

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Starts near the images and climbs."""
        x_start = self.start(self.ball, x, seed)
        climb = SingleObjective(self.objective(forward, x, y, targets))
        return gradient_ascent(self.ball, self.rule, climb, x, x_start, self.steps).x

    def at_radius(self, radius: Any, step_size: Any = None) -> GradientAttack:
        """The same attack in a ball of another radius; by default the step grows with the radius.

        Args:
            radius: the new radius, a number or a scalar tensor.
            step_size: the new step size, if it is not to keep its ratio to the radius.

        Returns:
            A new attack.

        Raises:
            ValueError: no step size where the present radius is 0, which has no ratio.
        """
        return rescaled(self, radius, step_size)


def rescaled(attack: Any, radius: Any, step_size: Any) -> Any:
    """An attack of steps in a ball, in a ball of another radius; see `GradientAttack.at_radius`."""
    ball = attack.ball.replace(radius=radius)  # refuses what is not a radius
    if step_size is None:
        if isinstance(attack.ball.radius, numbers.Real) and attack.ball.radius == 0:
            raise ValueError(
                "The attack's radius is 0, so its step size has no ratio to keep. "
                "Pass `step_size` to `at_radius`."
            )
        step_size = radius * (attack.rule.size / attack.ball.radius)
    return replace(attack, ball=ball, rule=replace(attack.rule, size=step_size))
