"""Adversarial robustness of Keras 3 image classifiers: attacks, defenses, evaluation, serving.

```python
import keras_robust as kr

train, validation, test = kr.data.load("mnist")
model = kr.defenses.trades(kr.models.small_cnn((28, 28, 1), 10), kr.LinfBall(0.3))
model.compile(optimizer="adam")
model.fit(train, validation_data=validation, epochs=10)
report = kr.evaluation.evaluate(model, test, kr.attacks.pgd(kr.LinfBall(0.3), steps=40))
```
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_robust import (
        attacks,
        certification,
        data,
        defenses,
        detection,
        evaluation,
        losses,
        models,
        plots,
        threat_models,
        training,
    )
    from keras_robust.attacks.crafting import (
        initialization,
        objectives,
        step_rules,
        transferability,
    )
    from keras_robust.attacks.crafting.base import Attack
    from keras_robust.attacks.crafting.gradient_ascent import GradientAttack
    from keras_robust.attacks.multi_task import solvers, tasks, transforms
    from keras_robust.core import types
    from keras_robust.core.config import replace
    from keras_robust.defenses.dual_variable import DualVariable
    from keras_robust.threat_models import L0Ball, L1Ball, L2Ball, LinfBall, UnionBall
    from keras_robust.training import AWP, RobustModel

__version__ = "0.2.0"

__all__ = [
    "AWP",
    "Attack",
    "DualVariable",
    "GradientAttack",
    "L0Ball",
    "L1Ball",
    "L2Ball",
    "LinfBall",
    "RobustModel",
    "UnionBall",
    "attacks",
    "certification",
    "data",
    "defenses",
    "detection",
    "evaluation",
    "initialization",
    "losses",
    "models",
    "objectives",
    "plots",
    "replace",
    "solvers",
    "step_rules",
    "tasks",
    "threat_models",
    "training",
    "transferability",
    "transforms",
    "types",
]

# Name -> the module that it is, or the module that defines it.
_MODULES = {
    "initialization": "attacks.crafting.initialization",
    "objectives": "attacks.crafting.objectives",
    "step_rules": "attacks.crafting.step_rules",
    "transferability": "attacks.crafting.transferability",
    "solvers": "attacks.multi_task.solvers",
    "tasks": "attacks.multi_task.tasks",
    "transforms": "attacks.multi_task.transforms",
    "types": "core.types",
}
_DEFINED_IN = {
    "AWP": "training.weight_perturbation",
    "Attack": "attacks.crafting.base",
    "DualVariable": "defenses.dual_variable",
    "GradientAttack": "attacks.crafting.gradient_ascent",
    "L0Ball": "threat_models.l0_ball",
    "L1Ball": "threat_models.balls",
    "L2Ball": "threat_models.balls",
    "LinfBall": "threat_models.balls",
    "RobustModel": "training.robust_model",
    "UnionBall": "threat_models.union_ball",
    "replace": "core.config",
}


def __getattr__(name: str) -> Any:
    """Imports all public modules at the first use of one, as TensorFlow takes seconds to import."""
    if name not in __all__:
        raise AttributeError(f"module 'keras_robust' has no attribute {name!r}")
    _load()
    return globals()[name]


def _load() -> None:
    """Imports all public modules, so that Keras knows every class that a saved file may name."""
    for public in __all__:
        if public in _DEFINED_IN:
            module = importlib.import_module(f"keras_robust.{_DEFINED_IN[public]}")
            globals()[public] = getattr(module, public)
        else:
            path = _MODULES.get(public, public)
            globals()[public] = importlib.import_module(f"keras_robust.{path}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


# A program that imported Keras may load a saved model without using this package again.
if "keras" in sys.modules:
    _load()
