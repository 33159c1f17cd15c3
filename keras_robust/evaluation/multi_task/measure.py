"""Looks which goals an attack achieves: on the tasks it was made for, and on other models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.core.classifier import as_forward, classifier_of
from keras_robust.core.types import Images, Labels, Logits
from keras_robust.evaluation import attack_runner, batching
from keras_robust.evaluation.multi_task.crafted_batches import (
    TaskRunner,
    copied,
    goal_of,
    kind_of,
    names_of,
)
from keras_robust.evaluation.multi_task.success_rates import TaskSuccess
from keras_robust.losses import classification as losses


def task_success(
    model: Any,
    data: Any,
    attack: Attack,
    *,
    tasks: str | Any | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> TaskSuccess:
    """Attacks images, and looks which goals are achieved on them.

    Of transformations with a strength that is drawn, another one is drawn for each batch.

    Args:
        model: a robust model, a classifier, or a function `images -> {"logits", ...}`; an ensemble
            where the tasks are its members.
        data: a `tf.data.Dataset` of batches `(images, labels)`, or a pair of arrays. Groups that
            share a perturbation are drawn from it at random; images that fill none are left out.
            So are those that the model gets wrong, where the goal is another prediction than the
            clean one: an attack climbs away from the label.
        attack: any attack, `keras_robust.attacks.multi_task` or one that knows of no tasks.
        tasks: whose goals are looked at: `"members"`, `"universal"`, or of `keras_robust.tasks`;
            default those of the attack, or the members if it has none.
        limit: use only the first so many images.
        seed: of the random starts, groups and strengths.
        progress: called with a line of text now and then, such as `print`.

    Returns:
        The shares of images, or groups, on which goals are achieved.

    Raises:
        TypeError: what is no attack, or no tasks.
        ValueError: no data, an attack per member, one that left its ball, a model without members,
            or fewer images than a group has.

    Example:
        >>> import keras_robust as kr
        >>> model = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(2)])
        >>> data = np.full([4, 2, 2, 1], 0.5, "float32"), [0, 1, 2, 0]
        >>> found = task_success(model, data, kr.attacks.multi_task(kr.LinfBall(0.1), steps=2))
        >>> found.names, found.points
        (('member_1', 'member_2'), 4)

    Reference: Bui et al. (2023), section 4, settings ENS, UNI and EoT.
    """
    images = TaskRunner(model, data, attack, limit, seed, kind_of(attack, tasks))
    made = [(b.x[: b.real], b.made[: b.real], b.y[: b.real]) for b in images.crafted(progress)]
    x, x_adv, y = (np.concatenate(part) for part in zip(*made, strict=True))
    return success_rates(model, x, x_adv, y, attack, tasks=tasks, batch=images.size, seed=seed)


def success_rates(
    model: Any,
    x: Images,
    x_adv: Images,
    y: Labels,
    attack: Attack,
    *,
    tasks: str | Any | None = None,
    batch: int = 128,
    seed: int = 0,
) -> TaskSuccess:
    """Looks which goals are achieved on images that were attacked before.

    Args:
        model: as for `task_success`.
        x: clean images `[n, ...]`; of groups that share a perturbation, one group after the other.
        x_adv: the same images, attacked.
        y: labels `[n]`.
        attack: what attacked them.
        tasks: as for `task_success`.
        batch: how many images are looked at together; a multiple of a group.
        seed: of strengths that are drawn.

    Returns:
        The shares of images, or groups, on which goals are achieved.

    Raises:
        TypeError: no tasks.
        ValueError: not as many attacked images or labels, a model without members, or images that
            are no whole groups.

    Example:
        >>> import keras_robust as kr
        >>> x, x_adv = np.array([[[0.6, 0.4], [0.9, 0.1]], [[0.4, 0.6], [0.7, 0.3]]], "float32")
        >>> attack = kr.attacks.multi_task(kr.LinfBall(0.2), tasks="universal")
        >>> success_rates(lambda x: {"logits": x}, x, x_adv, [0, 0], attack).each
        (1.0, 0.0)
    """
    x, x_adv, y = (np.asarray(part) for part in (x, x_adv, y))
    if not len(x) == len(x_adv) == len(y) > 0:
        raise ValueError(
            f"There are {len(x)} images, {len(x_adv)} attacked ones and {len(y)} labels; expected "
            "as many of each."
        )
    kind, model = kind_of(attack, tasks), classifier_of(model)
    look = tf.function(_looking(kind, model, attack), autograph=False)
    achieved, wrong = [], []
    for number, (rows, real) in enumerate(batching.rows_in_batches(len(x), min(batch, len(x)))):
        seen = look(*map(tf.constant, (x[rows], x_adv[rows], y[rows])), as_seed((seed, number)))
        logits, unwanted, whole = (tensor.numpy() for tensor in seen)
        found = ~attack_runner.is_correct(logits, unwanted)
        achieved.append(found[:, : real * found.shape[1] // len(rows)])
        wrong.append(~attack_runner.is_correct(whole, y[rows])[:real])
    every = np.concatenate(achieved, axis=1)
    return TaskSuccess.of(
        every, names_of(kind, model, len(every)), float(np.concatenate(wrong).mean())
    )


def transfer_success_rates(
    source: Any,
    models: Mapping[str, Any],
    ensembles: Mapping[str, Sequence[str]],
    data: Any,
    attack: Attack,
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, TaskSuccess]:
    """Crafts on one model, and looks which goals that achieves on ensembles of other models.

    Each model is asked once, whatever the number of ensembles it is part of.

    Args:
        source: what is attacked, as for `task_success`.
        models: name -> classifier, or function `images -> {"logits", ...}`.
        ensembles: name -> the names of the models that it is made of.
        data: a `tf.data.Dataset` of batches `(images, labels)`, or a pair of arrays.
        attack: the attack.
        limit: use only the first so many images.
        seed: of the random starts.
        progress: called with a line of text now and then, such as `print`.

    Returns:
        Name of an ensemble -> its goals: a task is to fool one of its members, the whole is the
        mean of their probabilities.

    Raises:
        TypeError: what is no attack.
        ValueError: no ensembles, one of unknown models, no data, an attack per member, or one that
            left its ball.

    Example:
        >>> import keras_robust as kr
        >>> models = {"right": lambda x: {"logits": x}, "left": lambda x: {"logits": -x}}
        >>> data = np.array([[0.6, 0.4]], "float32"), [0]
        >>> attack = kr.attacks.fgsm(kr.LinfBall(0.2))
        >>> both = {"RL": ("right", "left")}
        >>> transfer_success_rates(models["right"], models, both, data, attack)["RL"].each
        (1.0, 0.0)

    Reference: Bui et al. (2023), Table 3.
    """
    unknown = {name for names in ensembles.values() for name in names} - set(models)
    if unknown or not ensembles or not all(ensembles.values()):
        raise ValueError(
            f"ensembles is {dict(ensembles)!r}; expected a name for the names of some of the "
            f"models {', '.join(models)}."
        )
    images = TaskRunner(source, data, attack, limit, seed)
    forwards = [as_forward(classifier_of(model)) for model in models.values()]
    ask = tf.function(lambda x: [forward(x)["logits"] for forward in forwards], autograph=False)
    logits, labels = [], []
    for batch in images.crafted(progress):
        logits.append(np.stack(ask(batch.made))[:, : batch.real])
        labels.append(batch.y.numpy()[: batch.real])
    said = dict(zip(models, np.concatenate(logits, axis=1), strict=True))
    y = np.concatenate(labels)
    return {
        name: _goals_of([said[member] for member in members], y, members)
        for name, members in ensembles.items()
    }


def _goals_of(logits: Sequence[np.ndarray], y: np.ndarray, names: Sequence[str]) -> TaskSuccess:
    """The goals of an ensemble, from what its members say."""
    wrong = ~attack_runner.is_correct(np.stack(logits), y)
    whole = losses.log_mean_probability(tf.stack(logits, axis=1)).numpy()
    return TaskSuccess.of(wrong, names, float((~attack_runner.is_correct(whole, y)).mean()))


def _looking(kind: Any, model: Any, attack: Attack) -> Callable:
    """`(x, x_adv, y, seed)` to each task's logits, what they are not to predict, the whole's."""
    forward = as_forward(model)
    goal = goal_of(attack, kind)

    def look(x: Images, x_adv: Images, y: Labels, seed: tf.Tensor) -> tuple[Logits, Labels, Logits]:
        problem, copies = copied(kind, forward, attack.ball, x_adv, y)
        clean = kind.on(forward, attack.ball, x, y)
        unwanted = clean.labels if goal == "label" else tf.argmax(clean.clean(), axis=-1)
        return problem.logits(copies, seed), unwanted, forward(x_adv)["logits"]

    return look
