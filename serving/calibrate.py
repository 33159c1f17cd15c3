"""Re-calibrates an exported model: another threshold of its detector, without training it again.

    python -m serving.calibrate --run=RUN --model_base_path=exported/digits --false_alarm_rate=0.02

writes the next version: the same model, whose threshold is set anew on the run's validation images.
Like an export, it is verified, and appears by one atomic rename; a server that watches the
directory takes it on.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from serving.quiet import quiet_start

if __name__ == "__main__":  # a program starts without TensorFlow's lines about the machine
    with quiet_start():
        import tensorflow as tf

        tf.config.list_logical_devices()

from keras_robust.detection import Detector
from keras_robust.detection.calibration import check_rate
from keras_robust.scores import SCORES, score_called
from serving.export import METADATA_FILE, export_model
from serving.runs import TrainedRun, checkpoints, open_run
from serving.verify import stored_reference
from serving.version_dirs import version_dir


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
        score: a name of `keras_robust.scores.SCORES`; by default that of the version.
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
    exported = version_dir(model_base_path, version)
    score = score or read_detector(exported)["score"]
    score_called(score)
    trained = _same_model(run, exported)
    detector = Detector(trained.classifier, scored_by=score)
    return export_model(
        trained.classifier,
        model_base_path,
        detector.calibrate(trained.validation(data_dir), false_alarm_rate),
        class_names=trained.class_names,
        recipe=trained.recipe,
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
        score_called(detector["score"])
        return detector
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} tells of no detector ({error}); expected what `serving.export` wrote."
        ) from error


def _same_model(run: str | os.PathLike[str], exported: Path) -> TrainedRun:
    """The checkpoint of a run that a version was exported from."""
    expected = stored_reference(exported)
    for name in checkpoints(run):
        trained = open_run(run, name)
        if expected.is_of(trained.classifier):
            return trained
    open_run(run)  # says what is wrong with a run that holds no checkpoint
    raise ValueError(
        f"{exported} is another model than the checkpoints {checkpoints(run)} of {run}: they "
        "answer differently. Give the run that it was exported from, or export that run again."
    )


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string(
        "run", None, "The run that was exported.", required=True, flag_values=values
    )
    flags.DEFINE_string(
        "model_base_path", None, "Directory of the versions.", required=True, flag_values=values
    )
    flags.DEFINE_float(
        "false_alarm_rate",
        None,
        "At most this share of the validation images is flagged.",
        required=True,
        flag_values=values,
    )
    flags.DEFINE_integer("version", None, "Which; by default the latest.", flag_values=values)
    flags.DEFINE_enum("score", None, list(SCORES), "By default the version's.", flag_values=values)
    flags.DEFINE_string(
        "data_dir", None, "Of TensorFlow Datasets; by default the run's.", flag_values=values
    )


def run(values: flags.FlagValues = flags.FLAGS) -> str:
    """Does what the flags say; returns what to print."""
    path = recalibrate(
        values.run,
        values.model_base_path,
        values.false_alarm_rate,
        version=values.version,
        score=values.score,
        data_dir=values.data_dir,
    )
    detector = read_detector(path)
    return (
        f"{path}\n  flagged from now on: {detector['score']} above {detector['threshold']:.6g}, "
        f"{detector['false_alarm_rate']:g} of {detector['samples']} validation images at most"
    )


def main(_: list[str]) -> None:
    """Runs the program; what the user can mend ends it with one sentence."""
    logging.set_verbosity(logging.WARNING)
    try:
        print(run())
    except (OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
