"""Losses on outputs: one value per example, and robust losses that a `RobustModel` minimizes."""

from keras_robust.losses.classification import (
    boosted_cross_entropy,
    cross_entropy,
    dlr,
    entropy,
    kl_divergence,
    log_mean_probability,
    margin,
    member_cross_entropies,
    misclassified,
    negative_log_likelihood,
    targeted_dlr,
    targeted_margin,
)
from keras_robust.losses.contrastive import Contrastive, contrast, select
from keras_robust.losses.decoupled_kl import pairwise_mse
from keras_robust.losses.label_smoothing import smoothed_labels
from keras_robust.losses.robust_loss import (
    Adversarial,
    Clean,
    KLConsistency,
    SumOfLosses,
    WorstCase,
    total,
)

__all__ = [
    "Adversarial",
    "Clean",
    "Contrastive",
    "KLConsistency",
    "SumOfLosses",
    "WorstCase",
    "boosted_cross_entropy",
    "contrast",
    "cross_entropy",
    "dlr",
    "entropy",
    "kl_divergence",
    "log_mean_probability",
    "margin",
    "member_cross_entropies",
    "misclassified",
    "negative_log_likelihood",
    "pairwise_mse",
    "select",
    "smoothed_labels",
    "targeted_dlr",
    "targeted_margin",
    "total",
]


def __dir__() -> list[str]:
    return __all__
