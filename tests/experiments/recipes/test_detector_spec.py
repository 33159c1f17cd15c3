"""Detectors of recipes and flags: names with options, and runs that keep fitted ones."""

from __future__ import annotations

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.experiments.publishing.export_run import export_run, read_detector, recalibrate
from keras_robust.experiments.recipes import build, detector_spec
from keras_robust.experiments.runs.loaded_run import load_run
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.training import train_run


def test_text_and_options_are_the_same():
    name, options = detector_spec.check("conformal:base=lid:altered=0.1")
    assert (name, options) == ("conformal", {"base": "lid", "altered": 0.1})
    assert detector_spec.check(detector_spec.text_of(name, options)) == (name, options)
    none = detector_spec.text_of("feature_squeezing", {"bits": None})
    assert detector_spec.check(none) == ("feature_squeezing", {"bits": None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("anger", "no score .*'anger'"),
        ("lid:neighbors=3", "'lid' has no option 'neighbors'; there are k"),
        ("entropy:k=3", "'entropy' has no option 'k'; there are none"),
    ],
)
def test_what_is_not_a_score_is_refused(text, message, tiny):
    config = tiny()
    config.detector.score = text
    with pytest.raises(ValueError, match=message):
        build.check(config)


def test_data_without_training_images_are_refused():
    detector = kr.detection.Mahalanobis(lambda x: x)
    with pytest.raises(ValueError, match="'mahalanobis' is fitted on training images"):
        detector_spec.fitted(detector, None, None, 0.05, train_size=0)


def test_a_run_keeps_a_fitted_detector(tiny, tmp_path):
    config = tiny("standard")
    config.defense.options = {}
    config.detector.score = "nearest_neighbors:k=3:bank=50"
    run = train_run.train(config, tmp_path / "run", verbose=0)
    detector = load_run(run.path).detector
    assert (detector.scored_by, detector.k, len(detector.fitted["bank"])) == (
        "nearest_neighbors",
        3,
        50,
    )
    loaded = load_run(run.path)
    validation = loaded.validation
    flagged = np.mean(detector.score_dataset(validation) > detector.threshold)
    assert flagged <= config.detector.false_alarm_rate
    attack = loaded.attack("pgd", {"loss": "detector_aware"})
    assert attack.objective.score == detector.adaptive_score
    RunDirectory(run.path).clear()
    assert not (run.path / "detector.npz").exists()


@pytest.mark.slow
def test_a_fitted_detector_is_exported_and_calibrated_again(tiny, tmp_path):
    config = tiny("standard")
    config.defense.options = {}
    config.detector.score = "lid:k=10"
    run = train_run.train(config, tmp_path / "run", verbose=0)
    base = tmp_path / "model"
    first = export_run(load_run(run.path), base)
    second = recalibrate([load_run(run.path)], base, 0.2)
    third = recalibrate([load_run(run.path)], base, 0.2, score="conformal:base=mahalanobis")
    assert read_detector(first)["options"] == {"k": 10, "bank": 500}
    assert read_detector(second)["options"] == {"k": 10, "bank": 500}
    assert read_detector(second)["threshold"] <= read_detector(first)["threshold"]
    assert read_detector(third)["options"] == {"base": "mahalanobis", "altered": 0.0}
