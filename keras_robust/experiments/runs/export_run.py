"""Exports of runs: a checkpoint with its detector, and re-calibrated versions of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from keras_robust.detection import Detector
from keras_robust.detection.calibration import check_rate
from keras_robust.losses import uncertainty as scores
from keras_robust.serving.exporting.export import METADATA_FILE, export_model
from keras_robust.serving.exporting.verify import stored_reference
from keras_robust.serving.exporting.version_directory import find_version
from keras_robust.experiments.runs.loaded_run import LoadedRun, load_run
from keras_robust.experiments.runs.run_directory import CHECKPOINTS, RunDirectory


def export_run(
    run: str | os.PathLike[str],
    model_base_path: str | os.PathLike[str],
    *,
    checkpoint: str | None = None,
    version: int | None = None,
) -> Path:
    """Exports a checkpoint of a run directory, with a detector that is calibrated for it.

    The run's own threshold is of its best checkpoint, or of the last one if there is no best. For
    another checkpoint one is made on the run's validation images, at the same false-alarm rate.

    Args:
        run: a directory made by `trainers.train`.
        model_base_path: the directory that a server watches; its name is the model's.
        checkpoint: `"best"` or `"last"`; by default the best one if there is one.
        version: a positive integer; by default the next free one.

    Returns:
        The version directory.

    Raises:
        FileNotFoundError: when the run, its checkpoint or its calibration is missing.
        ValueError, FileExistsError, VerificationError: see `export_model`.
    """
    loaded = load_run(run, checkpoint, read_data=False)
    if loaded.detector is None:
        raise FileNotFoundError(
            f"{loaded.run.detector_file} does not exist: the detector of this run has no "
            "threshold. `trainers.train` writes it at the end of the training; for a model trained "
            "otherwise, call `kr.detection.Detector(model).calibrate(validation, "
            f"false_alarm_rate=0.05).calibration.save({str(loaded.run.detector_file)!r})`."
        )
    return export_model(
        loaded.model,
        model_base_path,
        loaded.detector,
        version=version,
        class_names=loaded.run.class_names(),
        recipe=loaded.config.name or None,
    )


def read_detector(exported: Path) -> dict[str, Any]:
    """What the metadata of a version tell of its detector.

    Raises:
        FileNotFoundError: when it has none.
        ValueError: when they are no metadata of an export.
    """
    path = exported / "assets.extra" / METADATA_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: nothing is known of the version's detector. Versions made by "
            "`python -m serving.export` hold it."
        )
    try:
        detector = json.loads(path.read_text("utf-8"))["detector"]
        scores.get(detector["score"])
        return detector
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} tells of no detector ({error}); expected what `serving.export` wrote."
        ) from error


def recalibrate(
    run: str | os.PathLike[str],
    model_base_path: str | os.PathLike[str],
    false_alarm_rate: float,
    *,
    version: int | None = None,
    score: str | None = None,
    data_dir: str | None = None,
) -> Path:
    """Exports a version anew, with a threshold for another false-alarm rate or by another score.

    Args:
        run: the run directory that the version was exported from; whichever of its checkpoints
            answers as the version does is taken.
        model_base_path: the directory that a server watches.
        false_alarm_rate: at most this share of the run's validation images is above the threshold.
        version: which one to re-calibrate; by default the latest.
        score: a name of `keras_robust.detection.scores.SCORES`; by default that of the version.
        data_dir: where TensorFlow Datasets keeps the data, if not where it was in training.

    Returns:
        The directory of the new version, the next free one.

    Raises:
        FileNotFoundError: when the version, the run or its data is missing.
        ValueError: when the rate or the score cannot be, the validation images are too few for the
            rate, or the run's model is another than the version's.
        VerificationError: when the served model differs from the local one.
    """
    check_rate(false_alarm_rate)
    exported = find_version(model_base_path, version)
    score = score or read_detector(exported)["score"]
    scores.get(score)
    loaded = _same_model(run, exported, data_dir)
    detector = Detector(loaded.model, scored_by=score)
    return export_model(
        loaded.model,
        model_base_path,
        detector.calibrate(loaded.validation, false_alarm_rate),
        class_names=loaded.run.class_names(),
        recipe=loaded.config.name or None,
    )


def _same_model(run: str | os.PathLike[str], exported: Path, data_dir: str | None) -> LoadedRun:
    """The checkpoint of a run that a version was exported from."""
    expected = stored_reference(exported)
    directory = RunDirectory(run)
    names = [name for name in CHECKPOINTS if directory.checkpoint_file(name).is_file()]
    for name in names:
        loaded = load_run(run, name, data_dir, read_data=False)
        if expected.matches(loaded.model):
            return loaded
    load_run(run, read_data=False)  # says what is wrong with a run that holds no checkpoint
    raise ValueError(
        f"{exported} is another model than the checkpoints {names} of {run}: they answer "
        "differently. Give the run that it was exported from, or export that run again."
    )
