"""Weights, losses, successes and gradient norms of a multi-task attack over its steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.multi_task.trace import Trace
from keras_robust.core.graphs import compiled
from keras_robust.evaluation.multi_task.crafted_batches import TaskRunner, task_kind, task_names
from keras_robust.evaluation.running.batching import Data, Model, Progress

Rows = tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True)
class TaskHistory:
    """A multi-task attack step by step, averaged over points: images, or groups of images.

    Row `t` of `losses`, `success` and `all_tasks` belongs to the point after `t` steps; row `t` of
    the others belongs to the step from there.

    Args:
        names: names of the tasks.
        weights: mean weight of each task, `[steps][tasks]`.
        losses: mean loss of each task, `[steps + 1][tasks]`.
        success: fraction of points on which each task succeeds, `[steps + 1][tasks]`.
        all_tasks: fraction of points on which all tasks succeed, `[steps + 1]`.
        gradient_norms: mean L2 norm of each task's gradient, `[steps][tasks]`.
        combined_norms: mean L2 norm of the weighted sum of the gradients, `[steps]`.
        num_points: number of images, or of groups.

    Reference: Bui et al., "Generating Adversarial Examples with Task Oriented Multi-Objective
    Optimization" (2023), Figures 1, 6, 7 and 8.
    """

    names: tuple[str, ...]
    weights: Rows
    losses: Rows
    success: Rows
    all_tasks: tuple[float, ...]
    gradient_norms: Rows
    combined_norms: tuple[float, ...]
    num_points: int

    @classmethod
    def of(cls, traces: Sequence[Trace], names: Sequence[str]) -> TaskHistory:
        """The averages of traces of one attack, such as those of the batches of a test set.

        Args:
            traces: at least one; a task has the same number in all of them.
            names: names of the tasks.
        """
        columns = (np.concatenate(list(map(np.asarray, part)), axis=-1)
                   for part in list(zip(*traces, strict=True))[1:])  # fmt: skip
        every = Trace(None, *columns)  # type: ignore[arg-type]
        return cls(
            names=tuple(names),
            weights=_rows(every.weights),
            losses=_rows(every.losses),
            success=_rows(every.achieved),
            all_tasks=_floats(every.achieved.all(axis=1)),
            gradient_norms=_rows(every.gradient_norms),
            combined_norms=_floats(every.combined_norms),
            num_points=every.weights.shape[-1],
        )

    def curves(self) -> dict[str, dict[str, list[float]]]:
        """The histories of the tasks: what is measured -> name of the task -> value per step."""
        measured = {
            "Weight": self.weights,
            "Loss": self.losses,
            "Success rate": self.success,
            "Gradient norm": self.gradient_norms,
        }
        return {
            label: {name: [row[i] for row in rows] for i, name in enumerate(self.names)}
            for label, rows in measured.items()
        }


def task_history(
    model: Model,
    data: Data,
    attack: Attack,
    *,
    limit: int | None = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> TaskHistory:
    """Runs a multi-task attack, and averages each of its steps over the images.

    Args:
        model, data, limit, seed, progress: as for `keras_robust.evaluation.task_success`.
        attack: a `keras_robust.attacks.multi_task`.

    Returns:
        The averages; the images are those of `task_success` with the same arguments.

    Raises:
        TypeError, ValueError: an attack without a trace, or as for `task_success`.

    Example:
        >>> import keras_robust as kr
        >>> model = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(2)])
        >>> data = np.full([4, 2, 2, 1], 0.5, "float32"), [0, 1, 2, 0]
        >>> found = task_history(model, data, kr.attacks.multi_task(kr.LinfBall(0.1), steps=2))
        >>> len(found.combined_norms), len(found.losses), len(found.losses[0])
        (2, 3, 2)
    """
    trace = check_traceable(attack)
    kind = task_kind(attack, None)
    runner = TaskRunner(model, data, attack, limit, seed, kind)
    run = compiled(lambda x, y, seed: trace(runner.model, x, y, seed=seed))
    traces = [
        unpadded(batch.crafted, batch.real, len(batch.x)) for batch in runner.crafted(progress, run)
    ]
    return TaskHistory.of(traces, task_names(kind, runner.model, traces[0].weights.shape[1]))


def check_traceable(attack: Any) -> Any:
    """Returns `attack.trace`; raises ValueError for an attack without one, or without steps."""
    if not getattr(attack, "can_trace", False):
        raise ValueError(
            f"The attack {getattr(attack, 'name', attack)!r} has no trace; expected a "
            "`keras_robust.attacks.multi_task`."
        )
    return attack.trace


def unpadded(trace: Trace, real: int, padded: int) -> Trace:
    """The trace of the first `real` of `padded` images, as NumPy arrays."""
    points = real * trace.weights.shape[-1] // padded
    return Trace(trace.images.numpy()[:real], *(part.numpy()[..., :points] for part in trace[1:]))


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, values.mean(axis=-1)))


def _rows(values: np.ndarray) -> Rows:
    return tuple(tuple(map(float, row)) for row in values.mean(axis=-1))
