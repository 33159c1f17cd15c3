"""MNIST in an hour of one or two cores: the thesis's network at Linf 0.3, by attacks alone.

30 epochs of crafting with 10 steps, a one-cycle rate, averaged weights, and a radius that grows
over the first epochs, without which a large one may hold the network at a constant prediction.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from trainers.recipes import mnist

DEFENSES = ("pgd_at", "trades", "udr_trades")


def get_config(defense: str) -> ConfigDict:
    """The recipe of one of `DEFENSES`."""
    config = mnist.get_config(defense)
    config.epochs = 30
    config.dataset.validation = 1000
    config.optimizer.learning_rate = 2e-3
    config.optimizer.ema = 0.998
    config.optimizer.schedule.kind = "one_cycle"
    config.optimizer.schedule.peak = 0.3
    config.defense.options.radius_warmup = 1500
    if defense != "pgd_at":
        config.defense.options.beta = 4.0
    if defense == "udr_trades":
        # Lambda falls from 1 to about 0.2 over all steps, with which images change by up to 0.38.
        config.defense.options.dual_learning_rate = 4e-4
    return config
