"""Exports runs with their detectors, and calibrates the detectors of exported versions again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_robust.certification import Bounds
from keras_robust.core.bounded_files import read_json
from keras_robust.detection import Detector
from keras_robust.detection.calibration import check_rate
from keras_robust.experiments.recipes import build, detector_spec
from keras_robust.experiments.runs.loaded_run import LoadedRun, load_run
from keras_robust.experiments.runs.run_directory import CHECKPOINTS, RunDirectory
from keras_robust.serving.exporting.clean_scores import LEAST
from keras_robust.serving.exporting.export import METADATA_FILE, export_model
from keras_robust.serving.exporting.verify import stored_reference
from keras_robust.serving.exporting.version_directory import find_version

# Validation images that are scored for the alarm; more make it hardly more sensitive.
MOST_SCORED = 5000


def export_run(
    run: LoadedRun,
    model_base_path: str | os.PathLike[str],
    *,
    version: int | None = None,
    bounds: Bounds | None = None,
    withhold: Iterable[str] = (),
) -> Path:
    """Exports the loaded checkpoint of a run with its detector.

    Args:
        run: the run.
        model_base_path: the directory that a server watches; its name is the name of the model.
        version: a positive integer; default the next free one.
        bounds: adds the signature `certify`; None for no such signature.
        withhold: outputs to leave out of all answers; see `export_model`.

    Returns:
        The version directory.

    Raises:
        FileNotFoundError: the run has no calibrated detector.
        ValueError, FileExistsError, VerificationError: see `export_model`.
    """
    detector = calibrated_detector(run)
    return _export(run, model_base_path, detector, version, bounds, withhold)


def calibrated_detector(run: LoadedRun) -> Detector:
    """The detector of a run.

    Raises:
        FileNotFoundError: it has none.
    """
    if run.detector is None:
        raise FileNotFoundError(
            f"{run.run.detector_file} does not exist, so the run has no threshold for a detector. "
            "`trainers.train` writes it at the end of a training; for another model, call "
            "`kr.detection.Detector(model).calibrate(validation, false_alarm_rate=0.05)"
            f".calibration.save({str(run.run.detector_file)!r})`."
        )
    return run.detector


def local_validation(run: LoadedRun) -> tf.data.Dataset | None:
    """The validation images of a run; None without any, or where they are on another machine."""
    try:
        return run.validation
    except (FileNotFoundError, ValueError):
        return None


def recalibrate(
    candidates: Iterable[LoadedRun],
    model_base_path: str | os.PathLike[str],
    false_alarm_rate: float,
    *,
    version: int | None = None,
    score: str | None = None,
) -> Path:
    """Exports a version again, with a threshold for another false alarm rate or another score.

    Args:
        candidates: models to find the version's among, such as the `checkpoints` of a run. The
            threshold is set on the validation images of the one that gives the same outputs.
        model_base_path: the directory that a server watches.
        false_alarm_rate: largest fraction of the validation images above the threshold.
        version: the version to calibrate; default the latest.
        score: the name of a score, with options as in `lid:k=10`; default that of the version.

    Returns:
        The directory of the new version, the next free one.

    Raises:
        FileNotFoundError: the version, the run or its data is missing.
        ValueError: an invalid rate or score, too few validation images for the rate, or no
            candidate is the version's model.
        VerificationError: the served model differs from the local one.
    """
    check_rate(false_alarm_rate)
    exported = find_version(model_base_path, version)
    score = score or _score_text(read_detector(exported))
    detector_spec.check(score)
    run = _same_model(candidates, exported)
    config = run.config.copy_and_resolve_references()
    config.detector.score = score
    build.check_score(config, run.model)
    size = run.splits.info.train_size
    detector = detector_spec.fitted(
        detector_spec.build(score, run.model),
        run.splits.train,
        run.validation,
        false_alarm_rate,
        train_size=size,
    )
    withheld = stored_reference(exported).withheld
    return _export(run, model_base_path, detector, bounds=read_bounds(exported), withhold=withheld)


def checkpoints(path: str | os.PathLike[str], data_dir: str | None = None) -> Iterator[LoadedRun]:
    """Yields a run directory once for each of its checkpoints, the best one first.

    Args:
        path: a run directory.
        data_dir: the directory of TensorFlow Datasets, if not the one of the training.

    Raises:
        FileNotFoundError: the run or its checkpoints are missing.
        ValueError: its recipe cannot be read.
    """
    directory = RunDirectory(path)
    names: list[str | None] = [
        name for name in CHECKPOINTS if directory.checkpoint_file(name).is_file()
    ]
    for name in names or [None]:  # without a checkpoint, the error names what is missing
        yield load_run(path, name, data_dir, read_data=False)


def read_detector(exported: Path) -> dict[str, Any]:
    """Reads the detector's settings from the metadata of a version.

    Raises:
        FileNotFoundError: the version has no metadata.
        ValueError: the metadata of another format.
    """
    path = exported / "assets.extra" / METADATA_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist, so the version's detector is unknown. Export the model with "
            "`keras-robust export`, which writes it."
        )
    try:
        detector = read_json(path)["detector"]
        detector_spec.check(_score_text(detector))
        return detector
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} describes no detector ({error}); expected a file that `keras-robust export` "
            "wrote."
        ) from error


def _score_text(detector: dict[str, Any]) -> str:
    """The score of a version's metadata, with its options."""
    return detector_spec.text_of(detector["score"], detector.get("options", {}))


def read_bounds(exported: Path) -> Bounds | None:
    """Reads the bounds of `certify` from the metadata of a version; None if it has none.

    Raises:
        ValueError: the metadata holds something else.
    """
    path = exported / "assets.extra" / METADATA_FILE
    stored = read_json(path).get("bounds")
    if stored is None:
        return None
    try:
        bounds = keras.saving.deserialize_keras_object(stored)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds bounds that cannot be read ({error}); expected a file that "
            "`keras-robust export` wrote."
        ) from error
    if not isinstance(bounds, Bounds):
        raise ValueError(f"{path} holds {bounds!r} as bounds; expected certified bounds.")
    return bounds


def _export(
    run: LoadedRun,
    model_base_path: str | os.PathLike[str],
    detector: Detector,
    version: int | None = None,
    bounds: Bounds | None = None,
    withhold: Iterable[str] = (),
) -> Path:
    return export_model(
        run.model,
        model_base_path,
        detector,
        version=version,
        class_names=run.class_names,
        recipe=run.config.name or None,
        bounds=bounds,
        clean_scores=_clean_scores(run, detector),
        withhold=withhold,
    )


def _clean_scores(run: LoadedRun, detector: Detector) -> np.ndarray | None:
    """The scores of validation images, for the alarm; None where too few are on this machine."""
    images = local_validation(run)
    if images is None:
        return None
    scores: list[np.ndarray] = []
    for batch in images:
        scores.append(detector.score_dataset([batch]))
        if sum(map(len, scores)) >= MOST_SCORED:
            break
    found = np.concatenate(scores)
    return found if len(found) >= LEAST and np.isfinite(found).all() else None


def _same_model(candidates: Iterable[LoadedRun], exported: Path) -> LoadedRun:
    """The candidate with the outputs of an exported version."""
    expected = stored_reference(exported)
    compared = []
    for run in candidates:
        if expected.matches(run.model):
            return run
        compared.append(run.title)
    raise ValueError(
        f"{exported} is another model than {' and '.join(compared)}: the outputs differ. Give the "
        "model that was exported, or export it again."
    )
