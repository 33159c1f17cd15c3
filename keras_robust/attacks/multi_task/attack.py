"""Multi-task attacks: one perturbation for several tasks at once (TA-MOO and its baselines)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.gradient_ascent import (
    AscentResult,
    GradientOracle,
    gradient_ascent,
    rescale,
)
from keras_robust.attacks.crafting.initialization import AtInput, Uniform
from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.attacks.crafting.objectives import refuse_targets, require_targets
from keras_robust.attacks.crafting.step_rules import FixedStep, default_step_size
from keras_robust.attacks.multi_task import solvers
from keras_robust.attacks.multi_task import tasks as task_kinds
from keras_robust.attacks.multi_task.combined_gradient import CombinedGradient, Evaluate
from keras_robust.attacks.multi_task.tasks.problem import Problem, TaskKind
from keras_robust.attacks.multi_task.trace import RecordingOracle, Records, Trace
from keras_robust.core import random
from keras_robust.core.classifier import as_forward
from keras_robust.core.config import serializable
from keras_robust.core.numerics import pixel_range
from keras_robust.core.types import (
    Ball,
    Forward,
    Images,
    Initialization,
    Labels,
    Logits,
    PerExample,
    Radius,
    Scalar,
    Seed,
    Solver,
    StepRule,
)
from keras_robust.core.validation import check_choice, check_integer
from keras_robust.losses import classification as losses

_KAPPA = 50.0  # the lead of a wrong class at which CW's loss saturates

# `(logits, labels, clean) -> [rows]`; `clean` returns the logits of clean images.
_LOSSES: dict[str, Callable[[Logits, Labels, Callable[[], Logits]], PerExample]] = {
    "cross_entropy": lambda logits, y, _: losses.cross_entropy(logits, y),
    "kl": lambda logits, _, clean: losses.kl_divergence(clean(), logits),
    "margin": lambda logits, y, _: tf.nn.relu(losses.margin(logits, y) + _KAPPA),
}
# The same for targets in the place of labels.
_TARGETED: dict[str, Callable[[Logits, Labels, Callable[[], Logits]], PerExample]] = {
    "cross_entropy": lambda logits, t, _: -losses.cross_entropy(logits, t),
    "margin": lambda logits, t, _: tf.nn.relu(losses.targeted_margin(logits, t, t) + _KAPPA),
}
TARGET = "target"
_CRITERIA = ("label", "prediction", TARGET)


@serializable
class MultiTask(Attack):
    """Gradient ascent on several tasks, whose gradients a solver weighs before each step.

    Args:
        ball, steps, loss: as for `multi_task`.
        tasks: one of `keras_robust.tasks`.
        solver: one of `keras_robust.solvers`.
        step_rule: how the combined gradient moves the point.
        success_criterion: as for `multi_task`, or `"target"` for a targeted attack.
        initialization: where to start.
        name: what reports call the attack.
        memory: as for `multi_task`.

    Raises:
        ValueError: negative steps, an unknown loss or criterion, a targeted attack with the loss
            `"kl"`; when called, missing or unexpected targets.
    """

    ball: Ball
    tasks: TaskKind
    solver: Solver
    step_rule: StepRule = dataclasses.field()  # without a default, which `Attack` has
    steps: int
    loss: str = "cross_entropy"
    success_criterion: str | None = None
    initialization: Initialization = Uniform()
    name: str = "multi-task"
    memory: bool = True

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)
        check_choice("loss", self.loss, _LOSSES)
        if self.success_criterion is not None:
            check_choice("success_criterion", self.success_criterion, _CRITERIA)
        if not self.takes_targets:
            return
        if self.loss not in _TARGETED:
            raise ValueError(f"loss is {self.loss!r}, which uses no labels and has no targets.")
        if self.loss == "cross_entropy" and isinstance(self.solver, solvers.HVM):
            raise ValueError(
                "The solver HVM needs values >= 0, but minus the cross-entropy of a target is "
                "negative; expected loss='margin' or another solver."
            )

    @property
    def gradient_steps(self) -> int:
        """The number of steps."""
        return self.steps

    @property
    def is_random(self) -> bool:
        """Whether it starts at random, or the tasks draw from the seed."""
        return not isinstance(self.initialization, AtInput) or self.tasks.stochastic

    @property
    def takes_targets(self) -> bool:
        """Whether it moves toward given classes."""
        return self.success_criterion == TARGET

    @property
    def task_kind(self) -> TaskKind:
        """The tasks."""
        return self.tasks

    @property
    def can_trace(self) -> bool:
        """`trace` records the weights, losses and successes of each step."""
        return True

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Starts near the images and ascends."""
        problem, evaluate = self._posed(forward, x, y, seed, targets)
        oracle = self._combined(problem, evaluate)
        return problem.images(self._ascend(problem, oracle, seed).x)

    def trace(
        self,
        model: keras.Model | Forward,
        x: Images,
        y: Labels,
        *,
        seed: Seed = 0,
        targets: Labels | None = None,
    ) -> Trace:
        """Runs the attack and records each of its steps.

        Args:
            model, x, y, seed, targets: as for a call.

        Returns:
            The images that a call returns, and weights, losses, successes and gradient norms of
            each step. With stochastic transformations the last row has a strength of its own.

        Example:
            >>> import keras_robust as kr
            >>> ensemble = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(2)])
            >>> x, y = tf.fill([5, 2, 2, 1], 0.5), tf.zeros([5], tf.int32)
            >>> trace = multi_task(kr.LinfBall(0.1), steps=3).trace(ensemble, x, y)
            >>> trace.weights.shape.as_list(), trace.losses.shape.as_list()
            ([3, 2, 5], [4, 2, 5])
        """
        x, y, targets = self._checked(model, x, y, targets)
        numbers = as_seed(seed)
        problem, evaluate = self._posed(as_forward(model), x, y, numbers, targets)
        oracle = self._combined(problem, evaluate)
        end = self._ascend(problem, RecordingOracle(oracle, self.steps), numbers)
        records: Records = end.oracle_state[1]
        copies = tf.broadcast_to(end.x, tf.concat([[problem.num_tasks], tf.shape(end.x)], axis=0))
        values, achieved = evaluate(copies, tf.constant(self.steps))
        values = tf.stop_gradient(tf.cast(values, records.values.dtype))
        return Trace(
            problem.images(end.x),
            records.weights,
            tf.concat([records.values, values[None]], axis=0),
            tf.concat([records.achieved, achieved[None]], axis=0),
            records.gradient_norms,
            records.combined_norms,
        )

    def at_radius(self, radius: Radius, step_size: Scalar | None = None) -> MultiTask:
        """The same attack in a ball of another radius; by default the step grows with it."""
        return rescale(self, radius, step_size)

    def _combined(self, problem: Problem, evaluate: Evaluate) -> CombinedGradient:
        width = pixel_range(self.ball.bounds)
        return CombinedGradient(
            evaluate, self.solver, problem.num_tasks, problem.ball, width, self.memory
        )

    def _ascend(self, problem: Problem, oracle: GradientOracle, seed: tf.Tensor) -> AscentResult:
        x_start = self.initialization(problem.ball, problem.center, seed)
        return gradient_ascent(
            problem.ball, self.step_rule, oracle, problem.center, x_start, self.steps
        )

    def _posed(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> tuple[Problem, Evaluate]:
        """The tasks, and `(copies, step) -> values, achieved` of each task."""
        problem = self.tasks.on(forward, self.ball, x, y)
        if not self.takes_targets:
            refuse_targets(self.name, targets)
            return problem, self._evaluation(problem, seed)
        aimed = self.tasks.on(forward, self.ball, x, require_targets(targets))
        goals = tf.reshape(aimed.labels, [-1])
        return problem, self._evaluation(problem, seed, goals)

    def _evaluation(
        self, problem: Problem, seed: tf.Tensor, targets: Labels | None = None
    ) -> Evaluate:
        criterion = self.success_criterion or self.tasks.success_criterion
        clean: Any = None
        if criterion == "prediction" or self.loss == "kl":
            clean = tf.stop_gradient(_rows(problem.clean()))
        y = tf.reshape(problem.labels, [-1]) if targets is None else targets
        original = tf.argmax(clean, axis=1, output_type=y.dtype) if criterion == "prediction" else y
        loss = (_LOSSES if targets is None else _TARGETED)[self.loss]
        succeeds = tf.not_equal if targets is None else tf.equal

        def evaluate(copies: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # Step 0 is left to the initialization, which draws from the seed itself.
            logits = problem.logits(copies, random.fold_in(seed, step + 1))
            shape = tf.shape(logits)[:2]
            rows = _rows(logits)
            values = loss(rows, y, lambda: clean)
            achieved = succeeds(tf.argmax(rows, axis=1, output_type=y.dtype), original)
            return tf.reshape(values, shape), tf.reshape(achieved, shape)

        return evaluate


def _rows(logits: Logits) -> Logits:
    return tf.reshape(logits, [-1, logits.shape[-1]])


def multi_task(
    ball: Ball,
    steps: int = 100,
    step_size: float | None = None,
    *,
    tasks: str | TaskKind = "members",
    solver: str | Solver = "task_oriented",
    loss: str = "cross_entropy",
    success_criterion: str | None = None,
    targeted: bool = False,
    memory: bool = True,
) -> MultiTask:
    """One perturbation for several tasks: all members, images or transformations (TA-MOO).

    Each step takes the gradients of all tasks from one backward pass; a solver weighs them for each
    image separately, and the point moves along their sum. With a single task it is PGD.

    Args:
        ball: the threat model.
        steps: the number of steps.
        step_size: the length of a step in the units of the images; default `2.5 radius / steps`.
        tasks: `"members"` of an ensemble; `"universal"`, one perturbation for the images of a
            batch, or `keras_robust.tasks.Universal(group=8)` for those of a group; or
            `keras_robust.tasks.Transformations((f, g, ...))` of an image.
        solver: `"uniform"`, `"min_max"`, `"min_norm"` (MOO), `"task_oriented"` (TA-MOO),
            `"pcgrad"`, `"cagrad"` or `"hvm"`; or one of `keras_robust.solvers` with settings.
        loss: the loss of each task: `"cross_entropy"`; `"kl"`, from the clean prediction; or
            `"margin"` (Carlini-Wagner), `relu(max_(k != y) z_k - z_y + 50)`.
        success_criterion: a task is achieved if the prediction differs from the `"label"`, or from
            the clean `"prediction"`; default the label for members, the prediction for the others.
        targeted: whether to move toward given classes, with the loss `"cross_entropy"` or
            `"margin"`, `relu(z_t - max_(k != t) z_k + 50)`; a task is achieved if it predicts the
            target. A call then needs `targets`.
        memory: whether a task's gradient that is not finite, of a gamma correction for example, is
            replaced by its last finite one; else its entries that are not finite count as 0.

    Returns:
        The attack; its `trace(model, x, y)` records each step.

    Raises:
        TypeError: invalid `ball`, `tasks` or `solver`.
        ValueError: an unknown name, a step size <= 0, negative steps, another criterion of a
            targeted attack; when called, missing or unexpected targets, a model that is not an
            ensemble, a group that does not divide the batch, tasks with outputs of different
            shapes.

    Example:
        >>> import keras_robust as kr
        >>> attack = multi_task(kr.LinfBall(8 / 255), steps=100, step_size=2 / 255)
        >>> attack.name
        'multi-task-100, task_oriented, members'

    Reference: Bui et al., "Generating Adversarial Examples with Task Oriented Multi-Objective
    Optimization" (2023), Algorithm 1; targeted, Appendix D.8; the memory, Appendix D.4.

    Differs: the start is uniform in the ball, as in the paper; the released code starts on the
    positive side for some solvers. The released margin raises no wrong class; this one does. The
    released targeted attack counts a task as achieved if it does not predict the target.
    """
    if targeted:
        if success_criterion not in (None, TARGET):
            raise ValueError(
                f"success_criterion is {success_criterion!r} of a targeted attack, whose tasks are "
                "achieved at the target; leave it out."
            )
        success_criterion = TARGET
    names = [part if isinstance(part, str) else type(part).__name__ for part in (solver, tasks)]
    return MultiTask(
        ball,
        task_kinds.get(tasks),
        solvers.get(solver),
        FixedStep(default_step_size(ball, steps, step_size)),
        steps,
        loss,
        success_criterion,
        name=f"{'targeted ' if targeted else ''}multi-task-{steps}, {', '.join(names)}",
        memory=memory,
    )
