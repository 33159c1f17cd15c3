"""CIFAR-10 reduced to minutes on a CPU: 10,000 images, a small network, short attacks.

Loss weights are those of `cifar10/...`, the radius is half of theirs. The network is MNIST's
without dropout, crafting takes 5 steps of half the radius, and Adam trains a few epochs: enough to
compare defenses with each other, but far below their best results.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_robust.experiments.recipes.schema import ENSEMBLES, with_defense
from trainers.recipes import cifar10

DEFENSES = (*cifar10.DEFENSES, *ENSEMBLES)


def get_config(defense: str) -> ConfigDict:
    """The recipe of one of `DEFENSES`."""
    config = cifar10.get_config("pgd_at")  # the defense is replaced below
    config.epochs = 6
    config.dataset.batch_size = 64
    config.dataset.limit = 10_000
    config.dataset.validation = 500
    config.model.name = "small_cnn"
    with config.unlocked():
        config.model.options = ConfigDict({"variant": "mnist", "dropout": 0.0})
    config.ball.radius = 4 / 255
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.momentum = 0.0
    config.optimizer.weight_decay = 0.0
    config.optimizer.schedule.kind = "constant"
    config.evaluation.limit = 1000
    config.evaluation.attacks = (
        {"name": "pgd", "options": {"steps": 20, "step_size": 1 / 255}},
        {"name": "fgsm", "options": {}},
    )
    config.evaluation.radii = tuple(radius / 255 for radius in (1, 2, 4, 6, 8))
    crafting = {"steps": 5, "step_size": 2 / 255}
    return with_defense(
        config,
        defense,
        {
            "standard": {"steps": 5},
            # The best price of the thesis for CIFAR-10.
            "wrm": {"steps": 15, "gamma": 0.5},
            "pgd_at": {**crafting, "clean_weight": 1.0},
            "trades": {**crafting, "beta": 6.0},
            "mart": {**crafting, "beta": 5.0},
            "ascl": crafting,
            "ensembles": crafting,
            "scl": {**crafting, "augment": "shift_flip"},
        },
    )
