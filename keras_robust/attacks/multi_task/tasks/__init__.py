"""What one perturbation is to achieve at once: fool many models, on many images, many ways.

A kind of tasks poses them on a batch: `kind.on(forward, ball, x, y)` is a `Problem`, which the
crafting loop solves without knowing of which kind it is.
"""

from __future__ import annotations

from typing import Any

from keras_robust.attacks.multi_task.tasks.members import Members
from keras_robust.attacks.multi_task.tasks.problem import Problem
from keras_robust.attacks.multi_task.tasks.transformations import Transformations
from keras_robust.attacks.multi_task.tasks.universal import Universal

__all__ = [
    "Members",
    "Problem",
    "Transformations",
    "Universal",
    "tasks_called",
]

NAMES: dict[str, Any] = {"members": Members, "universal": Universal}


def tasks_called(name: str | Any) -> Any:
    """A kind of tasks by its name, or the one that was passed.

    Args:
        name: `"members"`, `"universal"`, or a kind of tasks.

    Returns:
        The kind of tasks.

    Raises:
        ValueError: no kind of that name.
        TypeError: something that poses no tasks.

    Example:
        >>> tasks_called("universal")
        Universal(group=None)
    """
    if isinstance(name, str):
        if name not in NAMES:
            raise ValueError(
                f"tasks is {name!r}; expected one of {', '.join(sorted(NAMES))}, or "
                "`keras_robust.tasks.Transformations((...))`."
            )
        return NAMES[name]()
    if isinstance(name, type) or not hasattr(name, "on"):
        raise TypeError(
            f"tasks is {name!r}; expected 'members', 'universal', or a kind of tasks, such as "
            "`keras_robust.tasks.Universal(group=8)` or "
            "`keras_robust.tasks.Transformations((...))`."
        )
    return name


def __dir__() -> list[str]:
    return __all__
