"""Exports of runs: which checkpoint, with which threshold; thresholds set again."""

from __future__ import annotations

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.detection import Calibration, Detector
from keras_robust.experiments.publishing import export_run as module
from keras_robust.experiments.publishing.export_run import (
    checkpoints,
    export_run,
    read_detector,
    recalibrate,
)
from keras_robust.experiments.runs.loaded_run import load_run
from keras_robust.serving.exporting.clean_scores import find_clean_scores
from keras_robust.serving.exporting.export import METADATA_FILE, export_model
from keras_robust.serving.exporting.saved_model import SavedModelSession
from keras_robust.serving.exporting.verify import read_threshold

RATE = 0.02


@pytest.fixture(scope="module")
def other():
    """A classifier of the digits that is not the run's."""
    keras.utils.set_random_seed(1)
    return kr.models.mlp((8, 8, 1), 10, hidden=(8,))


@pytest.fixture(scope="module")
def run(tmp_path_factory, trained, other):
    """The trained run with another model as its last checkpoint; read it, do not write into it."""
    path = shutil.copytree(trained, tmp_path_factory.mktemp("runs") / "run")
    other.save(path / "checkpoints" / "last.keras")
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory, run):
    """The base path of exports: the best checkpoint, the last one, the last one recalibrated."""
    base = tmp_path_factory.mktemp("exported") / "digits"
    export_run(load_run(run), base)
    export_run(load_run(run, "last"), base)
    recalibrate(checkpoints(run), base, RATE)
    return base


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def metadata(path):
    return json.loads((path / "assets.extra" / METADATA_FILE).read_text())


def probabilities(path, images):
    with SavedModelSession(path) as model:
        return model.predict("detect", images)["probabilities"]


def close(served, model, images):
    local = keras.ops.softmax(model(images)["logits"])
    np.testing.assert_allclose(served, local, atol=1e-5)


def test_the_best_checkpoint_with_the_runs_threshold(exported, run):
    best = load_run(run)
    images, _ = best.test_images(3)
    path = exported / "1"
    close(probabilities(path, images.numpy()), best.model, images)
    assert read_threshold(path) == np.float32(Calibration.load(best.run.detector_file).threshold)
    assert metadata(path)["class_names"] == list("0123456789")
    assert metadata(path)["recipe"] == "digits/trades"


def test_another_checkpoint_gets_a_threshold_of_its_own(exported, run, other):
    best = load_run(run)
    images, _ = best.test_images(3)
    path = exported / "2"
    close(probabilities(path, images.numpy()), other, images)
    rate = best.detector.false_alarm_rate
    expected = Detector(other).calibrate(best.validation, rate)
    assert read_threshold(path) == pytest.approx(expected.threshold, abs=1e-6)
    assert metadata(path)["detector"]["samples"] == expected.samples
    assert metadata(path)["detector"]["false_alarm_rate"] == rate


def test_a_run_without_a_detector(copy, tmp_path):
    (copy / "detector.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"detector.json does not exist.*calibrate"):
        export_run(load_run(copy, read_data=False), tmp_path / "m")


def test_a_new_threshold_keeps_to_the_rate_on_the_validation_images(exported, run, other):
    path = exported / "3"
    validation = load_run(run).validation
    expected = Detector(other).calibrate(validation, RATE)
    assert read_threshold(path) == pytest.approx(expected.threshold, abs=1e-6)
    assert read_detector(path) == {
        "score": "entropy",
        "threshold": pytest.approx(expected.threshold, abs=1e-6),
        "false_alarm_rate": RATE,
        "samples": expected.samples,
    }
    with SavedModelSession(path) as model:
        flags = [model.predict("detect", x.numpy())["is_adversarial"] for x, _ in validation]
    assert np.concatenate(flags).sum() == int(RATE * expected.samples)


def test_all_but_the_threshold_stays(exported, run):
    before, after = metadata(exported / "2"), metadata(exported / "3")
    assert before.pop("detector") != after.pop("detector")
    assert before == after
    images = load_run(run).test_images(5)[0].numpy()
    np.testing.assert_allclose(
        probabilities(exported / "2", images), probabilities(exported / "3", images), atol=1e-6
    )


def test_no_other_files_are_left(exported):
    assert sorted(path.name for path in exported.iterdir()) == ["1", "2", "3"]
    assert [path.name for path in exported.parent.iterdir()] == ["digits"]


@pytest.mark.slow
def test_a_version_of_another_model_is_rejected(tmp_path, run):
    model = kr.models.mlp((8, 8, 1), 10, hidden=(4,))
    base = tmp_path / "digits"
    export_model(model, base, Detector(model).calibrate(load_run(run).validation, 0.1))
    with pytest.raises(ValueError, match=r"another model than .*run, best checkpoint and .*run, l"):
        recalibrate(checkpoints(run), base, RATE)
    assert [path.name for path in base.iterdir()] == ["1"]


def test_invalid_arguments_before_a_model_is_loaded(exported, monkeypatch):
    monkeypatch.setattr(module, "_same_model", None)
    with pytest.raises(ValueError, match="false_alarm_rate"):
        recalibrate([], exported, 2)
    with pytest.raises(ValueError, match="no score 'anger'"):
        recalibrate([], exported, RATE, score="anger")
    with pytest.raises(FileNotFoundError, match="holds no version 7"):
        recalibrate([], exported, RATE, version=7)


def test_a_score_for_ensembles(exported, run):
    with pytest.raises(ValueError, match="expected those of an ensemble") as caught:
        recalibrate(checkpoints(run), exported, RATE, score="disagreement")
    assert "\n" not in str(caught.value)


def test_too_few_images_for_the_rate(exported, run):
    with pytest.raises(ValueError, match="cannot be set from .* clean images"):
        recalibrate(checkpoints(run), exported, 0.0001)
    assert len(list(exported.iterdir())) == 3


def test_what_a_run_lacks_is_named(copy, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run directory .*nowhere does not exist"):
        list(checkpoints(tmp_path / "nowhere"))
    (copy / "checkpoints" / "best.keras").unlink()
    assert [run.checkpoint for run in checkpoints(copy)] == ["last"]
    (copy / "checkpoints" / "last.keras").unlink()
    with pytest.raises(FileNotFoundError, match="no checkpoint best or last"):
        list(checkpoints(copy))
    (copy / "recipe.json").write_text("{}")
    with pytest.raises(ValueError, match=r"recipe.json is not a recipe"):
        list(checkpoints(copy))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"detector": {"score": "anger"}}'])
def test_metadata_without_a_detector(tmp_path, text):
    with pytest.raises(FileNotFoundError, match="the version's detector is unknown"):
        read_detector(tmp_path)
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / METADATA_FILE).write_text(text)
    with pytest.raises(ValueError, match="describes no detector"):
        read_detector(tmp_path)


def test_a_version_holds_the_scores_of_validation_images(exported, run):
    found = find_clean_scores(exported / "1")
    loaded = load_run(run)
    np.testing.assert_allclose(
        found, loaded.detector.score_dataset(loaded.validation), rtol=1e-4, atol=1e-5
    )


def test_without_validation_images_a_version_has_no_scores(run):
    loaded = load_run(run)
    vars(loaded)["splits"] = dataclasses.replace(loaded.splits, validation=None)
    assert module._clean_scores(loaded, loaded.detector) is None
