"""Solvers: the gradients of many tasks in, a weight for each task out.

All solve a problem of the size of the number of tasks for each example, on the products of the
tasks' gradients (the Gram matrix): none sees an image.
"""

from __future__ import annotations

from typing import Any

from keras_robust.attacks.multi_task.solvers.cagrad import CAGrad
from keras_robust.attacks.multi_task.solvers.hvm import HVM
from keras_robust.attacks.multi_task.solvers.min_max import MinMax
from keras_robust.attacks.multi_task.solvers.min_norm import MinNorm
from keras_robust.attacks.multi_task.solvers.pcgrad import PCGrad
from keras_robust.attacks.multi_task.solvers.task_oriented import TaskOriented
from keras_robust.attacks.multi_task.solvers.uniform import EqualWeights

__all__ = [
    "HVM",
    "CAGrad",
    "EqualWeights",
    "MinMax",
    "MinNorm",
    "PCGrad",
    "TaskOriented",
    "solver",
]

NAMES: dict[str, Any] = {
    "uniform": EqualWeights,
    "min_max": MinMax,
    "min_norm": MinNorm,
    "task_oriented": TaskOriented,
    "pcgrad": PCGrad,
    "cagrad": CAGrad,
    "hvm": HVM,
}


def solver(name: str | Any) -> Any:
    """A solver by its name, with its default settings; or the solver that was passed.

    Args:
        name: one of `NAMES`, or a solver such as `TaskOriented(lam=10.0)`.

    Returns:
        The solver.

    Raises:
        ValueError: no solver of that name.
        TypeError: something that is no solver.

    Example:
        >>> solver("min_max")
        MinMax(rate=0.025, gamma=3.0)
    """
    if isinstance(name, str):
        if name not in NAMES:
            raise ValueError(f"solver is {name!r}; expected one of {', '.join(sorted(NAMES))}.")
        return NAMES[name]()
    if isinstance(name, type) or not callable(name) or not hasattr(name, "init"):
        raise TypeError(
            f"solver is {name!r}; expected a name such as 'task_oriented', or a solver such as "
            "`keras_robust.solvers.TaskOriented(lam=10.0)`."
        )
    return name


def __dir__() -> list[str]:
    return __all__
