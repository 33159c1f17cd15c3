"""CIFAR-10 at the thesis's settings: ResNet18, Linf radius 8/255, crafting with 10 steps of 2/255.

Bui, thesis, Monash 2023, chapter 5, section 5.1 and appendix D: SGD with momentum, rate 0.01, times
0.1 after 75, 90 and 100 of 200 epochs. Unlike there, the weights that are validated and kept are
averaged (Rebuffi et al. 2021; those of the thesis are not: `thesis/udr/cifar10_resnet18/...`). It
takes days on a CPU; try it with `--config.model.name=small_cnn --config.epochs=3`.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_robust.experiments.recipes.schema import (
    OVER,
    PRETRAINING,
    UNIONS,
    defaults,
    in_union,
    single_step,
    with_defense,
)

DEFENSES = (
    *("standard", "pgd_at", "n_fgsm", "trades", "mart", "wrm", "ascl", "scl"),
    *OVER,
    *UNIONS,
    *PRETRAINING,
)
UNION = "linf=8/255+l2=0.5+l1=12"
MOMENTUM = 0.9
# The thesis adds 3.5e-3 times the weights to the gradient, which momentum multiplies by
# 1 / (1 - momentum) in the long run. Keras decays weights without momentum.
WEIGHT_DECAY = 3.5e-3 / (1 - MOMENTUM)


def get_config(defense: str) -> ConfigDict:
    """The recipe of one of `DEFENSES`."""
    config = defaults()
    config.epochs = 200
    config.dataset.name = "cifar10"
    config.dataset.validation = 2000  # attacked after each epoch
    config.dataset.augment.name = "pad_crop_flip"
    config.model.name = "resnet18"
    config.ball.radius = 8 / 255
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.01
    config.optimizer.momentum = MOMENTUM
    config.optimizer.weight_decay = WEIGHT_DECAY
    config.optimizer.ema = 0.995
    config.optimizer.schedule.kind = "step"
    config.optimizer.schedule.boundaries = (75, 90, 100)
    config.evaluation.attacks = (
        {"name": "pgd", "options": {"steps": 20, "step_size": 2 / 255}},
        {"name": "fgsm", "options": {}},
    )
    config.evaluation.radii = (2 / 255, 4 / 255, 8 / 255, 12 / 255, 16 / 255)
    if defense == "n_fgsm":
        # De Jorge et al. 2022: 30 epochs, a rate of 0.2 at half of the steps, decay of 5e-4.
        config.epochs = 30
        config.optimizer.learning_rate = 0.2
        config.optimizer.weight_decay = 5e-4 / (1 - MOMENTUM)
        return single_step(config, {"steps": 10})
    crafting = {"steps": 10, "step_size": 2 / 255}
    config = with_defense(
        config,
        defense,
        {
            "standard": {"steps": 10},
            # The best price of the thesis for CIFAR-10.
            "wrm": {"steps": 15, "gamma": 0.5},
            "pgd_at": {**crafting, "clean_weight": 1.0},
            "trades": {**crafting, "beta": 6.0},
            "mart": {**crafting, "beta": 5.0},
            "ascl": crafting,
            "scl": {**crafting, "augment": "shift_flip"},
        },
    )
    return in_union(config, UNION) if defense in UNIONS else config
