"""Gradient conflict between tasks: norms and cosine similarities of their gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.gradient_ascent import value_and_sum_gradient, zero_nonfinite
from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.attacks.multi_task.combined_gradient import gram
from keras_robust.attacks.multi_task.tasks import TaskKind
from keras_robust.core.classifier import as_forward, classifier_of
from keras_robust.core.graphs import compiled
from keras_robust.core.labels import class_numbers
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Images, Labels, Logits, PerExample
from keras_robust.evaluation.multi_task.crafted_batches import (
    TaskRunner,
    problem_on,
    task_kind,
    task_names,
)
from keras_robust.evaluation.rendering.tables import Cell, Table, table_html
from keras_robust.evaluation.running import batching
from keras_robust.evaluation.running.batching import Data, Model, Progress
from keras_robust.losses import classification as losses
from keras_robust.threat_models.masks import without_masked


@dataclasses.dataclass(frozen=True)
class TaskGradients:
    """Gradients of tasks, averaged over points: images, or groups that share a perturbation.

    Args:
        names: names of the tasks.
        norms: mean L2 norm of each task's gradient.
        deviations: standard deviation of the norm.
        cosines: `[tasks][tasks]`, mean cosine similarity of two tasks' gradients.
        weights: mean weight of each task in the last step of the attack; None without a solver.
        weight_deviations: standard deviation of the weight.
        num_points: number of images, or of groups.
    """

    names: tuple[str, ...]
    norms: tuple[float, ...]
    deviations: tuple[float, ...]
    cosines: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...] | None
    weight_deviations: tuple[float, ...] | None
    num_points: int

    def table(self) -> Table:
        """One row per task: the norm of its gradient, its weight, and the cosines."""
        rows = []
        for i, name in enumerate(self.names):
            cells = [Cell(f"{self.norms[i]:.3g}", f"± {self.deviations[i]:.2g}")]
            if self.weights is not None and self.weight_deviations is not None:
                cells.append(Cell(f"{self.weights[i]:.2f}", f"± {self.weight_deviations[i]:.2f}"))
            cells += [Cell(f"{cosine:.2f}") for cosine in self.cosines[i]]
            rows.append((Cell(name), *cells))
        weight = () if self.weights is None else ("Weight",)
        cosines = (f"Cosine with {name}" for name in self.names)
        caption = f"Gradients of the tasks at {self.num_points:,} points"
        return Table(caption, ("Task", "Norm", *weight, *cosines), tuple(rows))

    _repr_html_ = table_html


def task_gradients(
    model: Model,
    data: Data,
    attack: Attack,
    *,
    tasks: str | TaskKind | None = None,
    loss: Callable[[Logits, Labels], PerExample] = losses.cross_entropy,
    limit: int | None = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> TaskGradients:
    """Attacks images, and compares the gradients of the tasks at the result.

    A task with a much smaller gradient than the others dominates their minimum-norm combination,
    which `keras_robust.solvers.MinNorm` follows.

    Args:
        model, data, tasks, limit, seed, progress: as for `task_success`.
        attack: the attack; with 0 steps, the gradients are those at its starting points.
        loss: `(logits [n, classes], labels [n]) -> [n]`, the function to differentiate.

    Returns:
        Norms, cosine similarities, and the weights in the last step of the attack.

    Raises:
        TypeError, ValueError: as for `task_success`.

    Example:
        >>> import keras_robust as kr
        >>> model = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(2)])
        >>> data = np.full([4, 2, 2, 1], 0.5, "float32"), [0, 1, 2, 0]
        >>> found = task_gradients(model, data, kr.attacks.multi_task(kr.LinfBall(0.1), steps=2))
        >>> len(found.norms), round(found.cosines[1][1], 3), round(sum(found.weights), 3)
        (2, 1.0, 1.0)

    Reference: Bui et al., "Generating Adversarial Examples with Task Oriented Multi-Objective
    Optimization" (2023), Table 2.
    """
    kind = task_kind(attack, tasks)
    runner = TaskRunner(model, data, attack, limit, seed, kind)
    with_weights = _craft_with_weights(runner.model, attack)
    _, x_adv, y, weights = runner.all_crafted(progress, with_weights)
    return task_gradients_at(
        runner.model,
        x_adv,
        y,
        attack,
        tasks=kind,
        loss=loss,
        weights=np.concatenate(weights, axis=1) if weights else None,
        batch_size=runner.batch_size,
        seed=seed,
    )


def task_gradients_at(
    model: Model,
    x_adv: Images,
    y: Labels,
    attack: Attack,
    *,
    tasks: str | TaskKind | None = None,
    loss: Callable[[Logits, Labels], PerExample] = losses.cross_entropy,
    weights: npt.ArrayLike | None = None,
    batch_size: int = 128,
    seed: int = 0,
) -> TaskGradients:
    """Compares the gradients of the tasks at given images.

    Args:
        model, tasks, loss: as for `task_gradients`.
        x_adv: images `[n, ...]`; images that share a perturbation follow each other.
        y: labels `[n]`.
        attack: the attack that crafted them.
        weights: `[tasks, points]`, such as those of the last step; None for a table without them.
        batch_size: number of images evaluated at once; a multiple of the group size.
        seed: seed of random strengths of transformations.

    Returns:
        Norms, cosine similarities, and the averaged weights.

    Raises:
        TypeError, ValueError: as for `success_rates`.

    Example:
        >>> import keras_robust as kr
        >>> attack = kr.attacks.multi_task(kr.LinfBall(0.2), tasks=kr.tasks.Universal(2))
        >>> x = np.array([[[0.6, 0.4], [0.9, 0.1]], [[0.4, 0.6], [0.7, 0.3]]], "float32")
        >>> task_gradients_at(lambda x: {"logits": x[:, 0]}, x, [0, 1], attack).num_points
        1
    """
    x_adv, y = np.asarray(x_adv), class_numbers("Labels", np.asarray(y), np.asarray(x_adv)).numpy()
    kind, model = task_kind(attack, tasks), classifier_of(model)
    gram_at = compiled(_gram_matrices(kind, model, attack, loss))
    products = []
    batches = batching.rows_in_batches(len(x_adv), min(batch_size, len(x_adv)))
    for number, (rows, real) in enumerate(batches):
        found = gram_at(tf.constant(x_adv[rows]), tf.constant(y[rows]), as_seed((seed, number)))
        products.append(found.numpy()[: real * len(found) // len(rows)])
    names = task_names(kind, model, products[0].shape[1])
    every = None if weights is None else np.asarray(weights)
    return _averaged(tuple(names), np.concatenate(products), every)


def _gram_matrices(
    kind: TaskKind, model: Model, attack: Attack, loss: Callable[[Logits, Labels], PerExample]
) -> Callable[..., tf.Tensor]:
    """`(x_adv, y, seed) -> [points, tasks, tasks]`, inner products of the tasks' gradients."""
    forward = as_forward(model)

    def gram_at(x_adv: Images, y: Labels, seed: tf.Tensor) -> tf.Tensor:
        problem, copies = problem_on(kind, forward, attack.ball, x_adv, y)
        labels = tf.reshape(problem.labels, [-1])

        def value(copies: tf.Tensor) -> PerExample:
            logits = problem.logits(copies, seed)
            return loss(tf.reshape(logits, [-1, logits.shape[-1]]), labels)

        gradients = upcast_half(value_and_sum_gradient(value, copies)[1])
        return gram(zero_nonfinite(without_masked(attack.ball, gradients)))

    return gram_at


def _craft_with_weights(model: Model, attack: Any) -> Callable[..., Any] | None:
    """`(x, y, seed) -> (perturbed images, last weights)`; None for an attack without weights."""
    if not (attack.can_trace and attack.gradient_steps):
        return None

    def craft(x: Images, y: Labels, seed: tf.Tensor) -> tuple[Images, tf.Tensor]:
        trace = attack.trace(model, x, y, seed=seed)
        return trace.images, trace.weights[-1]

    return compiled(craft)


def _averaged(
    names: tuple[str, ...], products: np.ndarray, every: np.ndarray | None
) -> TaskGradients:
    norms = np.sqrt(np.einsum("bii->bi", products))
    lengths = norms[:, :, None] * norms[:, None, :]
    # A zero gradient has no angle; its cosine counts as 0.
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return TaskGradients(
        names,
        _floats(norms.mean(axis=0)),
        _floats(norms.std(axis=0)),
        tuple(map(_floats, cosines.mean(axis=0))),
        None if every is None else _floats(every.mean(axis=1)),
        None if every is None else _floats(every.std(axis=1)),
        len(products),
    )


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, values))
