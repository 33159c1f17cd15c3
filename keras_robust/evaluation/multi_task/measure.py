"""Measures per-task and joint success rates (A-Avg, A-All) of an attack or of given images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.attacks.multi_task.tasks import TaskKind
from keras_robust.core.classifier import as_forward, classifier_of
from keras_robust.core.graphs import compiled
from keras_robust.core.labels import class_numbers
from keras_robust.core.types import Ball, Images, Labels, Logits
from keras_robust.evaluation.multi_task.crafted_batches import (
    TaskRunner,
    problem_on,
    task_kind,
    task_names,
)
from keras_robust.evaluation.multi_task.crafted_batches import (
    success_criterion as resolved_criterion,
)
from keras_robust.evaluation.multi_task.success_rates import TaskSuccess
from keras_robust.evaluation.running import attack_runner, batching
from keras_robust.evaluation.running.batching import Data, Model, Progress
from keras_robust.losses import classification as losses


def task_success(
    model: Model,
    data: Data,
    attack: Attack,
    *,
    tasks: str | TaskKind | None = None,
    success_criterion: str | None = None,
    population: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> TaskSuccess:
    """Attacks images, and measures per-task and joint success rates (A-Avg, A-All).

    Images that share a perturbation are grouped at random, and those that fill no group are left
    out.

    Args:
        model, data, limit, seed, progress: as for `keras_robust.evaluation.evaluate`; an ensemble
            as model if the tasks are its members.
        attack: any attack, not only `keras_robust.attacks.multi_task`.
        tasks: `"members"`, `"universal"`, or tasks of `keras_robust.tasks`; default those of the
            attack, or the members if it has none. A random strength of transformations is drawn
            once per batch.
        success_criterion: a task is achieved if the prediction differs from the `"label"`, or from
            the clean `"prediction"`; default that of the attack and its tasks.
        population: `"all"` images, or the `"correct"` ones, which the model classifies correctly;
            default the correct ones if success is a changed prediction.

    Returns:
        The success rates.

    Raises:
        TypeError: not an attack, or not tasks.
        ValueError: no data, an attack per member or a targeted one, one that left its ball, a model
            without members, fewer images than a group needs, or an unknown criterion or population.

    Example:
        >>> import keras_robust as kr
        >>> model = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(2)])
        >>> data = np.full([4, 2, 2, 1], 0.5, "float32"), [0, 1, 2, 0]
        >>> found = task_success(model, data, kr.attacks.multi_task(kr.LinfBall(0.1), steps=2))
        >>> found.names, found.num_points
        (('member_1', 'member_2'), 4)

    Reference: Bui et al. (2023), section 4, settings ENS, UNI and EoT.
    """
    kind = task_kind(attack, tasks)
    runner = TaskRunner(model, data, attack, limit, seed, kind, success_criterion, population)
    x, x_adv, y, _ = runner.all_crafted(progress)
    return success_rates(
        model,
        x,
        x_adv,
        y,
        attack,
        tasks=kind,
        success_criterion=success_criterion,
        batch_size=runner.batch_size,
        seed=seed,
    )


def success_rates(
    model: Model,
    x: Images,
    x_adv: Images,
    y: Labels,
    attack: Attack,
    *,
    tasks: str | TaskKind | None = None,
    success_criterion: str | None = None,
    targets: Labels | None = None,
    batch_size: int = 128,
    seed: int = 0,
) -> TaskSuccess:
    """Measures per-task and joint success rates of given adversarial images.

    Args:
        model, tasks, success_criterion: as for `task_success`.
        x, x_adv: clean and attacked images `[n, ...]`; images that share a perturbation follow each
            other.
        y: labels `[n]`.
        attack: the attack that crafted them.
        targets: of a targeted attack, the targets `[n]`; a task is achieved if it predicts them.
        batch_size: number of images evaluated at once; a multiple of the group size.
        seed: seed of random strengths.

    Returns:
        The success rates.

    Raises:
        TypeError: not tasks.
        ValueError: different numbers of images, attacked images and labels, a model without
            members, images that do not form whole groups, an unknown criterion, or missing targets.

    Example:
        >>> import keras_robust as kr
        >>> x, x_adv = np.array([[[0.6, 0.4], [0.9, 0.1]], [[0.4, 0.6], [0.7, 0.3]]], "float32")
        >>> attack = kr.attacks.multi_task(kr.LinfBall(0.2), tasks="universal")
        >>> success_rates(lambda x: {"logits": x}, x, x_adv, [0, 0], attack).per_task
        (1.0, 0.0)
    """
    x, x_adv, y = np.asarray(x), np.asarray(x_adv), np.asarray(y)
    if not len(x) == len(x_adv) == len(y) > 0:
        raise ValueError(
            f"There are {len(x)} images, {len(x_adv)} attacked images and {len(y)} labels; "
            "expected the same number of each, at least one."
        )
    y = class_numbers("Labels", y, x).numpy()
    kind, model = task_kind(attack, tasks), classifier_of(model)
    criterion = resolved_criterion(attack, kind, success_criterion)
    goals = _goals(y, x, targets, criterion)
    predict = compiled(_task_logits(kind, model, attack.ball, criterion))
    success, misclassified = [], []
    batches = batching.rows_in_batches(len(x), min(batch_size, len(x)))
    for number, (rows, real) in enumerate(batches):
        inputs = map(tf.constant, (x[rows], x_adv[rows], goals[rows]))
        outputs = predict(*inputs, as_seed((seed, number)))
        logits, reference, whole = (tensor.numpy() for tensor in outputs)
        same = attack_runner.is_correct(logits, reference)
        achieved = same if criterion == "target" else ~same
        success.append(achieved[:, : real * same.shape[1] // len(rows)])
        misclassified.append(~attack_runner.is_correct(whole, y[rows])[:real])
    every = np.concatenate(success, axis=1)
    ensemble = float(np.concatenate(misclassified).mean())
    return TaskSuccess.of(every, task_names(kind, model, len(every)), ensemble)


def _goals(y: np.ndarray, x: np.ndarray, targets: Labels | None, criterion: str) -> np.ndarray:
    """The classes that predictions are compared with: the targets, or else the labels."""
    if criterion != "target":
        return y
    if targets is None or len(targets) != len(y):
        count = "no" if targets is None else len(targets)
        raise ValueError(
            f"There are {len(y)} images of a targeted attack and {count} targets; expected one "
            "target per image."
        )
    return class_numbers("Targets", np.asarray(targets), x).numpy()


def _task_logits(kind: TaskKind, model: Model, ball: Ball, criterion: str) -> Callable[..., Any]:
    """`(x, x_adv, goals, seed) -> (logits of each task, references, logits of the model)`.

    A reference is the class that a task is to reach or to leave.
    """
    forward = as_forward(model)

    def predict(
        x: Images, x_adv: Images, goals: Labels, seed: tf.Tensor
    ) -> tuple[Logits, Labels, Logits]:
        problem, copies = problem_on(kind, forward, ball, x_adv, goals)
        clean = kind.on(forward, ball, x, goals)
        changed = criterion == "prediction"
        reference = tf.argmax(clean.clean(), axis=-1) if changed else clean.labels
        return problem.logits(copies, seed), reference, forward(x_adv)["logits"]

    return predict


def transfer_success_rates(
    source: Model,
    models: Mapping[str, Model],
    ensembles: Mapping[str, Sequence[str]],
    data: Data,
    attack: Attack,
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, TaskSuccess]:
    """Attacks a source model, and measures success rates on ensembles of other models.

    A task is to fool one member; an ensemble predicts by the mean of its members' probabilities.

    Args:
        source: the model attacked.
        models: name -> classifier, or function `images -> {"logits", ...}`; each is evaluated once.
        ensembles: name of the ensemble -> names of its members.
        data, limit, seed, progress: as for `keras_robust.evaluation.evaluate`.
        attack: the attack.

    Returns:
        Name of the ensemble -> success rates.

    Raises:
        TypeError: not an attack.
        ValueError: no ensembles, one of unknown models, no data, an attack per member, or one that
            left its ball.

    Example:
        >>> import keras_robust as kr
        >>> models = {"right": lambda x: {"logits": x}, "left": lambda x: {"logits": -x}}
        >>> data = np.array([[0.6, 0.4]], "float32"), [0]
        >>> attack = kr.attacks.fgsm(kr.LinfBall(0.2))
        >>> both = {"RL": ("right", "left")}
        >>> transfer_success_rates(models["right"], models, both, data, attack)["RL"].per_task
        (1.0, 0.0)

    Reference: Bui et al. (2023), Table 3.
    """
    unknown = {name for names in ensembles.values() for name in names} - set(models)
    if unknown or not ensembles or not all(ensembles.values()):
        raise ValueError(
            f"ensembles is {dict(ensembles)!r}; expected for each ensemble some names of the "
            f"models {', '.join(models)}."
        )
    runner = TaskRunner(source, data, attack, limit, seed)
    forwards = [as_forward(classifier_of(model)) for model in models.values()]
    predict = compiled(lambda x: [forward(x)["logits"] for forward in forwards])
    logits, labels = [], []
    for batch in runner.crafted(progress):
        logits.append(np.stack(predict(batch.crafted))[:, : batch.real])
        labels.append(batch.y.numpy()[: batch.real])
    by_model = dict(zip(models, np.concatenate(logits, axis=1), strict=True))
    y = np.concatenate(labels)
    return {
        name: _ensemble_rates([by_model[member] for member in members], y, members)
        for name, members in ensembles.items()
    }


def _ensemble_rates(
    logits: Sequence[np.ndarray], y: np.ndarray, names: Sequence[str]
) -> TaskSuccess:
    """Success rates on an ensemble, from the logits of its members."""
    misclassified = ~attack_runner.is_correct(np.stack(logits), y)
    whole = losses.log_mean_probability(tf.stack(logits, axis=1)).numpy()
    ensemble = float((~attack_runner.is_correct(whole, y)).mean())
    return TaskSuccess.of(misclassified, names, ensemble)
