"""The gradients of many tasks where an attack ends: how strong each is, how much they agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.gradient_ascent import value_and_sum_gradient, zero_nonfinite
from keras_robust.attacks.multi_task.combined_gradient import gram
from keras_robust.core.classifier import as_forward
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Images, Labels, Logits, PerExample
from keras_robust.evaluation.multi_task.crafted_batches import (
    Progress,
    TaskRunner,
    copied,
    kind_of,
    names_of,
)
from keras_robust.evaluation.rendering.tables import Cell, Table
from keras_robust.losses import classification as losses


@dataclasses.dataclass(frozen=True)
class TaskGradients:
    """The gradients of tasks, means over points: images, or groups that share a perturbation.

    Args:
        names: of the tasks.
        norms: the mean length (L2) of each task's gradient.
        deviations: the standard deviation of the length.
        cosines: `[tasks][tasks]`, the mean cosine of the angle between two tasks' gradients.
        weights: the mean weight of each task in the attack's last step; None without a solver.
        weight_deviations: the standard deviation of the weight.
        points: how many images, or groups.
    """

    names: tuple[str, ...]
    norms: tuple[float, ...]
    deviations: tuple[float, ...]
    cosines: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...] | None
    weight_deviations: tuple[float, ...] | None
    points: int

    def table(self) -> Table:
        """A row for each task: the length of its gradient, its weight, and the cosines."""
        rows = []
        for i, name in enumerate(self.names):
            cells = [Cell(f"{self.norms[i]:.3g}", f"± {self.deviations[i]:.2g}")]
            if self.weights is not None and self.weight_deviations is not None:
                cells.append(Cell(f"{self.weights[i]:.2f}", f"± {self.weight_deviations[i]:.2f}"))
            cells += [Cell(f"{cosine:.2f}") for cosine in self.cosines[i]]
            rows.append((Cell(name), *cells))
        weight = () if self.weights is None else ("Weight",)
        cosines = (f"Cosine with {name}" for name in self.names)
        caption = f"Gradients of tasks on {self.points:,} points"
        return Table(caption, ("Task", "Norm", *weight, *cosines), tuple(rows))


def task_gradients(
    model: Any,
    data: Any,
    attack: Attack,
    *,
    tasks: str | Any | None = None,
    loss: Callable[[Logits, Labels], PerExample] = losses.cross_entropy,
    limit: int | None = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> TaskGradients:
    """Attacks images, and compares the gradients that the tasks have there.

    A task whose gradient is much shorter than the others' dominates the shortest weighted sum of
    them, which is what `keras_robust.solvers.MinNorm` follows.

    Args:
        model: as for `task_success`.
        data: a `tf.data.Dataset` of batches `(images, labels)`, or a pair of arrays.
        attack: the attack; with 0 steps, or in a ball of radius 0, it leaves images (almost) as
            they are.
        tasks: as for `task_success`.
        loss: of logits `[n, classes]` and labels `[n]`, `[n]`: what is differentiated.
        limit: use only the first so many images; None for all.
        seed: of the attack.
        progress: called with a line of text now and then, such as `print`.

    Returns:
        Lengths, cosines, and the weights of the attack's last step.

    Raises:
        TypeError, ValueError: as `task_success`.

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
    kind = kind_of(attack, tasks)
    images = TaskRunner(model, data, attack, limit, seed, kind)
    look = tf.function(_products(kind, images.model, attack, loss), autograph=False)
    traced = _traced(images.model, attack)
    products, weights = [], []
    for x, y, made, real, own in images.crafted(progress, traced):
        x_adv, *last = made if traced else (made,)
        found = look(x_adv, y, own).numpy()
        kept = real // (len(x) // len(found))
        products.append(found[:kept])
        weights += [weight.numpy()[:, :kept] for weight in last]
    names = names_of(kind, images.model, products[0].shape[1])
    return _summed_up(tuple(names), np.concatenate(products), weights)


def _products(kind: Any, model: Any, attack: Attack, loss: Callable) -> Callable:
    """`(x_adv, y, seed)` to the products of the tasks' gradients, `[points, tasks, tasks]`."""
    forward = as_forward(model)

    def look(x_adv: Images, y: Labels, seed: tf.Tensor) -> tf.Tensor:
        problem, copies = copied(kind, forward, attack.ball, x_adv, y)
        labels = tf.reshape(problem.labels, [-1])

        def value(copies: tf.Tensor) -> PerExample:
            logits = problem.logits(copies, seed)
            return loss(tf.reshape(logits, [-1, logits.shape[-1]]), labels)

        return gram(zero_nonfinite(upcast_half(value_and_sum_gradient(value, copies)[1])))

    return look


def _traced(model: Any, attack: Any) -> Callable | None:
    """`(x, y, seed)` to perturbed images and the last weights; None for an attack without any."""
    if not (attack.can_trace and attack.gradient_steps):
        return None

    def craft(x: Images, y: Labels, seed: tf.Tensor) -> tuple[Images, tf.Tensor]:
        trace = attack.trace(model, x, y, seed=seed)
        return trace.images, trace.weights[-1]

    return tf.function(craft, autograph=False)


def _summed_up(
    names: tuple[str, ...], products: np.ndarray, weights: list[np.ndarray]
) -> TaskGradients:
    norms = np.sqrt(np.einsum("bii->bi", products))
    lengths = norms[:, :, None] * norms[:, None, :]
    # Where there is no gradient there is no angle: counted as a right one.
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    every = np.concatenate(weights, axis=1) if weights else None
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
