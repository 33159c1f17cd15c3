"""Run directories, as `trainers.train` leaves them: what a served model is made from."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import keras_robust
from keras_robust.detection import Calibration, Detector
from serving.signatures import classifier_of

CHECKPOINTS = ("best", "last")


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedRun:
    """What a run directory holds for a server.

    Args:
        path: the directory.
        checkpoint: the file that the classifier was read from.
        classifier: of the checkpoint.
        dataset: the settings of its data.
        recipe: name of the recipe, if it has one.
    """

    path: Path
    checkpoint: Path
    classifier: keras.Model
    dataset: dict[str, Any]
    recipe: str | None

    @property
    def class_names(self) -> list[str] | None:
        """One for each class, if the run knows them."""
        return self.dataset.get("class_names")

    @functools.cached_property
    def detector(self) -> Detector:
        """A detector that is calibrated for the checkpoint, by the score of the run's own.

        The run's own threshold is of its best checkpoint, or of the last one if there is no best.
        For another checkpoint one is made on the run's validation images, at the same false-alarm
        rate: a threshold means nothing for another model.

        Raises:
            FileNotFoundError: when the run has no calibration, or its data is missing.
            ValueError: when its calibration cannot be read.
        """
        calibration = _calibration(self.path)
        if self.checkpoint == _checkpoint(self.path, None):
            return Detector.from_calibration(self.classifier, calibration)
        detector = Detector(self.classifier, scored_by=calibration.score)
        return detector.calibrate(self.validation(), calibration.false_alarm_rate)

    def validation(self, data_dir: str | None = None) -> tf.data.Dataset:
        """The run's validation images, on which the model was not trained.

        Args:
            data_dir: where TensorFlow Datasets keeps the data, if not where it was in training.

        Raises:
            FileNotFoundError: when the data is missing.
            ValueError: when the run held no images out.
        """
        settings = self.dataset
        held_out = settings["validation"]
        splits = keras_robust.data.load(
            settings["name"],
            settings["batch_size"],
            data_dir or settings["data_dir"],
            validation=int(held_out) if held_out >= 1 else held_out,
            limit=settings.get("limit"),  # recipes of older releases have none
        )
        if splits.validation is None:
            raise ValueError(
                f"{self.path} was trained without validation images, and a threshold needs images "
                "that the model was not trained on; expected dataset.validation above 0."
            )
        return splits.validation


def open_run(run: str | os.PathLike[str], checkpoint: str | None = None) -> TrainedRun:
    """Reads a checkpoint of a run.

    Args:
        run: a run directory.
        checkpoint: `"best"` or `"last"`; by default the best one if there is one.

    Returns:
        The classifier, and what is known of it.

    Raises:
        FileNotFoundError: when the run or its checkpoint is missing.
        ValueError: when its recipe cannot be read.
    """
    run = Path(run)
    path = _checkpoint(run, checkpoint)
    recipe = _recipe(run)
    classifier = classifier_of(keras.saving.load_model(path, compile=False))
    return TrainedRun(run, path, classifier, recipe["dataset"], recipe.get("name") or None)


def checkpoints(run: str | os.PathLike[str]) -> list[str]:
    """The names of the checkpoints that a run holds, the best first."""
    return [name for name in CHECKPOINTS if (Path(run) / "checkpoints" / f"{name}.keras").is_file()]


def _checkpoint(run: Path, name: str | None) -> Path:
    if not run.is_dir():
        raise FileNotFoundError(
            f"The run directory {run} does not exist; train one with "
            f"`python -m trainers.train --recipe=digits/trades --output_dir={run}`."
        )
    names = CHECKPOINTS if name is None else (name,)
    paths = [run / "checkpoints" / f"{name}.keras" for name in names]
    for path in paths:
        if path.is_file():
            return path
    there = sorted(path.stem for path in run.glob("checkpoints/*.keras"))
    raise FileNotFoundError(
        f"{' and '.join(map(str, paths))} not found; the run holds the checkpoints {there}. "
        "Pass one of them as --checkpoint, or train on."
    )


def _recipe(run: Path) -> dict[str, Any]:
    path = run / "recipe.json"
    try:
        recipe = json.loads(path.read_text("utf-8"))
        recipe["dataset"]["name"]
        return recipe
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no recipe ({error!r}); expected the one that `trainers.train` wrote."
        ) from error


def _calibration(run: Path) -> Calibration:
    path = run / "detector.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: the detector of this run has no threshold. `trainers.train` "
            "writes it at the end of the training; for a model trained otherwise, call "
            "`kr.detection.Detector(model).calibrate(validation, false_alarm_rate=0.05)"
            f".calibration.save({str(path)!r})`."
        )
    return Calibration.load(path)
