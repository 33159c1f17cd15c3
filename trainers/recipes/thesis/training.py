"""What the recipes of several chapters have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from keras_robust.experiments.recipes.schema import defaults
from trainers.recipes import cifar10

MOMENTUM = cifar10.MOMENTUM


class Crafting(NamedTuple):
    """An Linf radius, and the steps of PGD that craft training images; units of [0, 1]."""

    radius: float
    steps: int
    step_size: float

    def options(self) -> dict[str, Any]:
        """The options of a defense."""
        return {"steps": self.steps, "step_size": self.step_size}


# Sections 4.1 of ASCL, "Experimental Setting" of CCE, 5 of UDR: the same.
CIFAR = {
    "cifar10": Crafting(8 / 255, 10, 2 / 255),
    "cifar100": Crafting(0.01, 10, 0.001),
}


def start(dataset: str, radius: float, epochs: int, augment: str = "none") -> ConfigDict:
    """A recipe of a data set at a radius, with batches of 128 images."""
    config = defaults()
    config.epochs = epochs
    config.dataset.name = dataset
    # Chooses the checkpoint. The thesis does not say how it did, nor that it held images out.
    config.dataset.validation = 2000
    config.dataset.augment.name = augment
    config.ball.radius = radius
    return config


def sgd(
    config: ConfigDict, rate: float, weight_decay: float = 0.0, boundaries: Sequence[int] = ()
) -> ConfigDict:
    """SGD with momentum 0.9, the rate times 0.1 after the epochs of `boundaries`.

    Args:
        config: the recipe, which is changed.
        rate: the learning rate.
        weight_decay: factor of the weights in the gradient, as in the thesis. Momentum multiplies
            it by `1 / (1 - momentum)` in the long run; Keras decays weights without momentum.
        boundaries: epochs; none for a constant rate.
    """
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = rate
    config.optimizer.momentum = MOMENTUM
    config.optimizer.weight_decay = weight_decay / (1 - MOMENTUM)
    return _stepwise(config, boundaries)


def adam(config: ConfigDict, boundaries: Sequence[int] = ()) -> ConfigDict:
    """Adam with rate 0.001, times 0.1 after the epochs of `boundaries`."""
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    return _stepwise(config, boundaries)


def _stepwise(config: ConfigDict, boundaries: Sequence[int]) -> ConfigDict:
    if boundaries:
        config.optimizer.schedule.kind = "step"
        config.optimizer.schedule.boundaries = tuple(boundaries)
    return config


def network(config: ConfigDict, name: str, **options: Any) -> ConfigDict:
    """Sets the architecture."""
    config.model.name = name
    config.model.options = ConfigDict(options)
    return config


def attacked(
    config: ConfigDict, step_size: float, radii: Sequence[float] = (), **steps: int
) -> ConfigDict:
    """Sets the attacks of the evaluation.

    Args:
        config: the recipe, which is changed.
        step_size: of all of them.
        radii: of the accuracy over radius.
        **steps: the attacks by name, and their numbers of steps.
    """
    config.evaluation.attacks = tuple(
        {"name": name, "options": {"steps": count, "step_size": step_size}}
        for name, count in steps.items()
    )
    config.evaluation.radii = tuple(radii)
    return config
