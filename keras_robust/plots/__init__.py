"""Plots of what an evaluation found: functions of plain numbers that return matplotlib figures.

They need the extra `report` (`pip install keras_robust[report]`), asked for when one is drawn.
"""

from keras_robust.plots.accuracy_over_radius import accuracy_over_radius
from keras_robust.plots.canvas import to_png, to_svg
from keras_robust.plots.confusion import confusion
from keras_robust.plots.detection_scores import detection_scores
from keras_robust.plots.example_images import example_images
from keras_robust.plots.latent_space import latent_space
from keras_robust.plots.loss_surface import loss_surface
from keras_robust.plots.member_predictions import member_predictions
from keras_robust.plots.over_training import over_training
from keras_robust.plots.plane import Panel, plane
from keras_robust.plots.roc_curves import roc_curves
from keras_robust.plots.transfer_matrix import transfer_matrix

__all__ = [
    "Panel",
    "accuracy_over_radius",
    "confusion",
    "detection_scores",
    "example_images",
    "latent_space",
    "loss_surface",
    "member_predictions",
    "over_training",
    "plane",
    "roc_curves",
    "to_png",
    "to_svg",
    "transfer_matrix",
]
