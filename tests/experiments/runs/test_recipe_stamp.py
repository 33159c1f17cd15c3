"""Checkpoints carry their recipe; files of two runs that were mixed are refused."""

from __future__ import annotations

import json
import shutil
import zipfile

import pytest

from keras_robust.experiments.runs.loaded_run import load_run
from keras_robust.experiments.runs.recipe_stamp import training_fields
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.training import train_run


@pytest.fixture
def mixed(trained, tmp_path):
    """A run whose recipe says `mart`, with checkpoints that were trained by TRADES."""
    path = shutil.copytree(trained, tmp_path / "mixed")
    recipe = json.loads((path / "recipe.json").read_text("utf-8"))
    recipe["defense"]["name"] = "mart"
    (path / "recipe.json").write_text(json.dumps(recipe), "utf-8")
    return path


@pytest.mark.parametrize("name", ["best", "last"])
def test_every_checkpoint_carries_the_recipe(trained, name):
    run = RunDirectory(trained)
    with zipfile.ZipFile(run.checkpoint_file(name)) as archive:
        stamped = json.loads(archive.read("recipe.json"))
    assert stamped == json.loads(json.dumps(training_fields(run.recipe())))


def test_mixed_files_are_neither_loaded_nor_resumed(mixed):
    differs = r"trained by another recipe .* defense.name \('trades', not 'mart'\)"
    for checkpoint in ("best", "last"):
        with pytest.raises(ValueError, match=differs):
            load_run(mixed, checkpoint)
    with pytest.raises(ValueError, match=differs):
        train_run.prepare(RunDirectory(mixed).recipe(), mixed, resume=True)


def test_fields_that_may_change_between_sessions_are_not_compared(trained, tmp_path):
    path = shutil.copytree(trained, tmp_path / "longer")
    recipe = json.loads((path / "recipe.json").read_text("utf-8"))
    recipe["epochs"] = 99
    recipe["detector"]["false_alarm_rate"] = 0.2
    (path / "recipe.json").write_text(json.dumps(recipe), "utf-8")
    assert load_run(path).config.epochs == 99
