"""MNIST at the thesis's settings: Linf radius 0.3, crafting with 40 steps of 0.01.

Bui, thesis, Monash 2023, chapter 5, section 5.1 and appendix D: SGD with momentum, rate 0.01, times
0.1 after 55, 75 and 90 of 100 epochs; every trade-off weight is 1. A hundred epochs of crafting
with 40 steps take hours on a GPU; the recipes `mnist/...` are for a CPU. `thesis/udr/mnist_cnn/...`
are the same trainings, evaluated as there; other chapters are `thesis/<chapter>/...`.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_robust.experiments.recipes.schema import (
    CERTIFIED,
    ENSEMBLES,
    PRETRAINING,
    UNIONS,
    with_defense,
)
from trainers.recipes import mnist

# Ensembles are in another chapter, with other settings; the rest is in none.
_ELSEWHERE = (*ENSEMBLES, *CERTIFIED, *UNIONS, *PRETRAINING, "n_fgsm")
DEFENSES = tuple(name for name in mnist.DEFENSES if name not in _ELSEWHERE)


def get_config(defense: str) -> ConfigDict:
    """The recipe of one of `DEFENSES`."""
    config = mnist.get_config(defense)
    config.epochs = 100
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.01
    config.optimizer.momentum = 0.9
    config.optimizer.schedule.kind = "step"
    config.optimizer.schedule.boundaries = (55, 75, 90)
    crafting = {"steps": 40, "step_size": 0.01}
    return with_defense(
        config,
        defense,
        {
            "standard": {"steps": 10},
            # The best price of the thesis for MNIST.
            "wrm": {"steps": 15, "gamma": 0.05},
            "pgd_at": {**crafting, "clean_weight": 1.0},
            "trades": {**crafting, "beta": 1.0},
            "mart": {**crafting, "beta": 1.0},
            "ascl": crafting,
            "scl": {**crafting, "augment": "shift"},
        },
    )
