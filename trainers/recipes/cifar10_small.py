"""CIFAR-10 reduced to minutes on a CPU: 10,000 images, a small network, short attacks.

Loss weights are those of `cifar10/...`, the radius is half of theirs. The network is MNIST's
without dropout, crafting takes 5 steps of half the radius, and Adam trains a few epochs: enough to
compare defenses with each other, but far below their best results.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_robust.experiments.recipes.schema import (
    ENSEMBLES,
    UNIONS,
    in_union,
    single_step,
    with_defense,
)
from trainers.recipes import cifar10

DEFENSES = (*cifar10.DEFENSES, "ibp", *ENSEMBLES)
UNION = "linf=4/255+l2=0.25+l1=6"  # half of the radii of `cifar10/...`


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
    config.optimizer.ema = 0.98  # an epoch has 148 steps
    config.optimizer.schedule.kind = "constant"
    config.evaluation.limit = 1000
    config.evaluation.attacks = (
        {"name": "pgd", "options": {"steps": 20, "step_size": 1 / 255}},
        {"name": "fgsm", "options": {}},
    )
    config.evaluation.radii = tuple(radius / 255 for radius in (1, 2, 4, 6, 8))
    if defense == "ibp":
        return _certified(config)
    if defense == "n_fgsm":
        return single_step(config, {"steps": 5})
    crafting = {"steps": 5, "step_size": 2 / 255}
    config = with_defense(
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
    return in_union(config, UNION) if defense in UNIONS else config


def _certified(config: ConfigDict) -> ConfigDict:
    """Certified training at 2/255, the radius of published figures, on all images."""
    config.epochs = 30
    config.jit_compile = True
    config.dataset.batch_size = 100
    config.dataset.limit = None
    config.dataset.validation = 1000
    config.dataset.augment.name = "shift_flip"
    config.model.name = "strided_cnn"
    config.model.options = ConfigDict({})
    config.ball.radius = 2 / 255
    config.optimizer.learning_rate = 1e-3
    config.optimizer.ema = 0.0
    config.optimizer.schedule.kind = "step"
    config.optimizer.schedule.boundaries = (22, 27)
    config.optimizer.schedule.factor = 0.2
    config.evaluation.radii = tuple(radius / 255 for radius in (0.5, 1, 2, 3, 4))
    options = {
        "train_radius": 2.2 / 255,
        "warmup_steps": 490,
        "ramp_steps": 7350,  # fifteen epochs
        "initialization": "ibp",
        "steps": 5,
    }
    return with_defense(config, "ibp", {"ibp": options})
