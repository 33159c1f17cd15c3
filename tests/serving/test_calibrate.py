"""Re-calibration: the next version is the same model with another threshold, and is of that run."""

from __future__ import annotations

import functools
import json
import shutil

import numpy as np
import pytest
from absl import flags

import keras_robust as kr
from keras_robust.detection import Detector
from keras_robust.experiments.runs import export_run
from keras_robust.experiments.runs.export_run import read_detector, recalibrate
from keras_robust.serving.exporting.export import export_model
from keras_robust.serving.exporting.saved_model import SavedModelSession
from keras_robust.serving.exporting.verify import read_threshold
from serving import calibrate

RATE = 0.02


@pytest.fixture(scope="module")
def validation():
    return kr.data.load("digits", validation=0.2, limit=600).validation


@pytest.fixture(scope="module")
def trained(tmp_path_factory, classifier, detector, tiny_classifier):
    """A run directory, whose last checkpoint was exported; the best one is another model."""
    path = tmp_path_factory.mktemp("runs") / "run"
    (path / "checkpoints").mkdir(parents=True)
    tiny_classifier(seed=1).save(path / "checkpoints" / "best.keras")
    classifier.save(path / "checkpoints" / "last.keras")
    dataset = {"name": "digits", "batch_size": 64, "data_dir": None, "validation": 0.2}
    dataset |= {"limit": 600, "class_names": list("0123456789")}
    (path / "recipe.json").write_text(json.dumps({"name": "digits/tiny", "dataset": dataset}))
    detector.calibration.save(path / "detector.json")
    return path


@pytest.fixture(scope="module")
def recalibrated(tmp_path_factory, exported_model, trained):
    base = tmp_path_factory.mktemp("exported") / "digits"
    shutil.copytree(exported_model, base)
    return recalibrate(trained, base, RATE)


def facts(path):
    return json.loads((path / "assets.extra" / "keras_robust.json").read_text())


def test_the_next_version_keeps_to_the_rate_on_the_runs_validation_images(
    recalibrated, classifier, validation
):
    assert recalibrated.name == "2"
    expected = Detector(classifier).calibrate(validation, RATE)
    assert read_threshold(recalibrated) == pytest.approx(expected.threshold, abs=1e-6)
    assert facts(recalibrated)["detector"] == {
        "score": "entropy",
        "threshold": pytest.approx(expected.threshold, abs=1e-6),
        "false_alarm_rate": RATE,
        "samples": 120,  # a fifth of what the recipe's limit leaves
    }
    with SavedModelSession(recalibrated) as model:
        flags = [model.predict("detect", x.numpy())["is_adversarial"] for x, _ in validation]
    assert np.concatenate(flags).sum() == 2  # of 120: 0.02 allows no third


def test_all_but_the_threshold_is_as_it_was(recalibrated, random_images):
    old = recalibrated.parent / "1"
    before, after = facts(old), facts(recalibrated)
    assert before.pop("detector") != after.pop("detector")
    assert before == after
    images = random_images(5)
    with SavedModelSession(old) as one, SavedModelSession(recalibrated) as two:
        mine, theirs = one.predict("detect", images), two.predict("detect", images)
    for name in ("probabilities", "detection_score"):
        np.testing.assert_allclose(mine[name], theirs[name], atol=1e-6)


def test_nothing_else_is_left_behind(recalibrated):
    assert sorted(path.name for path in recalibrated.parent.iterdir()) == ["1", "2"]
    assert [path.name for path in recalibrated.parent.parent.iterdir()] == ["digits"]


def test_a_version_of_another_model_is_refused(tmp_path, trained, tiny_classifier, calibrated):
    other = tiny_classifier(seed=2)
    base = tmp_path / "digits"
    export_model(other, base, calibrated(other))
    with pytest.raises(ValueError, match=r"another model than the checkpoints \['best', 'last'\]"):
        recalibrate(trained, base, RATE)
    assert [path.name for path in base.iterdir()] == ["1"]


def test_what_cannot_be_is_refused_before_a_model_is_loaded(
    tmp_path, exported_model, trained, monkeypatch
):
    monkeypatch.setattr(export_run, "_same_model", None)
    with pytest.raises(ValueError, match="false_alarm_rate=2"):
        recalibrate(trained, exported_model, 2)
    with pytest.raises(ValueError, match="no score 'anger'"):
        recalibrate(trained, exported_model, RATE, score="anger")
    with pytest.raises(FileNotFoundError, match="holds no version 7"):
        recalibrate(trained, exported_model, RATE, version=7)


def test_too_few_images_for_the_rate(exported_model, trained):
    with pytest.raises(ValueError, match="cannot be set from 120 clean images"):
        recalibrate(trained, exported_model, 0.001)
    assert [path.name for path in exported_model.iterdir()] == ["1"]


def test_a_run_that_is_not_there(tmp_path, exported_model):
    with pytest.raises(FileNotFoundError, match=r"run directory .*nowhere does not exist"):
        recalibrate(tmp_path / "nowhere", exported_model, RATE)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"detector": {"score": "anger"}}'])
def test_metadata_that_tell_of_no_detector(tmp_path, text):
    with pytest.raises(FileNotFoundError, match="nothing is known of the version's detector"):
        read_detector(tmp_path)
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "keras_robust.json").write_text(text)
    with pytest.raises(ValueError, match="tells of no detector"):
        read_detector(tmp_path)


def test_the_program(recalibrated, trained, monkeypatch, capsys):
    values = flags.FlagValues()
    calibrate.define_flags(values)
    arguments = [f"--run={trained}", f"--model_base_path={recalibrated.parent}"]
    values(["calibrate", *arguments, "--false_alarm_rate=0.02", "--data_dir=/data"])
    asked = []

    def instead(*args, **options):
        asked.append((args, options))
        return recalibrated

    monkeypatch.setattr(calibrate, "recalibrate", instead)
    monkeypatch.setattr(calibrate, "run", functools.partial(calibrate.run, values))
    calibrate.main([])
    assert asked == [
        (
            (str(trained), str(recalibrated.parent), 0.02),
            {"version": None, "score": None, "data_dir": "/data"},
        )
    ]
    assert capsys.readouterr().out == (
        f"{recalibrated}\n  flagged from now on: entropy above "
        f"{read_threshold(recalibrated):.6g}, 0.02 of 120 validation images at most\n"
    )
    monkeypatch.setattr(calibrate, "recalibrate", lambda *_, **__: recalibrate("no", "no", 0.5))
    with pytest.raises(SystemExit, match="FileNotFoundError: no holds no version of a model"):
        calibrate.main([])
