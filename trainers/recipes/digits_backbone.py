"""Digits on a backbone of `keras.applications`, which resizes them to 96 x 96 pixels.

A template for fine-tuning on images of your own; a run takes minutes on two cores. The weights are
random, as pretrained ones have to be downloaded: `--config.model.options.weights=imagenet` (or a
file) `--config.optimizer.learning_rate=1e-4` starts from those, with batch normalization frozen.
"""

from __future__ import annotations

from ml_collections import ConfigDict, config_dict

from keras_robust.experiments.recipes.schema import with_defense
from trainers.recipes import digits

DEFENSES = ("standard", "pgd_at", "trades")


def get_config(defense: str) -> ConfigDict:
    """The recipe of one of `DEFENSES`."""
    config = digits.get_config("pgd_at")  # the defense is replaced below
    config.epochs = 10
    config.dataset.batch_size = 32
    config.model.name = "backbone"
    config.model.options = ConfigDict(
        {
            "application": "MobileNetV3Small",
            "size": 96,
            "weights": config_dict.placeholder(str),
            "trainable": config_dict.placeholder(str),
        }
    )
    config.ball.radius = 0.1
    config.optimizer.global_clipnorm = 1.0
    config.optimizer.ema = 0.95  # an epoch has 38 steps
    config.optimizer.schedule.kind = "cosine"
    config.optimizer.schedule.warmup = 1.0
    config.evaluation.attacks = ({"name": "pgd", "options": {"steps": 20}},)
    config.evaluation.radii = ()
    crafting = {"steps": 3, "radius_warmup": 114}  # three epochs
    return with_defense(
        config,
        defense,
        {
            "standard": {"steps": 3},
            "pgd_at": {**crafting, "clean_weight": 1.0},
            "trades": {**crafting, "beta": 3.0},
        },
    )
