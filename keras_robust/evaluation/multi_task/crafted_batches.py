"""Batches attacked for the evaluation of tasks: of one size, and of whole groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack, check_attack
from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.attacks.multi_task import tasks as kinds
from keras_robust.attacks.multi_task.tasks import Problem, TaskKind
from keras_robust.core.classifier import classifier_of, members_of
from keras_robust.core.kept_graphs import compiled_forward
from keras_robust.core.types import Ball, Forward, Images, Labels
from keras_robust.core.validation import check_choice
from keras_robust.evaluation.running import attack_runner, batching
from keras_robust.evaluation.running.batching import Data, Model, Progress

CRITERIA = ("label", "prediction")
POPULATIONS = ("all", "correct")


class CraftedBatch(NamedTuple):
    """A batch and its attacked version.

    Attributes:
        x: images `[batch, ...]`.
        y: labels `[batch]`.
        crafted: what the attack returned: perturbed images, or a tuple that begins with them.
        real: number of images that are not padding.
        seed: seed of this batch.
    """

    x: Images
    y: Labels
    crafted: Any
    real: int
    seed: tf.Tensor


class TaskRunner:
    """The images of an evaluation, which an attack perturbs batch by batch.

    Args:
        model, data, limit, seed: as for `keras_robust.evaluation.evaluate`.
        attack: an attack that returns a single batch.
        kind: tasks, which decide on groups and on images to leave out; None for neither.
        criterion, population: as for `in_groups`.

    Raises:
        TypeError: `attack` is not an `Attack`.
        ValueError: no data, an attack per member or a targeted one, or fewer images than a group
            needs.
    """

    def __init__(
        self,
        model: Model,
        data: Data,
        attack: Attack,
        limit: int | None,
        seed: int,
        kind: TaskKind | None = None,
        criterion: str | None = None,
        population: str | None = None,
    ):
        check_attack("attack", attack)
        if attack.takes_targets:
            raise ValueError(
                f"The attack {attack.name} is targeted; expected an untargeted one. Craft with "
                "targets of your own, and pass both to `keras_robust.evaluation.success_rates`."
            )
        if attack.per_member:
            raise ValueError(
                f"The attack {attack.name} returns one batch per member; expected a single batch."
            )
        self.model, self.attack, self.seed = classifier_of(model), attack, seed
        x, y, size = batching.arrays(data, limit)
        self.x, self.y, self.batch_size = in_groups(
            self.model, x, y, size, attack, kind, seed, criterion, population
        )

    def crafted(
        self, progress: Progress | None, craft: Callable[..., Any] | None = None
    ) -> Iterator[CraftedBatch]:
        """Attacks batch by batch.

        Args:
            progress: called with a line of text after each batch.
            craft: `(x, y, seed) -> perturbed images`, or a tuple that begins with them; default the
                attack.

        Raises:
            ValueError: the attack left its ball.
        """
        craft = craft or self.attack.compiled(self.model)
        done = 0
        for number, (rows, real) in enumerate(
            batching.rows_in_batches(len(self.x), self.batch_size)
        ):
            x, y = tf.constant(self.x[rows]), tf.constant(self.y[rows])
            seed = as_seed((self.seed, number))
            crafted = craft(x, y, seed)
            attack_runner.check_within_threat_model(
                self.attack.name, self.attack, None, x, tf.nest.flatten(crafted)[0]
            )
            yield CraftedBatch(x, y, crafted, real, seed)
            done += real
            if progress:
                progress(f"{self.attack.name}: {done} of {len(self.x)} images")

    def all_crafted(
        self, progress: Progress | None, craft: Callable[..., Any] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
        """Attacks all images.

        Args:
            progress, craft: as for `crafted`.

        Returns:
            Clean images, perturbed images, and labels; for each batch what follows the images in
            the tuple of `craft`, `[tasks, points]`.
        """
        parts, others = [], []
        for batch in self.crafted(progress, craft):
            x_adv, *rest = batch.crafted if isinstance(batch.crafted, tuple) else (batch.crafted,)
            parts.append((batch.x[: batch.real], x_adv[: batch.real], batch.y[: batch.real]))
            for one in rest:  # of points: images, or groups of them
                points = batch.real * one.shape[1] // len(batch.x)
                others.append(one.numpy()[:, :points])
        x, x_adv, y = (np.concatenate(part) for part in zip(*parts, strict=True))
        return x, x_adv, y, others


def in_groups(
    model: Model,
    x: Images,
    y: Labels,
    batch_size: int,
    attack: Attack,
    kind: TaskKind | None,
    seed: int,
    criterion: str | None = None,
    population: str | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """The images and labels to attack, and a batch size of whole groups if images form groups.

    By default, if success is a changed prediction, misclassified images are left out: an attack
    that moves away from the label could not succeed on them.

    Args:
        model: a classifier, or a function `images -> {"logits", ...}`.
        x, y: images `[n, ...]` and labels `[n]`.
        batch_size: the desired batch size.
        attack: the attack, which may have a success criterion of its own.
        kind: tasks; None leaves everything as it is.
        seed: seed of the random groups.
        criterion: `"label"` or `"prediction"`; default that of the attack and its tasks.
        population: `"all"` images or the `"correct"` ones, which the model classifies correctly.

    Raises:
        ValueError: an unknown criterion or population, no correctly classified image, or fewer
            images than a group needs.
    """
    x, y = np.asarray(x), np.asarray(y)
    given = len(x)
    if population is not None:
        check_choice("population", population, POPULATIONS)
    elif kind is not None and success_criterion(attack, kind, criterion) == "prediction":
        population = "correct"
    if population == "correct":
        forward = compiled_forward(model)
        logits = attack_runner.predict_logits(forward, x, min(batch_size, given))
        correct = attack_runner.is_correct(logits, y)
        x, y = x[correct], y[correct]
    if not len(x):
        raise ValueError(
            f"The model classifies none of the {given} images correctly; expected at least one "
            "whose prediction an attack can change."
        )
    batch_size = min(batch_size, len(x))
    if not isinstance(kind, kinds.Universal):
        return x, y, batch_size
    group = kind.group or batch_size
    if group > len(x):
        raise ValueError(f"There are {len(x)} images to attack; expected a group of {group}.")
    order = np.random.default_rng(seed).permutation(len(x))[: len(x) // group * group]
    return x[order], y[order], max(batch_size // group, 1) * group


def success_criterion(attack: Attack, kind: TaskKind, criterion: str | None = None) -> str:
    """When a task counts as achieved: `"label"`, `"prediction"` or `"target"`.

    Args:
        attack: a targeted attack has the target; a multi-task attack may have one of its own.
        kind: the tasks, whose criterion is the default.
        criterion: `"label"` or `"prediction"`, instead of the attack's own.

    Raises:
        ValueError: another criterion, or one with a targeted attack.
    """
    if criterion is not None:
        check_choice("success_criterion", criterion, CRITERIA)
    if attack.takes_targets:
        if criterion is not None:
            raise ValueError(
                f"success_criterion is {criterion!r} of the targeted attack {attack.name}, whose "
                "tasks are achieved at the target; leave it out."
            )
        return "target"
    return criterion or attack.success_criterion or kind.success_criterion


def task_kind(attack: Attack, tasks: str | TaskKind | None) -> TaskKind:
    """The given tasks; by default the attack's own, or members for an attack without tasks."""
    check_attack("attack", attack)
    return kinds.get(attack.task_kind or "members" if tasks is None else tasks)


def problem_on(
    kind: TaskKind, forward: Forward, ball: Ball, x: Images, y: Labels
) -> tuple[Problem, tf.Tensor]:
    """The problem of tasks on given images, and its unperturbed points, `[tasks, points, ...]`."""
    problem = kind.on(forward, ball, x, y)
    shape = tf.concat([[problem.num_tasks], tf.shape(problem.center)], axis=0)
    copies = tf.broadcast_to(problem.center, shape)
    static = problem.num_tasks if isinstance(problem.num_tasks, int) else None
    copies.set_shape([static, *problem.center.shape])  # a loop over tasks needs their number
    return problem, copies


def task_names(kind: TaskKind, model: Model, count: int) -> list[str]:
    """Names of the tasks, for tables.

    Example:
        >>> from keras_robust import transforms
        >>> task_names(kinds.Transformations(transforms.ALL[:2]), None, 2)
        ['identity', 'horizontal flip']
        >>> task_names(kinds.Universal(2), None, 2)
        ['image 1', 'image 2']
    """
    names: list[str] = []
    if isinstance(kind, kinds.Transformations):
        names = [getattr(f, "name", getattr(f, "__name__", "")) for f in kind.functions]
    elif isinstance(kind, kinds.Members):
        names = [getattr(member, "name", "") for member in members_of(model)]
    if len(set(names)) == count and all(names):
        return names
    word = {kinds.Universal: "image", kinds.Members: "member"}.get(type(kind), "task")
    return [f"{word} {i + 1}" for i in range(count)]
