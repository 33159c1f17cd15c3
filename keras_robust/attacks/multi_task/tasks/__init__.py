"""Tasks that one perturbation is to achieve at once: several models, images or transformations."""

from __future__ import annotations

from keras_robust.attacks.multi_task.tasks.members import Members
from keras_robust.attacks.multi_task.tasks.problem import Problem, TaskKind
from keras_robust.attacks.multi_task.tasks.transformations import Transformations
from keras_robust.attacks.multi_task.tasks.universal import Universal

__all__ = [
    "NAMES",
    "Members",
    "Problem",
    "TaskKind",
    "Transformations",
    "Universal",
    "get",
]

NAMES: dict[str, type[Members] | type[Universal]] = {"members": Members, "universal": Universal}


def __dir__() -> list[str]:
    return __all__


def get(tasks: str | TaskKind) -> TaskKind:
    """The tasks of a name, or the tasks that were passed.

    Args:
        tasks: `"members"`, `"universal"`, or an object of this module.

    Raises:
        ValueError: an unknown name.
        TypeError: not tasks.

    Example:
        >>> get("universal")
        Universal(group=None)
    """
    if isinstance(tasks, str):
        if tasks not in NAMES:
            raise ValueError(
                f"tasks is {tasks!r}; expected one of {', '.join(sorted(NAMES))}, or "
                "`keras_robust.tasks.Transformations((...))`."
            )
        return NAMES[tasks]()
    if isinstance(tasks, type) or not isinstance(tasks, TaskKind):
        raise TypeError(
            f"tasks is {tasks!r}; expected 'members', 'universal', or an object of "
            "`keras_robust.tasks`, such as `Universal(group=8)` or `Transformations((...))`."
        )
    return tasks
