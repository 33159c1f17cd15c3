"""Success rates of an attack on several tasks: on each, on all at once, on average."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from keras_robust.evaluation.rendering.tables import ABSENT, Cell, Table
from keras_robust.evaluation.rendering.wording import percent


@dataclasses.dataclass(frozen=True)
class TaskSuccess:
    """Success rates of an attack on several tasks; higher is a stronger attack.

    A point is an image, or a group of images that share a perturbation; in a group, each image is
    a task.

    Args:
        names: names of the tasks.
        per_task: A-i, the fraction of points on which each task succeeds.
        all_tasks: A-All, the fraction of points on which all tasks succeed.
        any_task: the fraction of points on which at least one task succeeds.
        ensemble: the fraction of images that the model itself (of an ensemble, the whole)
            misclassifies; None if not measured.
        num_points: number of images, or of groups.

    Reference: Bui et al., "Generating Adversarial Examples with Task Oriented Multi-Objective
    Optimization" (2023), section 4.
    """

    names: tuple[str, ...]
    per_task: tuple[float, ...]
    all_tasks: float
    any_task: float
    ensemble: float | None
    num_points: int

    def _repr_html_(self) -> str:
        """The rates in a notebook."""
        return success_table({"this attack": self})._repr_html_()

    @classmethod
    def of(
        cls,
        success: npt.ArrayLike,
        names: Sequence[str] | None = None,
        ensemble: float | None = None,
    ) -> TaskSuccess:
        """The success rates of given outcomes.

        Args:
            success: `[tasks, points]` bool.
            names: names of the tasks; default their numbers.
            ensemble: as for the class.

        Raises:
            ValueError: another shape, no points, or another number of names than of tasks.

        Example:
            >>> found = TaskSuccess.of([[True, True, False], [True, False, False]])
            >>> round(found.all_tasks, 2), found.average, round(found.any_task, 2)
            (0.33, 0.5, 0.67)
        """
        success = np.asarray(success, bool)
        if success.ndim != 2 or not success.size:
            raise ValueError(
                f"success has shape {success.shape}; expected [tasks, points], at least one each."
            )
        names = tuple(names or (f"task {i + 1}" for i in range(len(success))))
        if len(names) != len(success):
            raise ValueError(
                f"There are {len(success)} tasks and {len(names)} names; expected one name each."
            )
        return cls(
            names,
            tuple(map(float, success.mean(axis=1))),
            float(success.all(axis=0).mean()),
            float(success.any(axis=0).mean()),
            ensemble,
            success.shape[1],
        )

    @property
    def average(self) -> float:
        """A-Avg: the mean of `per_task`."""
        return float(np.mean(self.per_task))


def success_table(
    found: Mapping[str, TaskSuccess],
    caption: str = "Success rates by task",
    per_task: bool = True,
) -> Table:
    """One row per attack: A-All, A-Avg, any task, the model as a whole, and each task.

    Args:
        found: name of the attack -> its success rates.
        caption: caption of the table.
        per_task: whether to add a column per task; for groups of images they mean little.

    Returns:
        The table; a task that an attack does not have is left blank.

    Raises:
        ValueError: no attacks.

    Example:
        >>> from keras_robust.evaluation.rendering.markdown import markdown_table
        >>> print(markdown_table(success_table({"PGD": TaskSuccess.of([[True], [False]])})))
        | Attack | A-All | A-Avg | Any task | Whole model | task 1 | task 2 |
        | --- | ---: | ---: | ---: | ---: | ---: | ---: |
        | PGD | 0.0% | 50.0% | 100.0% | – | 100.0% | 0.0% |
    """
    if not found:
        raise ValueError("No success rates were given; expected those of at least one attack.")
    every = (name for rates in found.values() for name in rates.names)
    tasks = tuple(dict.fromkeys(every)) if per_task else ()
    rows = []
    for attack, rates in found.items():
        own = dict(zip(rates.names, rates.per_task, strict=True))
        whole = (rates.all_tasks, rates.average, rates.any_task, rates.ensemble)
        fractions = (*whole, *map(own.get, tasks))
        cells = (Cell(ABSENT if one is None else percent(one)) for one in fractions)
        rows.append((Cell(attack), *cells))
    columns = ("Attack", "A-All", "A-Avg", "Any task", "Whole model", *tasks)
    return Table(caption, columns, tuple(rows))
