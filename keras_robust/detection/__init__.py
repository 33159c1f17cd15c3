"""Detection of adversarial images: scores, thresholds calibrated on clean images, ROC curves."""

from keras_robust.detection.calibration import Calibration, threshold_at
from keras_robust.detection.detector import Detector, EntropyDetector
from keras_robust.detection.roc import Roc, auc, roc
from keras_robust.losses import uncertainty as scores

__all__ = [
    "Calibration",
    "Detector",
    "EntropyDetector",
    "Roc",
    "auc",
    "roc",
    "scores",
    "threshold_at",
]


def __dir__() -> list[str]:
    return __all__
