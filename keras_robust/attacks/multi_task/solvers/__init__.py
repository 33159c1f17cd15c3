"""Solvers: weights of tasks from their gradients.

Each solves a small problem per example, on the Gram matrix of the tasks' gradients. Settings out of
range raise ValueError.
"""

from __future__ import annotations

from collections.abc import Callable

from keras_robust.attacks.multi_task.solvers.cagrad import CAGrad
from keras_robust.attacks.multi_task.solvers.hvm import HVM
from keras_robust.attacks.multi_task.solvers.min_max import MinMax
from keras_robust.attacks.multi_task.solvers.min_norm import MinNorm
from keras_robust.attacks.multi_task.solvers.pcgrad import PCGrad
from keras_robust.attacks.multi_task.solvers.task_oriented import TaskOriented
from keras_robust.attacks.multi_task.solvers.uniform import EqualWeights
from keras_robust.core.types import Solver

__all__ = [
    "HVM",
    "NAMES",
    "CAGrad",
    "EqualWeights",
    "MinMax",
    "MinNorm",
    "PCGrad",
    "TaskOriented",
    "get",
]

NAMES: dict[str, Callable[[], Solver]] = {
    "uniform": EqualWeights,
    "min_max": MinMax,
    "min_norm": MinNorm,
    "task_oriented": TaskOriented,
    "pcgrad": PCGrad,
    "cagrad": CAGrad,
    "hvm": HVM,
}


def __dir__() -> list[str]:
    return __all__


def get(solver: str | Solver) -> Solver:
    """The solver of a name, with its default settings; or the solver that was passed.

    Args:
        solver: one of `NAMES`, or a solver such as `TaskOriented(lam=10.0)`.

    Raises:
        ValueError: an unknown name.
        TypeError: not a solver.

    Example:
        >>> get("min_max")
        MinMax(learning_rate=0.025, gamma=3.0, initial=None)
    """
    if isinstance(solver, str):
        if solver not in NAMES:
            raise ValueError(f"solver is {solver!r}; expected one of {', '.join(sorted(NAMES))}.")
        return NAMES[solver]()
    if isinstance(solver, type) or not isinstance(solver, Solver):
        raise TypeError(
            f"solver is {solver!r}; expected a name such as 'task_oriented', or a solver such as "
            "`keras_robust.solvers.TaskOriented(lam=10.0)`."
        )
    return solver
