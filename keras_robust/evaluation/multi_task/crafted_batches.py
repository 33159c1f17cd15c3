"""The pass over the data of attacks on many tasks: batches of one size, and of whole groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack, check_attack
from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.attacks.multi_task import tasks as kinds
from keras_robust.core.classifier import classifier_of, members_of
from keras_robust.core.types import Forward, Images, Labels
from keras_robust.evaluation import attack_runner, batching

Progress = Callable[[str], None]


class CraftedBatch(NamedTuple):
    """A batch, and what an attack made of it.

    Attributes:
        x: images `[batch, ...]`.
        y: labels `[batch]`.
        made: what the attack returned: perturbed images, or more.
        real: how many of the images are no filling.
        seed: of this batch.
    """

    x: Images
    y: Labels
    made: Any
    real: int
    seed: tf.Tensor


class TaskRunner:
    """The images of an evaluation; where tasks are images of a group, groups drawn at random.

    Args:
        model: a robust model, a classifier, or a function.
        data: as for an evaluation.
        attack: one that gives a single batch.
        limit: use only the first so many images.
        seed: of the attack, and of the groups.
        kind: of tasks; None where nobody asks for any.

    Raises:
        TypeError: what is no attack.
        ValueError: no data, an attack per member, fewer images than a group has.
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        attack: Attack,
        limit: int | None,
        seed: int,
        kind: Any = None,
    ):
        check_attack("attack", attack)
        if attack.per_member:
            raise ValueError(
                f"The attack is {attack.name}; expected one that makes a single batch."
            )
        self.model, self.attack, self.seed = classifier_of(model), attack, seed
        x, y, size = batching.arrays(data, limit)
        self.x, self.y, self.size = in_groups(self.model, x, y, size, attack, kind, seed)

    def crafted(
        self, progress: Progress | None, craft: Callable[..., Any] | None = None
    ) -> Iterator[CraftedBatch]:
        """Attacks batch by batch.

        Args:
            progress: called with a line of text after each batch.
            craft: `(x, y, seed)` to perturbed images, alone or first of several tensors; default
                the attack.

        Yields:
            The batches.

        Raises:
            ValueError: the attack left its ball.
        """
        craft = craft or self.attack.compiled(self.model)
        done = 0
        for number, (rows, real) in enumerate(batching.rows_in_batches(len(self.x), self.size)):
            x, y = tf.constant(self.x[rows]), tf.constant(self.y[rows])
            seed = as_seed((self.seed, number))
            made = craft(x, y, seed)
            attack_runner.check_within_threat_model(
                self.attack.name, self.attack, None, x, tf.nest.flatten(made)[0]
            )
            yield CraftedBatch(x, y, made, real, seed)
            done += real
            if progress:
                progress(f"{self.attack.name}: {done} of {len(self.x)} images")


def in_groups(
    model: Any, x: Images, y: Labels, size: int, attack: Attack, kind: Any, seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """The images that can be attacked, for batches that are whole groups where there are groups.

    Where the goal is another prediction than that of the clean image, images that the model gets
    wrong are left out: an attack climbs away from the label, and would never reach it.

    Args:
        model: a classifier, or a function.
        x: images `[n, ...]`.
        y: labels `[n]`.
        size: of a batch.
        attack: the attack, which may have a goal of its own.
        kind: of tasks, or None; without any everything stays as it is.
        seed: of the order that the images are put into, which decides who is with whom.

    Returns:
        Images and labels without those that cannot be attacked or fill no group, and the size of a
        batch of whole groups.

    Raises:
        ValueError: no image that the model gets right, or fewer than a group has.
    """
    x, y = np.asarray(x), np.asarray(y)
    given = len(x)
    if kind is not None and goal_of(attack, kind) == "prediction":
        logits = attack_runner.logits_of(attack_runner.compiled_forward(model), x, min(size, given))
        right = attack_runner.is_correct(logits, y)
        x, y = x[right], y[right]
    if not len(x):
        raise ValueError(f"The model gets none of the {given} images right; there is no goal left.")
    size = min(size, len(x))
    if not isinstance(kind, kinds.Universal):
        return x, y, size
    group = kind.group or size
    if group > len(x):
        raise ValueError(f"There are {len(x)} images to attack; expected a group of {group}.")
    order = np.random.default_rng(seed).permutation(len(x))[: len(x) // group * group]
    return x[order], y[order], max(size // group, 1) * group


def goal_of(attack: Attack, kind: Any) -> str:
    """What a task's goal is: of the attack, if it has one, else of the tasks."""
    return attack.success_criterion or kind.success_criterion


def kind_of(attack: Attack, tasks: str | Any | None) -> Any:
    """The tasks that were asked for; else those of the attack, or members if it has none."""
    check_attack("attack", attack)
    return kinds.get(attack.task_kind or "members" if tasks is None else tasks)


def copied(kind: Any, forward: Forward, ball: Any, x: Images, y: Labels) -> tuple[Any, tf.Tensor]:
    """Tasks on images, and the copies of the points that they see.

    Args:
        kind: of `keras_robust.tasks`.
        forward: the model.
        ball: around the images.
        x: images `[batch, ...]`.
        y: labels `[batch]`.

    Returns:
        The problem, and `[tasks, points, ...]`, all alike and without a perturbation.
    """
    problem = kind.on(forward, ball, x, y)
    shape = tf.concat([[problem.num_tasks], tf.shape(problem.center)], axis=0)
    copies = tf.broadcast_to(problem.center, shape)
    known = problem.num_tasks if isinstance(problem.num_tasks, int) else None
    copies.set_shape([known, *problem.center.shape])  # a loop over tasks needs their number
    return problem, copies


def names_of(kind: Any, model: Any, count: int) -> list[str]:
    """The names of so many tasks, as a table heads them.

    Example:
        >>> from keras_robust import transforms
        >>> names_of(kinds.Transformations(transforms.ALL[:2]), None, 2)
        ['identity', 'horizontal flip']
        >>> names_of(kinds.Universal(2), None, 2)
        ['image 1', 'image 2']
    """
    named: list[str] = []
    if isinstance(kind, kinds.Transformations):
        named = [getattr(f, "name", getattr(f, "__name__", "")) for f in kind.functions]
    elif isinstance(kind, kinds.Members):
        named = [getattr(member, "name", "") for member in members_of(model)]
    if len(set(named)) == count and all(named):
        return named
    word = {kinds.Universal: "image", kinds.Members: "member"}.get(type(kind), "task")
    return [f"{word} {i + 1}" for i in range(count)]
