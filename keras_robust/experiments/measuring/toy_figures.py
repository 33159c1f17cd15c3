"""Figures of the toy problem: decision regions, trajectories of attacks, dual variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

import keras_robust as kr
from keras_robust.attacks.crafting.step_rules import SoftBallStep
from keras_robust.data.toy import SIDE, to_image, to_plane
from keras_robust.experiments.runs.loaded_run import LoadedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXTENT = (-5.0, 9.0, -4.0, 4.0)  # the part of the plane that is drawn
CLASSES = ("A", "B")
POINTS = 4  # of each cluster, whose trajectories are drawn
STEP = 0.1  # step size in the plane
# Attacks whose trajectories are drawn: title, multiplier and temperature in steps of a soft ball,
# None for a hard ball, and the push.
ATTACKS = (
    ("PGD", None, 0.0, "steepest"),
    ("UDR, lambda 1, tau = 2 steps", 1.0, 2.0, "steepest"),
    ("UDR, lambda 0.1, tau = 2 steps", 0.1, 2.0, "steepest"),
    ("UDR, lambda 0.1, tau = step / 4", 0.1, 0.25, "steepest"),
    ("UDR, lambda 1, gradient push", 1.0, 2.0, "gradient"),
    ("UDR, lambda 0.1, gradient push", 0.1, 2.0, "gradient"),
)


def decision_regions(runs: Mapping[str, LoadedRun]) -> Figure:
    """Draws the decision regions of runs.

    Args:
        runs: title -> run; a panel each.
    """
    points, labels = _test_points(next(iter(runs.values())))
    return kr.plots.decision_regions(
        [kr.plots.Panel(name, points, labels) for name in runs],
        [_probabilities(run.model) for run in runs.values()],
        EXTENT,
        CLASSES,
    )


def dual_variables(runs: Mapping[str, Sequence[LoadedRun]]) -> Figure:
    """Draws the dual variables of UDR over the epochs, with their spread over the seeds.

    Args:
        runs: title -> the runs of its seeds; a curve each.
    """
    curves = {
        name: [[row["dual"] for row in run.run.rows()] for run in seeds]
        for name, seeds in runs.items()
    }
    return kr.plots.training_curves(curves, "Dual variable lambda")


def trajectories(run: LoadedRun, model: keras.Model, steps: int) -> Figure:
    """Draws the steps of attacks that start at test points.

    Args:
        run: the run whose test points are attacked.
        model: the classifier to attack.
        steps: number of steps.
    """
    points, labels = _test_points(run)
    clusters = (labels == 0, (labels == 1) & (points[:, 0] < 4), points[:, 0] > 4)
    rows = np.concatenate([np.flatnonzero(cluster)[:POINTS] for cluster in clusters])
    hard = kr.attacks.pgd(kr.LinfBall(1 / SIDE), steps, STEP / SIDE)
    panels = []
    for title, multiplier, tau, push in ATTACKS:
        rule = hard.step_rule
        if multiplier is not None:
            # A gradient in the plane is 1 / SIDE of that of the image.
            scale = SIDE if push == "gradient" else 1
            rule = SoftBallStep(
                STEP / SIDE / scale, multiplier * scale, tau * STEP / SIDE, push=push
            )
        attack = kr.replace(hard, step_rule=rule, initialization=kr.initialization.AtInput())
        paths = kr.evaluation.trajectory(attack, model, to_image(points[rows]), labels[rows])
        panels.append(kr.plots.Panel(title, points[::8], labels[::8], to_plane(paths), radius=1.0))
    return kr.plots.decision_regions(panels, [_probabilities(model)] * len(panels), EXTENT, CLASSES)


def _test_points(run: LoadedRun) -> tuple[np.ndarray, np.ndarray]:
    """The test points `[n, 2]` in the plane, and their labels."""
    x, y = (part.numpy() for part in run.test_images(None))
    return to_plane(x), y


def _probabilities(model: keras.Model) -> np.ndarray:
    """The probability of class B over the extent, `[rows, columns]`."""
    xs, ys = np.linspace(*EXTENT[:2], 141), np.linspace(*EXTENT[2:], 81)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1)
    logits = np.asarray(model(to_image(grid.reshape(-1, 2)), training=False)["logits"])
    return (1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))).reshape(grid.shape[:2])
