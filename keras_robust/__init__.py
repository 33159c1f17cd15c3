"""Attack, harden, judge and serve Keras 3 image classifiers.

```python
import keras_robust as kr

train, validation, test = kr.data.load("mnist")
model = kr.defenses.trades(kr.models.small_cnn((28, 28, 1), 10), kr.LinfBall(0.3))
model.compile(optimizer="adam")
model.fit(train, validation_data=validation, epochs=10)
report = kr.evaluation.evaluate(model, test, kr.attacks.pgd(kr.LinfBall(0.3), steps=40))
```
"""

from keras_robust import (
    attacks,
    config,
    contrast,
    data,
    defenses,
    detection,
    evaluation,
    losses,
    models,
    objectives,
    plots,
    robust_loss,
    scores,
    soft_steps,
    solvers,
    starts,
    steps,
    tasks,
    transforms,
    types,
)
from keras_robust.ascent import Ascent
from keras_robust.attack import Attack
from keras_robust.balls import L1Ball, L2Ball, LinfBall
from keras_robust.dual import Dual
from keras_robust.robust_model import RobustModel
from keras_robust.weight_perturbation import AWP

__version__ = "0.1.0"

__all__ = [
    "AWP",
    "Ascent",
    "Attack",
    "Dual",
    "L1Ball",
    "L2Ball",
    "LinfBall",
    "RobustModel",
    "attacks",
    "config",
    "contrast",
    "data",
    "defenses",
    "detection",
    "evaluation",
    "losses",
    "models",
    "objectives",
    "plots",
    "robust_loss",
    "scores",
    "soft_steps",
    "solvers",
    "starts",
    "steps",
    "tasks",
    "transforms",
    "types",
]
