"""The crafting loop, of which every gradient-based attack is a setting.

`gradient_ascent` is the loop: query the gradient, let a step rule move the point, repeat.
`GradientAttack` is the attack: a ball, an objective, a step rule, an initialization and a number
of steps.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.initialization import AtInput, Uniform
from keras_robust.attacks.crafting.objectives import Targeted
from keras_robust.attacks.crafting.step_rules import Point
from keras_robust.core.config import OMIT_NONE, replace, serializable
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import (
    Ball,
    Forward,
    Images,
    Initialization,
    Labels,
    Logits,
    Objective,
    PerExample,
    Radius,
    Scalar,
    StepRule,
)
from keras_robust.core.validation import check_integer
from keras_robust.threat_models.masks import without_masked

A = TypeVar("A", bound=Attack)


class GradientOracle(Protocol):
    """Values and gradients for the loop: of one objective, or of several combined by a solver."""

    def init(self, x_start: Images) -> Any:
        """The state before the first step."""

    def __call__(self, x_adv: Images, state: Any) -> tuple[PerExample, tf.Tensor, Any]:
        """The value `[batch]`, its gradient in `x_adv`, and the next state."""


class SingleObjective:
    """The gradient of a single objective; stateless.

    Args:
        value: `x_adv -> [batch]`; each value depends on its own image only.
    """

    def __init__(self, value: Callable[[Images], PerExample]):
        self._gradient = noinline(lambda x_adv: value_and_gradient(value, x_adv))

    def init(self, x_start: Images) -> Any:
        """An empty state."""
        del x_start
        return ()

    def __call__(self, x_adv: Images, state: Any) -> tuple[PerExample, tf.Tensor, Any]:
        """The value and its gradient."""
        value, gradient = self._gradient(x_adv)
        return value, gradient, state


class NoGradient(ValueError):
    """The objective does not depend on the images by a differentiable path."""


def value_and_gradient(
    value: Callable[[Images], PerExample], x_adv: Images
) -> tuple[PerExample, tf.Tensor]:
    """A value per example, and the gradient of each in its own image; non-finite entries are 0."""
    per_example, gradient = value_and_sum_gradient(value, x_adv)
    return per_example, zero_nonfinite(gradient)


def value_and_sum_gradient(
    function: Callable[[Images], Any], x_adv: Images
) -> tuple[Any, tf.Tensor]:
    """The result of a function, and the gradient of the sum of its first tensor.

    Only the images are watched, so that weights have no gradients. The sum is differentiated, as a
    mean would shrink the gradients of half-precision models.

    Raises:
        NoGradient: the tensor does not depend on the images.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x_adv)
        result = function(x_adv)
        total = tf.reduce_sum(tf.nest.flatten(result)[0])
    return result, _check_gradient(tape.gradient(total, x_adv))


def logits_and_jacobian(forward: Forward, x_adv: Images) -> tuple[Logits, tf.Tensor]:
    """The logits `[batch, classes]`, and the gradient of each of them, `[batch, classes, ...]`.

    One forward pass, then one backward pass per class in a loop, so that memory does not grow with
    the number of classes.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        x = upcast_half(x_adv)
        tape.watch(x)
        logits = upcast_half(forward(tf.cast(x, x_adv.dtype))["logits"])
        # The sum over the batch, in which each image has its own gradient. A Jacobian is taken
        # within one dtype, which logits and images need not share.
        totals = tf.reduce_sum(tf.cast(logits, x.dtype), axis=0)
    jacobian = tape.jacobian(totals, x, parallel_iterations=1, experimental_use_pfor=False)
    gradients = zero_nonfinite(_check_gradient(jacobian))
    return tf.stop_gradient(logits), tf.transpose(gradients, [1, 0, *range(2, x.shape.rank + 1)])


def _check_gradient(gradient: tf.Tensor | None) -> tf.Tensor:
    if gradient is None:
        raise NoGradient(
            "The model's logits do not depend on its input by a differentiable path, so there is "
            "no gradient to follow. Use a gradient-free attack."
        )
    return gradient


def zero_nonfinite(gradient: tf.Tensor) -> tf.Tensor:
    """Replaces non-finite entries by 0, so that a NaN does not spread over the image."""
    return tf.where(tf.math.is_finite(gradient), gradient, tf.zeros_like(gradient))


def noinline(function: Callable) -> Callable:
    """Keeps a function of the loop's body out of line when a graph is built.

    If it is inlined, the body becomes part of a cyclic graph, in which oneDNN rewrites the gradient
    of max pooling only sometimes; out of line it is fast every time (see `benchmarks/`).
    """
    if not tf.inside_function():
        return function
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


class AscentResult(NamedTuple):
    """The end of a gradient ascent; gradients are stopped.

    Attributes:
        x: the last point, `[batch, ...]`.
        oracle_state: the last state of the oracle, such as weights of tasks.
        rule_state: the last state of the step rule, such as the best point so far.
    """

    x: Images
    oracle_state: Any
    rule_state: Any


def gradient_ascent(
    ball: Ball,
    step_rule: StepRule,
    oracle: GradientOracle,
    x: Images,
    x_start: Images,
    steps: int | tf.Tensor,
) -> AscentResult:
    """Runs the crafting loop.

    Args:
        ball: the threat model, onto which the rule projects.
        step_rule: how a gradient moves a point.
        oracle: values and gradients.
        x: clean images `[batch, ...]`.
        x_start: the first point, of the same shape.
        steps: the number of steps.
    """
    lookahead = getattr(step_rule, "lookahead", None)

    def body(index: tf.Tensor, x_adv: Images, oracle_state: Any, rule_state: Any) -> tuple:
        here = x_adv if lookahead is None else lookahead(ball, x, x_adv, rule_state)
        value, gradient, oracle_state = oracle(here, oracle_state)
        point = Point(index, x_adv, value, without_masked(ball, gradient))
        x_next, rule_state = step_rule.update(ball, x, point, rule_state)
        x_next.set_shape(x.shape)
        return index + 1, x_next, oracle_state, rule_state

    start = (tf.constant(0), x_start, oracle.init(x_start), step_rule.init(ball, x_start))
    _, *end = tf.while_loop(lambda index, *_: index < steps, body, start, parallel_iterations=1)
    return AscentResult(*tf.nest.map_structure(tf.stop_gradient, end))


@serializable
class GradientAttack(Attack):
    """A gradient-based attack: start near the image, ascend the objective, stay in the ball.

    Args:
        ball: the threat model.
        objective: what to maximize, of `keras_robust.objectives`.
        step_rule: how a gradient moves the point, of `keras_robust.step_rules`.
        steps: the number of steps, >= 0.
        initialization: where to start, of `keras_robust.initialization`.
        name: what reports call the attack.
        transferability: of `keras_robust.transferability`, a gradient that transfers to other
            models; None for the model's own.

    Raises:
        ValueError: negative steps.

    Example:
        >>> from keras_robust import LinfBall, initialization, objectives, step_rules
        >>> attack = GradientAttack(
        ...     LinfBall(0.25), objectives.LabelLoss("margin"), step_rules.FixedStep(0.25), steps=1,
        ...     initialization=initialization.AtInput())
        >>> x, y = tf.constant([[0.5, 0.5]]), tf.constant([0])
        >>> attack(lambda x: {"logits": x}, x, y).numpy().tolist()
        [[0.25, 0.75]]
    """

    ball: Ball
    objective: Objective
    step_rule: StepRule = dataclasses.field()  # without a default, which `Attack` has
    steps: int
    initialization: Initialization = Uniform()
    name: str = "gradient attack"
    transferability: Any = dataclasses.field(default=None, kw_only=True, metadata=OMIT_NONE)

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)

    @property
    def gradient_steps(self) -> int:
        """The number of steps."""
        return self.steps

    @property
    def is_random(self) -> bool:
        """Whether it starts at random, or takes a random gradient."""
        tuned = self.transferability
        return not isinstance(self.initialization, AtInput) or (
            tuned is not None and tuned.is_random
        )

    @property
    def takes_targets(self) -> bool:
        """Whether the objective is targeted."""
        return isinstance(self.objective, Targeted)

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Starts near the images and ascends."""
        x_start = self.initialization(self.ball, x, seed)
        oracle: GradientOracle
        if self.transferability is None:
            oracle = SingleObjective(self.objective(forward, x, y, targets))
        else:
            oracle = self.transferability.oracle(
                self.ball, self.objective, forward, x, y, seed, targets
            )
        return gradient_ascent(self.ball, self.step_rule, oracle, x, x_start, self.steps).x

    def at_radius(self, radius: Radius, step_size: Scalar | None = None) -> GradientAttack:
        """The same attack in a ball of another radius.

        Args:
            radius: the new radius, a number or a scalar tensor.
            step_size: the new step size; by default it keeps its ratio to the radius.

        Raises:
            ValueError: no step size, where the present radius is 0.
        """
        return rescale(self, radius, step_size)


def rescale(attack: A, radius: Radius, step_size: Scalar | None) -> A:
    """An attack with a step rule in a ball of another radius; see `GradientAttack.at_radius`."""
    ball = attack.ball.replace(radius=radius)
    rule: Any = attack.step_rule
    if step_size is None:
        if isinstance(attack.ball.radius, numbers.Real) and attack.ball.radius == 0:
            raise ValueError(
                "The attack's radius is 0, so its step size has no ratio to keep. "
                "Pass `step_size` to `at_radius`."
            )
        step_size = radius * (rule.size / attack.ball.radius)
    return replace(attack, ball=ball, step_rule=replace(rule, size=step_size))
