"""Publishing the model of a run: what is stored, when half precision is, and what is left."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import keras
import pytest

import keras_robust as kr
from keras_robust.experiments.measuring.evaluate_run import EvaluationPlan
from keras_robust.experiments.publishing import publish_run as publishing
from keras_robust.experiments.publishing import published_models
from keras_robust.experiments.publishing.publish_run import changed_verdicts, publish_run
from keras_robust.experiments.runs.loaded_run import load_run
from keras_robust.models import zoo

NAME = "digits/trades"
PLAN = EvaluationPlan(attacks=["fgsm"], radii=(), limit=40, certify=["ibp"])


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """A copy of the run whose recipe names a directory of this machine."""
    path = shutil.copytree(trained, tmp_path_factory.mktemp("publish") / "run")
    recipe = json.loads((path / "recipe.json").read_text())
    recipe["dataset"]["data_dir"] = "/somewhere"
    (path / "recipe.json").write_text(json.dumps(recipe))
    return load_run(path)


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "DIRECTORY", tmp_path)
    return tmp_path


def left(directory):
    """All files and directories, hidden ones too."""
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


def changes(count):
    return lambda *_: {"predictions": (0, 360), "certificates by IBP": (count, 40)}


@pytest.mark.parametrize("changed", [0, 1])
def test_a_model_is_stored_in_half_precision_unless_a_verdict_changes(
    changed, run, directory, monkeypatch
):
    monkeypatch.setattr(publishing, "changed_verdicts", changes(changed))
    lines = []
    path = publish_run(run, NAME, PLAN, command="python -m x", log=lines.append)
    assert left(directory / NAME) == ["card.json", "card.md", "model.json", "weights.npz"]
    assert left(directory)[:2] == ["digits", NAME] and path == directory / NAME
    model = kr.models.load(NAME)
    same = zoo.fingerprint(model) == zoo.fingerprint(run.model)
    assert same == bool(changed)
    assert ("the weights stay in float32" in lines) == bool(changed)
    card = published_models.read_card(NAME)
    assert card.recipe["dataset"]["data_dir"] is None
    assert (card.report.samples, card.report.command) == (40, "python -m x")
    assert card.report.detection is None
    assert [c.name for c in card.report.certificates] == ["IBP"]
    with pytest.raises(FileExistsError, match=r"There is a model digits/trades already"):
        publish_run(run, NAME, PLAN)


def test_verdicts_of_another_model_differ(run, monkeypatch):
    """It predicts class 0 alone; a copy of the model differs in nothing."""
    config = run.config.copy_and_resolve_references()
    config.evaluation.attacks = ({"name": "fgsm", "options": {}},)
    run = dataclasses.replace(run, config=config)
    other = keras.models.clone_model(run.model)
    other.set_weights([0 * weight for weight in run.model.get_weights()])
    other.get_layer("logits").bias.assign([1.0] + 9 * [0.0])
    verdicts = {"run": run, "copy": run, "other": dataclasses.replace(run, model=other)}
    verdicts = {name: publishing._verdicts(one, PLAN) for name, one in verdicts.items()}
    given = iter([verdicts["run"], verdicts["copy"], verdicts["run"], verdicts["other"]])
    monkeypatch.setattr(publishing, "_verdicts", lambda *_: next(given))
    kinds = {"predictions": 360, "certificates by IBP": 40, "outcomes of FGSM": 40}
    same = changed_verdicts(run, run.model, PLAN)
    assert same == {kind: (0, total) for kind, total in kinds.items()}
    changed = changed_verdicts(run, other, PLAN)
    assert {kind: total for kind, (_, total) in changed.items()} == kinds
    assert 250 < changed["predictions"][0] < 360 and changed["outcomes of FGSM"][0] > 0


def test_nothing_is_left_of_a_failure(run, directory, monkeypatch):
    monkeypatch.setattr(publishing, "changed_verdicts", changes(0))

    def fails(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(publishing, "evaluate_run", fails)
    with pytest.raises(KeyboardInterrupt):
        publish_run(run, NAME, PLAN)
    assert left(directory) == ["digits"] and zoo.available() == ()


def test_a_replaced_model_is_gone(tmp_path):
    target = tmp_path / "digits" / "x"
    target.mkdir(parents=True)
    (target / "former").touch()
    with publishing._directory(target) as draft:
        (draft / "new").touch()
        assert left(target) == ["former"]
    assert left(tmp_path) == ["digits", "digits/x", "digits/x/new"]


def test_a_model_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    target = tmp_path / "digits" / "x"
    target.mkdir(parents=True)
    (target / "former").touch()
    replace = os.replace

    def fails_for_the_draft(source, destination):
        if str(source).endswith(".new"):
            raise OSError("no space")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", fails_for_the_draft)
    with pytest.raises(OSError, match="no space"), publishing._directory(target) as draft:
        (draft / "new").touch()
    assert left(tmp_path) == ["digits", "digits/x", "digits/x/former"]


@pytest.mark.parametrize("name", ["digits", "a/b/c", "../a", "/a/b", "Digits/a", "a/", "a b/c"])
def test_names(name):
    with pytest.raises(ValueError, match="expected <data>/<name> in lower case"):
        publishing.check_name(name)
