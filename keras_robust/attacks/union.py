"""PGD in several balls at once, for training and validation: a model is to withstand all of them.

`in_each_ball` runs any attack in each ball of a union in turn, for evaluation.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.gradient_ascent import (
    GradientAttack,
    SingleObjective,
    gradient_ascent,
    noinline,
    rescale,
)
from keras_robust.attacks.crafting.initialization import AtInput, Uniform
from keras_robust.attacks.crafting.objectives import Targeted
from keras_robust.attacks.crafting.step_rules import FixedStep, Point
from keras_robust.attacks.pgd import pgd
from keras_robust.core.config import serializable
from keras_robust.core.types import (
    Ball,
    Forward,
    Images,
    Initialization,
    Labels,
    Objective,
    PerExample,
    Radius,
    Scalar,
)
from keras_robust.core.validation import check_choice, check_integer
from keras_robust.threat_models.union_ball import UnionBall, chosen, draw

STRATEGIES = ("msd", "max", "average")
_NAMES = {"msd": "MSD-{}", "max": "PGD-{} in each ball", "average": "PGD-{} in a random ball"}


@dataclasses.dataclass(frozen=True)
class _StepInOneOf:
    """A step rule: a fixed step in each of several balls, of which one is chosen for each image.

    Args:
        parts: the balls, and a step for each of them.
        choose: chooses one of several batches for each image.
    """

    parts: Sequence[tuple[Ball, FixedStep]]
    choose: Callable[[list[Images]], Images]

    def init(self, ball: Ball, x_start: Images) -> Any:
        """An empty state."""
        del ball, x_start
        return ()

    def update(self, ball: Ball, x: Images, point: Point, state: Any) -> tuple[Images, Any]:
        """The chosen step."""
        del ball
        return self.choose([rule.update(own, x, point, ())[0] for own, rule in self.parts]), state


def _largest(value: Callable[[Images], PerExample], candidates: list[Images]) -> Images:
    """The candidate with the largest objective, for each image; NaN is never larger."""
    if len(candidates) == 1:
        return candidates[0]
    values = tf.stack([value(candidate) for candidate in candidates])
    values = tf.where(tf.math.is_nan(values), values.dtype.min, values)
    return chosen(tf.argmax(values, axis=0), candidates)


@serializable
class UnionPGD(Attack):
    """PGD in a union of balls; see `union_pgd`, whose settings it holds.

    Args:
        ball: the threat model, a `UnionBall`; any other ball is a union of one.
        objective: what to maximize, of `keras_robust.objectives`.
        step_rule: the fixed step, in fractions of the radii.
        steps: the number of steps, >= 0.
        initialization: where to start, of `keras_robust.initialization`.
        strategy: `"msd"`, `"max"` or `"average"`.

    Raises:
        TypeError: another step rule.
        ValueError: another strategy, or negative steps.
    """

    ball: Ball
    objective: Objective
    step_rule: FixedStep = dataclasses.field()  # without a default, which `Attack` has
    steps: int
    initialization: Initialization = Uniform()
    strategy: str = "msd"

    def __post_init__(self) -> None:
        check_choice("union_pgd: strategy", self.strategy, STRATEGIES)
        check_integer("union_pgd: steps", self.steps)
        if not isinstance(self.step_rule, FixedStep):
            raise TypeError(
                f"union_pgd: the step rule is {self.step_rule!r}; expected a `FixedStep`, whose "
                "size is a fraction of each radius."
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        """The strategy and the number of steps."""
        return _NAMES[self.strategy].format(self.steps)

    @property
    def gradient_steps(self) -> int:
        """The number of steps."""
        return self.steps

    @property
    def is_random(self) -> bool:
        """Whether it starts at random, or in a random ball."""
        return self.strategy == "average" or not isinstance(self.initialization, AtInput)

    @property
    def takes_targets(self) -> bool:
        """Whether the objective is targeted."""
        return isinstance(self.objective, Targeted)

    def _parts(self) -> list[tuple[Ball, FixedStep]]:
        """Each ball, with a step of the same fraction of its radius."""
        union = self.ball
        if not isinstance(union, UnionBall):
            return [(union, self.step_rule)]
        sizes = [FixedStep(self.step_rule.size * ball.radius) for ball in union.balls]
        return list(zip(union.scaled, sizes, strict=True))

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Starts near the images and ascends by the strategy."""
        value = self.objective(forward, x, y, targets)
        parts, oracle = self._parts(), SingleObjective(value)
        best = functools.partial(_largest, noinline(value))
        start = self.initialization
        index, seeds = draw(len(parts), x, seed)
        if self.strategy == "max":
            return best(
                [
                    gradient_ascent(ball, rule, oracle, x, start(ball, x, own), self.steps).x
                    for (ball, rule), own in zip(parts, seeds, strict=True)
                ]
            )
        if self.strategy == "average":
            starts = [start(ball, x, own) for (ball, _), own in zip(parts, seeds, strict=True)]
            x_start = chosen(index, starts)
            step = _StepInOneOf(parts, functools.partial(chosen, index))
        else:
            x_start, step = start(self.ball, x, seed), _StepInOneOf(parts, best)
        return gradient_ascent(self.ball, step, oracle, x, x_start, self.steps).x

    def at_radius(self, radius: Radius, step_size: Scalar | None = None) -> UnionPGD:
        """The same attack at another factor of the radii; its steps keep their ratio to it."""
        return rescale(self, radius, step_size)


def union_pgd(
    ball: Ball,
    steps: int = 10,
    step_size: float | None = None,
    *,
    strategy: str = "msd",
    loss: str | Objective = "cross_entropy",
    targeted: bool = False,
    initialization: str | Initialization = "uniform",
) -> UnionPGD:
    """PGD in several balls at once: for each image the worst of them.

    - `"msd"`, multi steepest descent: each step is tried in every ball, and the one with the
      largest loss is taken. Costs one gradient, and one forward pass per ball, a step.
    - `"max"`: PGD in each ball; the result with the largest loss. Costs one PGD per ball.
    - `"average"`: PGD in a ball that is drawn for each image, for training on the average over the
      balls. Costs one PGD.

    Args:
        ball: the threat model, a `keras_robust.UnionBall`.
        steps: the number of steps.
        step_size: the length of a step as a fraction of each radius; default `2.5 / steps`.
        strategy: `"msd"`, `"max"` or `"average"`.
        loss, targeted, initialization: as for `pgd`.

    Returns:
        The attack.

    Raises:
        TypeError: `ball` is not a threat model.
        ValueError: another strategy, or what `pgd` refuses.

    Example:
        >>> from keras_robust import L2Ball, LinfBall, UnionBall
        >>> ball = UnionBall((LinfBall(0.1), L2Ball(0.5)))
        >>> attack = union_pgd(ball, steps=5, initialization="none")
        >>> x, y = tf.fill([1, 100], 0.5), tf.constant([0])
        >>> x_adv = attack(lambda x: {"logits": x[:, :2]}, x, y)  # two pixels decide: L2
        >>> ball.distances(x_adv, x).numpy().round(2).tolist()
        [[3.5399999618530273], [1.0]]

    Reference: Tramer and Boneh, "Adversarial Training and Robustness for Multiple Perturbations"
    (2019): max and average; Maini et al., "Adversarial Robustness Against the Union of Multiple
    Perturbation Models" (2020), Algorithm 1: MSD.

    Differs: the average is that of random draws, where Tramer and Boneh train on an image in every
    ball; steps are the same fraction of each radius, where Maini et al. choose each.
    """
    plain = pgd(ball, steps, step_size, loss=loss, targeted=targeted, initialization=initialization)
    return as_union(plain, strategy)


def as_union(attack: Attack | None, strategy: str) -> UnionPGD:
    """PGD, as a strategy in its union of balls.

    Args:
        attack: an attack with fixed steps; its ball is the union, its step size a fraction.
        strategy: as for `union_pgd`.

    Raises:
        ValueError: another attack or strategy.
    """
    rule = getattr(attack, "step_rule", None)
    if not isinstance(attack, (GradientAttack, UnionPGD)) or not isinstance(rule, FixedStep):
        raise ValueError(
            f"The attack {getattr(attack, 'name', attack)} does not take fixed steps along one "
            "gradient; expected one such as `keras_robust.attacks.pgd(ball)`."
        )
    return UnionPGD(
        attack.ball, attack.objective, rule, attack.steps, attack.initialization, strategy
    )
