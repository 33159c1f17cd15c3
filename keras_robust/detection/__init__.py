"""Detection of adversarial images: scores, thresholds calibrated on clean images, ROC curves."""

from keras_robust.detection.calibration import Calibration, threshold_at
from keras_robust.detection.conformal import Conformal
from keras_robust.detection.detector import Detector, EntropyDetector
from keras_robust.detection.feature_squeezing import FeatureSqueezing
from keras_robust.detection.fitted import FittedDetector
from keras_robust.detection.layer_inconsistency import LayerInconsistency
from keras_robust.detection.local_dimension import LocalDimension
from keras_robust.detection.mahalanobis import Mahalanobis, RelativeMahalanobis
from keras_robust.detection.nearest_neighbors import NearestNeighbors
from keras_robust.detection.registry import NAMES, build, load
from keras_robust.detection.roc import Roc, auc, roc
from keras_robust.losses import uncertainty as scores

__all__ = [
    "NAMES",
    "Calibration",
    "Conformal",
    "Detector",
    "EntropyDetector",
    "FeatureSqueezing",
    "FittedDetector",
    "LayerInconsistency",
    "LocalDimension",
    "Mahalanobis",
    "NearestNeighbors",
    "RelativeMahalanobis",
    "Roc",
    "auc",
    "build",
    "load",
    "roc",
    "scores",
    "threshold_at",
]


def __dir__() -> list[str]:
    return __all__
