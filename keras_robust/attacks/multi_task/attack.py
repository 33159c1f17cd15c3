"""One perturbation for many goals at once: TA-MOO, and what it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.gradient_ascent import AscentResult, gradient_ascent, rescaled
from keras_robust.attacks.crafting.initialization import AtInput, Uniform
from keras_robust.attacks.crafting.inputs import as_seed, check_batch
from keras_robust.attacks.crafting.objectives import refuse_targets
from keras_robust.attacks.crafting.step_rules import FixedStep, default_step_size
from keras_robust.attacks.multi_task import tasks as kinds
from keras_robust.attacks.multi_task.combined_gradient import (
    CombinedGradient,
    RecordingOracle,
    Weighed,
)
from keras_robust.attacks.multi_task.solvers import solver as solver_called
from keras_robust.attacks.multi_task.tasks.problem import Problem
from keras_robust.core.classifier import as_forward
from keras_robust.core.config import serializable
from keras_robust.core.types import (
    Ball,
    Forward,
    Images,
    Labels,
    Logits,
    PerExample,
    Seed,
    StepRule,
)
from keras_robust.core.validation import check_integer
from keras_robust.losses import classification as losses

_KAPPA = 50.0  # by how far a wrong class is to be ahead; what CW's loss is lifted by here

# `(logits, labels, clean) -> [rows]`; `clean` gives the logits of clean images.
_LOSSES: dict[str, Callable[[Logits, Labels, Callable[[], Logits]], PerExample]] = {
    "cross_entropy": lambda logits, y, _: losses.cross_entropy(logits, y),
    "kl": lambda logits, _, clean: losses.kl_divergence(clean(), logits),
    "margin": lambda logits, y, _: tf.nn.relu(losses.margin(logits, y) + _KAPPA),
}
_GOALS = ("label", "prediction")


class Trace(NamedTuple):
    """What happened in an attack on many tasks, step by step.

    A row `t` of `losses` and `achieved` is of the point after `t` steps, so that the last one is of
    the result; a row of `weights` is of the step taken from there.

    Attributes:
        images: the perturbed images, `[batch, ...]`.
        weights: `[steps, tasks, batch]`; of groups in the place of images where they share a
            perturbation.
        losses: `[steps + 1, tasks, batch]`.
        achieved: which goals are, `[steps + 1, tasks, batch]`.
    """

    images: Images
    weights: tf.Tensor
    losses: tf.Tensor
    achieved: tf.Tensor


@serializable
class MultiTask(Attack):
    """An ascent of many tasks, whose gradients a solver weighs before each step.

    Args:
        ball: the threat model.
        tasks: of `keras_robust.tasks`.
        solver: of `keras_robust.solvers`.
        rule: how the combined gradient moves the point.
        steps: the number of steps, >= 0.
        loss: `"cross_entropy"`, `"kl"` or `"margin"`; `multi_task` tells them.
        achieved: `"label"`, `"prediction"`, or None for what is usual with the tasks.
        start: where to begin.
        name: what reports call it.

    Raises:
        ValueError: a negative number of steps, another loss, another goal; or, when called,
            targets.
    """

    ball: Any
    tasks: Any
    solver: Any
    rule: Any
    steps: int
    loss: str = "cross_entropy"
    achieved: str | None = None
    start: Any = Uniform()
    name: str = "multi-task"

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)
        if self.loss not in _LOSSES:
            raise ValueError(
                f"loss is {self.loss!r}; expected one of {', '.join(sorted(_LOSSES))}."
            )
        if self.achieved is not None and self.achieved not in _GOALS:
            raise ValueError(
                f"achieved is {self.achieved!r}; expected 'label' (the prediction is not the "
                "label), 'prediction' (it is not that of the clean image), or None."
            )

    @property
    def gradient_steps(self) -> int:
        """The number of steps."""
        return self.steps

    @property
    def is_random(self) -> bool:
        """Whether it starts at random, or the tasks draw from the seed."""
        return not isinstance(self.start, AtInput) or self.tasks.stochastic

    @property
    def step_rule(self) -> StepRule:
        """How the combined gradient moves the point."""
        return self.rule

    @property
    def task_kind(self) -> Any:
        """The tasks."""
        return self.tasks

    @property
    def success_criterion(self) -> str | None:
        """When a task counts as achieved; None for the tasks' own criterion."""
        return self.achieved

    @property
    def can_trace(self) -> bool:
        """`trace` records the weights, losses and successes of each step."""
        return True

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Starts near the images and climbs."""
        refuse_targets(self.name, targets)
        problem = self.tasks.on(forward, self.ball, x, y)
        evaluate = self._evaluated(problem, seed)
        climb = CombinedGradient(evaluate, self.solver, problem.count)
        return problem.images(self._ascended(problem, climb, seed).x)

    def trace(self, model: Any, x: Images, y: Labels, *, seed: Seed = 0) -> Trace:
        """The attack with what happened in each of its steps.

        Args:
            model: as for a call.
            x: clean images `[batch, ...]`.
            y: true labels `[batch]`.
            seed: as for a call.

        Returns:
            The images that a call gives, and weights, losses and goals of each step. Of stochastic
            transformations the last row has a strength of its own.

        Raises:
            TypeError, ValueError: as for a call.

        Example:
            >>> import keras_robust as kr
            >>> ensemble = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(2)])
            >>> x, y = tf.fill([5, 2, 2, 1], 0.5), tf.zeros([5], tf.int32)
            >>> trace = multi_task(kr.LinfBall(0.1), steps=3).trace(ensemble, x, y)
            >>> trace.weights.shape.as_list(), trace.losses.shape.as_list()
            ([3, 2, 5], [4, 2, 5])
        """
        x, y, _ = check_batch(x, y, None, self.ball.bounds)
        numbers = as_seed(seed)
        problem = self.tasks.on(as_forward(model), self.ball, x, y)
        evaluate = self._evaluated(problem, numbers)
        climb = CombinedGradient(evaluate, self.solver, problem.count)
        end = self._ascended(problem, RecordingOracle(climb, self.steps), numbers)
        pages: Weighed = end.climb[1]
        copies = tf.broadcast_to(end.x, tf.concat([[problem.count], tf.shape(end.x)], axis=0))
        values, achieved = evaluate(copies, tf.constant(self.steps))
        last = (tf.cast(values, pages.values.dtype), achieved)
        rows = [
            tf.concat([page, tf.stop_gradient(row)[None]], axis=0)
            for page, row in zip(pages[1:], last, strict=True)
        ]
        return Trace(problem.images(end.x), pages.weights, *rows)

    def at_radius(self, radius: Any, step_size: Any = None) -> MultiTask:
        """The same attack in a ball of another radius; by default the step grows with it."""
        return rescaled(self, radius, step_size)

    def _ascended(self, problem: Problem, climb: Any, seed: tf.Tensor) -> AscentResult:
        x_start = self.start(problem.ball, problem.centre, seed)
        return gradient_ascent(problem.ball, self.rule, climb, problem.centre, x_start, self.steps)

    def _evaluated(self, problem: Problem, seed: tf.Tensor) -> Callable:
        """`(copies, step) -> values, achieved` of each task."""
        goal = self.achieved or self.tasks.goal
        clean: Any = None
        if goal == "prediction" or self.loss == "kl":
            clean = tf.stop_gradient(_rows(problem.clean()))
        y = tf.reshape(problem.labels, [-1])
        unwanted = y if goal == "label" else tf.argmax(clean, axis=1, output_type=y.dtype)

        def evaluate(copies: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # The start has drawn from the seed itself.
            logits = problem.logits(
                copies, tf.random.experimental.stateless_fold_in(seed, step + 1)
            )
            shape = tf.shape(logits)[:2]
            rows = _rows(logits)
            values = _LOSSES[self.loss](rows, y, lambda: clean)
            fooled = tf.not_equal(tf.argmax(rows, axis=1, output_type=y.dtype), unwanted)
            return tf.reshape(values, shape), tf.reshape(fooled, shape)

        return evaluate


def _rows(logits: Logits) -> Logits:
    return tf.reshape(logits, [-1, logits.shape[-1]])


def multi_task(
    ball: Ball,
    steps: int = 100,
    step_size: float | None = None,
    *,
    tasks: str | Any = "members",
    solver: str | Any = "task_oriented",
    loss: str = "cross_entropy",
    achieved: str | None = None,
) -> MultiTask:
    """One perturbation that is to achieve many goals: fool all members, images or transformations.

    Each step takes the gradients of all tasks, from one backward pass; a solver weighs them, for
    each image on its own, and the point moves along their sum. A single task has the weight 1, and
    the attack is PGD.

    Args:
        ball: the threat model.
        steps: how many steps.
        step_size: the length of a step in the units of the images; default `2.5 radius / steps`.
        tasks: `"members"` of an ensemble; `"universal"`, one perturbation for the images of a
            batch, or `keras_robust.tasks.Universal(group=8)` for those of a group; or
            `keras_robust.tasks.Transformations((f, g, ...))` of an image.
        solver: `"uniform"`, `"min_max"`, `"min_norm"` (MOO), `"task_oriented"` (TA-MOO),
            `"pcgrad"`, `"cagrad"` or `"hvm"`; or one of `keras_robust.solvers` with settings.
        loss: of each task: `"cross_entropy"`; `"kl"`, from the clean prediction; or `"margin"`
            (Carlini-Wagner), `relu(max_(k != y) z_k - z_y + 50)`.
        achieved: a task's goal is a prediction that differs from the `"label"`, or from the clean
            `"prediction"`; default the label for members, the prediction for the others.

    Returns:
        The attack; its `trace(model, x, y)` tells what happened in each step.

    Raises:
        TypeError: a ball, tasks or a solver that are none.
        ValueError: an unknown name, a step size that is not positive, negative steps; or, when
            called, no ensemble, a group that does not divide the batch, tasks with outputs of
            different shapes.

    Example:
        >>> import keras_robust as kr
        >>> attack = multi_task(kr.LinfBall(8 / 255), steps=100, step_size=2 / 255)
        >>> attack.name
        'multi-task-100, task_oriented, members'

    Reference: Bui et al., "Generating Adversarial Examples with Task Oriented Multi-Objective
    Optimization" (2023), Algorithm 1.

    Differs: the start is uniform in the ball, as the paper's; its released code starts on the
    positive side for some solvers. The released margin raises no wrong class; this one does.
    """
    posed, weighing = kinds.tasks_called(tasks), solver_called(solver)
    names = [part if isinstance(part, str) else type(part).__name__ for part in (solver, tasks)]
    rule = FixedStep(default_step_size(ball, steps, step_size))
    name = f"multi-task-{steps}, {', '.join(names)}"
    return MultiTask(ball, posed, weighing, rule, steps, loss, achieved, name=name)
