"""Digits: scikit-learn's 8x8 handwritten digits, for first steps; a run takes seconds."""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_robust.experiments.recipes.schema import (
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
    "ibp",
    *OVER,
    *UNIONS,
    *PRETRAINING,
    *ENSEMBLES,
)
UNION = "linf=0.15+l2=0.7+l1=3"


def get_config(defense: str) -> ConfigDict:
    """The recipe of one of `DEFENSES`."""
    config = defaults()
    config.epochs = 30
    config.dataset.name = "digits"
    config.dataset.batch_size = 64
    config.dataset.validation = 0.15
    # Sized for 8x8 images; its dropout of one half is too much for so few images.
    config.model.options = ConfigDict({"variant": "mnist", "dropout": 0.0})
    config.ball.radius = 0.15
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.evaluation.attacks = (
        {"name": "pgd", "options": {"steps": 40}},
        {"name": "fgsm", "options": {}},
    )
    config.evaluation.radii = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
    if defense == "ibp":
        return _certified(config)
    if defense == "n_fgsm":
        config.optimizer.learning_rate = 3e-3  # at the peak of its schedule
        return single_step(config, {"steps": 10})
    compact = defense.startswith("adr")
    if compact:
        # With the clean side held latents shrink: always under Adam, with some seeds by SGD.
        config.optimizer.name = "sgd"
        config.optimizer.learning_rate, config.optimizer.momentum = 0.02, 0.9
    config = with_defense(
        config,
        defense,
        {
            "standard": {"steps": 10},
            # The price of MNIST.
            "wrm": {"steps": 15, "gamma": 0.05},
            # ADR's Eq. 4 has the clean term.
            "pgd_at": {"steps": 10, "clean_weight": float(compact)},
            "trades": {"steps": 10, "beta": 6.0},
            "mart": {"steps": 10, "beta": 5.0},
            "ascl": {"steps": 10},
            "ensembles": {"steps": 10},
            "scl": {"steps": 10, "augment": "shift"},
        },
    )
    if compact:
        config.defense.options.through_clean = True
    return in_union(config, UNION) if defense in UNIONS else config


def _certified(config: ConfigDict) -> ConfigDict:
    """Certified training: a small network without pools, and a ramp over the first half."""
    config.epochs = 60
    config.model.name = "strided_cnn"
    options = {"filters": (32, 64), "kernels": (3, 3), "strides": (1, 2), "dense": (128,)}
    config.model.options = ConfigDict(options)
    config.optimizer.schedule.kind = "step"
    config.optimizer.schedule.boundaries = (45, 55)
    options = {
        "train_radius": 0.165,
        "warmup_steps": 60,
        "ramp_steps": 600,  # of 1,140
        "initialization": "ibp",
        "steps": 10,
    }
    return with_defense(config, "ibp", {"ibp": options})
