"""Goals: on how much an attack on many tasks succeeds, on all of them together and on each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_robust.evaluation.rendering.tables import ABSENT, Cell, Table
from keras_robust.evaluation.rendering.wording import percent


@dataclasses.dataclass(frozen=True)
class TaskSuccess:
    """The shares of images on which goals are achieved; the larger, the stronger the attack.

    Where images share a perturbation, a point is a group of them, and a task one of its images.

    Args:
        names: of the tasks.
        each: A-i, the share of points that achieve each task's goal.
        together: A-All, the share of points that achieve every goal.
        least_one: the share of points that achieve at least one.
        whole: the share of images that the model itself takes for another class than the label, an
            ensemble as a whole; None where nobody asked.
        points: how many images, or groups.

    Reference: Bui et al., "Generating Adversarial Examples with Task Oriented Multi-Objective
    Optimization" (2023), section 4.
    """

    names: tuple[str, ...]
    each: tuple[float, ...]
    together: float
    least_one: float
    whole: float | None
    points: int

    @classmethod
    def of(
        cls, achieved: Any, names: Sequence[str] | None = None, whole: float | None = None
    ) -> TaskSuccess:
        """The shares, of goals that were looked at.

        Args:
            achieved: `[tasks, points]` bool.
            names: of the tasks; default their numbers.
            whole: as for the class.

        Returns:
            The shares.

        Raises:
            ValueError: another shape, no points, or not as many names.

        Example:
            >>> found = TaskSuccess.of([[True, True, False], [True, False, False]])
            >>> round(found.together, 2), found.average, round(found.least_one, 2)
            (0.33, 0.5, 0.67)
        """
        achieved = np.asarray(achieved, bool)
        if achieved.ndim != 2 or not achieved.size:
            raise ValueError(
                f"achieved has shape {achieved.shape}; expected [tasks, points], at least one each."
            )
        names = tuple(names or (f"task {i + 1}" for i in range(len(achieved))))
        if len(names) != len(achieved):
            raise ValueError(f"There are {len(achieved)} tasks and {len(names)} names.")
        return cls(
            names,
            tuple(map(float, achieved.mean(axis=1))),
            float(achieved.all(axis=0).mean()),
            float(achieved.any(axis=0).mean()),
            whole,
            achieved.shape[1],
        )

    @property
    def average(self) -> float:
        """A-Avg: the mean share over tasks."""
        return float(np.mean(self.each))


def goals_table(
    found: Mapping[str, TaskSuccess], caption: str = "Goals achieved", each: bool = True
) -> Table:
    """A row for each of several attacks: A-All, A-Avg, at least one, the whole, and each task.

    Args:
        found: name of the attack -> its goals.
        caption: of the table.
        each: whether the tasks have columns of their own; those of groups mean little.

    Returns:
        The table; a task that an attack has not is left blank.

    Raises:
        ValueError: no attacks.

    Example:
        >>> from keras_robust.evaluation.rendering.markdown import markdown_table
        >>> print(markdown_table(goals_table({"PGD": TaskSuccess.of([[True], [False]])})))
        | Attack | A-All | A-Avg | At least one | Whole | task 1 | task 2 |
        | --- | ---: | ---: | ---: | ---: | ---: | ---: |
        | PGD | 0.0% | 50.0% | 100.0% | – | 100.0% | 0.0% |
    """
    if not found:
        raise ValueError("There are no goals to put into a table; expected at least one attack.")
    named = (name for goals in found.values() for name in goals.names)
    tasks = tuple(dict.fromkeys(named)) if each else ()
    rows = []
    for attack, goals in found.items():
        own = dict(zip(goals.names, goals.each, strict=True))
        shares = (
            goals.together,
            goals.average,
            goals.least_one,
            goals.whole,
            *map(own.get, tasks),
        )
        cells = (Cell(ABSENT if share is None else percent(share)) for share in shares)
        rows.append((Cell(attack), *cells))
    columns = ("Attack", "A-All", "A-Avg", "At least one", "Whole", *tasks)
    return Table(caption, columns, tuple(rows))
