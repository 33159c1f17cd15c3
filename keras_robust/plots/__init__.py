"""Plots of evaluation results: functions of plain numbers that return matplotlib figures.

They need the extra `report` (`pip install keras_robust[report]`), imported when a plot is drawn.
"""

from keras_robust.plots.accuracy_over_radius import accuracy_over_radius
from keras_robust.plots.confusion_matrix import confusion_matrix
from keras_robust.plots.contrast_pairs import contrast_pairs
from keras_robust.plots.decision_regions import Panel, decision_regions
from keras_robust.plots.detection_scores import detection_scores
from keras_robust.plots.example_images import example_images
from keras_robust.plots.gradient_histogram import gradient_histogram
from keras_robust.plots.latent_space import latent_space
from keras_robust.plots.loss_surface import loss_surface
from keras_robust.plots.member_predictions import member_predictions
from keras_robust.plots.roc_curves import roc_curves
from keras_robust.plots.series import series
from keras_robust.plots.step_curves import step_curves
from keras_robust.plots.style import to_png, to_svg
from keras_robust.plots.training_curves import training_curves
from keras_robust.plots.transfer_matrix import transfer_matrix

__all__ = [
    "Panel",
    "accuracy_over_radius",
    "confusion_matrix",
    "contrast_pairs",
    "decision_regions",
    "detection_scores",
    "example_images",
    "gradient_histogram",
    "latent_space",
    "loss_surface",
    "member_predictions",
    "roc_curves",
    "series",
    "step_curves",
    "to_png",
    "to_svg",
    "training_curves",
    "transfer_matrix",
]


def __dir__() -> list[str]:
    return __all__
