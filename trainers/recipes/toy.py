"""Points in the plane: the thesis's toy problem, at its full size; a run takes a minute.

Bui, thesis, Monash 2023, chapter 5, appendix E: crafting with 20 steps of 0.1 and radius 1, Adam
with rate 0.001, 30 epochs; evaluated with 200 steps of 0.1 at radius 2. The plane is scaled into
the unit square, so all distances here are divided by `SIDE`.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_robust.experiments.recipes.schema import OVER, defaults, with_defense

# Copies of `keras_robust.data.toy`, which imports TensorFlow.
SIDE, OFFSET = 20.0, 8.0
DEFENSES = ("standard", "pgd_at", "trades", "mart", "wrm", "ascl", *OVER)


def get_config(defense: str) -> ConfigDict:
    """The recipe of one of `DEFENSES`."""
    config = defaults()
    config.epochs = 30
    config.steps_per_execution = 78  # an epoch: the steps are small
    config.dataset.name = "toy"
    config.dataset.validation = 1000
    config.model.name = "mlp"
    # The network sees coordinates of the plane.
    config.model.options = ConfigDict(
        {"hidden": (10, 10, 10), "mean": OFFSET / SIDE, "std": 1 / SIDE}
    )
    config.ball.radius = 1 / SIDE
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.evaluation.attacks = (
        {"name": "pgd", "options": {"steps": 200, "step_size": 0.1 / SIDE}},
    )
    config.evaluation.radii = tuple(radius / SIDE for radius in (0.5, 1.0, 1.5, 2.0))
    crafting = {"steps": 20, "step_size": 0.1 / SIDE}
    config = with_defense(
        config,
        defense,
        {
            "standard": {"steps": 20},
            # The default price, of a squared distance in the plane.
            "wrm": {"steps": 15, "gamma": 0.5 / 1.3 * SIDE**2},
            "pgd_at": {**crafting, "clean_weight": 1.0},
            "trades": {**crafting, "beta": 1.0},
            "mart": {**crafting, "beta": 1.0},
            "ascl": crafting,
        },
    )
    if config.defense.name == "udr":
        # The dual variable moves by distances: 0.02 in the plane.
        config.defense.options.dual_learning_rate = 0.02 * SIDE
    return config
