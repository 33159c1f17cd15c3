"""Detection of attacked inputs: scores of outputs, thresholds calibrated on clean images, ROC."""

from keras_robust.detection.calibration import Calibration, threshold_at
from keras_robust.detection.detector import Detector, EntropyDetector
from keras_robust.detection.roc import Roc, auc, roc

__all__ = ["Calibration", "Detector", "EntropyDetector", "Roc", "auc", "roc", "threshold_at"]
