"""Run directories, as `trainers.train` leaves them: what a served model is made from."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import keras_robust
from keras_robust.detection import Calibration, EntropyDetector
from serving.signatures import classifier_of


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """What a run directory holds for a server.

    Args:
        classifier: of the checkpoint.
        detector: calibrated for it.
        class_names: one for each class, if the run knows them.
        recipe: name of the recipe, if it has one.
    """

    classifier: keras.Model
    detector: EntropyDetector
    class_names: list[str] | None
    recipe: str | None


def open_run(run: str | os.PathLike[str], checkpoint: str | None = None) -> TrainedRun:
    """Reads a checkpoint of a run, with a detector that is calibrated for it.

    The run's own threshold is of its best checkpoint, or of the last one if there is no best. For
    another checkpoint one is made on the run's validation images, at the same false-alarm rate: a
    threshold means nothing for another model.

    Args:
        run: a run directory.
        checkpoint: `"best"` or `"last"`; by default the best one if there is one.

    Returns:
        The classifier, its detector and their names.

    Raises:
        FileNotFoundError: when the run, its checkpoint or its calibration is missing.
        ValueError: when its recipe or its calibration cannot be read.
    """
    run = Path(run)
    path = _checkpoint(run, checkpoint)
    calibration = _calibration(run)
    recipe = _recipe(run)
    classifier = classifier_of(keras.saving.load_model(path, compile=False))
    if path == _checkpoint(run, None):
        detector = EntropyDetector.from_calibration(classifier, calibration)
    else:
        validation = _validation_images(recipe["dataset"])
        detector = EntropyDetector(classifier).calibrate(validation, calibration.false_alarm_rate)
    names = recipe["dataset"].get("class_names")
    return TrainedRun(classifier, detector, names, recipe.get("name") or None)


def _checkpoint(run: Path, name: str | None) -> Path:
    if not run.is_dir():
        raise FileNotFoundError(
            f"The run directory {run} does not exist; train one with "
            f"`python -m trainers.train --recipe=digits/trades --output_dir={run}`."
        )
    names = ["best", "last"] if name is None else [name]
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


def _validation_images(settings: dict[str, Any]) -> tf.data.Dataset:
    held_out = settings["validation"]
    splits = keras_robust.data.load(
        settings["name"],
        settings["batch_size"],
        settings["data_dir"],
        validation=int(held_out) if held_out >= 1 else held_out,
    )
    return splits.validation


def _calibration(run: Path) -> Calibration:
    path = run / "detector.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: the detector of this run has no threshold. `trainers.train` "
            "writes it at the end of the training; for a model trained otherwise, call "
            "`kr.detection.EntropyDetector(model).calibrate(validation, false_alarm_rate=0.05)"
            f".calibration.save({str(path)!r})`."
        )
    return Calibration.load(path)
