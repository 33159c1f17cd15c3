"""Detection of attacked inputs: scores of outputs, and thresholds calibrated on clean images."""

from keras_robust.detection.calibration import Calibration, threshold_at
from keras_robust.detection.detector import EntropyDetector

__all__ = ["Calibration", "EntropyDetector", "threshold_at"]
