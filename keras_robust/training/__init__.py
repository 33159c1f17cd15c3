"""Robust training: `RobustModel`, a `keras.Model` with a custom `train_step`, and its parts."""

from keras_robust.training.batch_norm_statistics import BatchNormStatistics
from keras_robust.training.catastrophic_overfitting import CatastrophicOverfitting
from keras_robust.training.defense_factory import RobustModelOptions, defense
from keras_robust.training.learning_rates import OneCycle, WarmUp
from keras_robust.training.radius_schedules import LinearRadius, RadiusSchedule, RandomRadius
from keras_robust.training.robust_model import RobustModel
from keras_robust.training.weight_perturbation import AWP

__all__ = [
    "AWP",
    "BatchNormStatistics",
    "CatastrophicOverfitting",
    "LinearRadius",
    "OneCycle",
    "RadiusSchedule",
    "RandomRadius",
    "RobustModel",
    "RobustModelOptions",
    "WarmUp",
    "defense",
]


def __dir__() -> list[str]:
    return __all__
