"""MNIST in minutes on a CPU: the thesis's network, radius and loss weights, few epochs.

Linf radius 0.3. Crafting takes 10 steps of a quarter of the radius, the thesis 40 of 0.01, and Adam
replaces SGD, which needs many epochs. The thesis's own settings are `mnist_thesis/...`.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_robust.experiments.recipes.schema import (
    CERTIFIED,
    ENSEMBLES,
    OVER,
    PRETRAINING,
    UNIONS,
    defaults,
    in_union,
    single_step,
    with_defense,
)

DEFENSES = (
    "standard",
    "pgd_at",
    "n_fgsm",
    "trades",
    "mart",
    "wrm",
    "ascl",
    "scl",
    *CERTIFIED,
    *OVER,
    *UNIONS,
    *PRETRAINING,
    *ENSEMBLES,
)
UNION = "linf=0.3+l2=2+l1=10"  # of Maini et al. 2020, as the radii on CIFAR-10


def get_config(defense: str) -> ConfigDict:
    """The recipe of one of `DEFENSES`."""
    config = defaults()
    config.epochs = 3
    config.dataset.name = "mnist"
    config.dataset.validation = 2000  # attacked after each epoch: more would take too long
    config.ball.radius = 0.3
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.evaluation.attacks = (
        {"name": "pgd", "options": {"steps": 40, "step_size": 0.01}},
        {"name": "fgsm", "options": {}},
    )
    config.evaluation.radii = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35)
    if defense in CERTIFIED:
        return _certified(config, defense)
    if defense == "n_fgsm":
        config.epochs = 10  # each takes a fifth of the time of PGD-AT
        return single_step(config, {"steps": 10})
    crafting = {"steps": 10, "step_size": 0.075}
    config = with_defense(
        config,
        defense,
        {
            "standard": {"steps": 10},
            # The best price of the thesis for MNIST.
            "wrm": {"steps": 15, "gamma": 0.05},
            "pgd_at": {**crafting, "clean_weight": 1.0},
            "trades": {**crafting, "beta": 1.0},
            # Without a warm-up MART stays at a constant prediction for hundreds of steps: it
            # minimizes the divergence, and there is no clean term to move it away.
            "mart": {**crafting, "beta": 1.0, "radius_warmup": 300},
            "ascl": crafting,
            "ensembles": crafting,
            "scl": {**crafting, "augment": "shift"},
        },
    )
    return in_union(config, UNION) if defense in UNIONS else config


def _certified(config: ConfigDict, defense: str) -> ConfigDict:
    """Certified training: a network of strided convolutions, 40 epochs; `sabr` alone crafts."""
    config.epochs = 40
    config.jit_compile = defense != "crown_ibp"  # XLA would compute its lines after the ramp
    config.dataset.batch_size = 100
    config.dataset.validation = 1000
    config.model.name = "strided_cnn"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule.kind = "step"
    config.optimizer.schedule.boundaries = (28, 36)
    config.optimizer.schedule.factor = 0.2
    options = {
        "train_radius": 0.32,
        "clean_weight": 0.5,
        "warmup_steps": 200,
        "ramp_steps": 4720,  # eight epochs
        "initialization": "ibp",
        "steps": 10,
    }
    if defense == "sabr":
        options |= {
            "box_ratio": 0.6,
            "search_steps": 4,
            "train_radius": 0.3,
            "clean_weight": 0.25,
        }
    return with_defense(config, defense, {defense: options})
