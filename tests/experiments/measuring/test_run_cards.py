"""Verifying the model card of somebody else's run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import keras_robust as kr
from keras_robust.experiments.measuring import run_cards
from keras_robust.experiments.runs.loaded_run import load_run


class Stop(Exception):
    """Raised in the place of reading the data."""


@pytest.mark.parametrize("data_dir", [None, "mine"])
def test_no_directory_of_data_is_taken_from_the_run(trained, tmp_path, monkeypatch, data_dir):
    run = shutil.copytree(trained, tmp_path / "run")
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["dataset"]["data_dir"] = "theirs"
    (run / "recipe.json").write_text(json.dumps(recipe))
    read = []

    def load(name, batch_size, data_dir, **_):
        read.append(data_dir)
        raise Stop

    monkeypatch.setattr(kr.data, "load", load)
    (run / "card.json").write_text("{}")
    monkeypatch.setattr(run_cards, "_source_models", lambda *_: {})
    monkeypatch.setattr(
        run_cards.Card, "from_json", lambda text: type("Card", (), {"reevaluate": None})
    )
    with pytest.raises(Stop):
        run_cards.verify(run / "card.json", run, data_dir=data_dir)
    assert read == [data_dir]
    with pytest.raises(Stop):
        load_run(run)  # the user's own run: the directory of its training
    assert read == [data_dir, "theirs"]


def test_source_runs_are_loaded_without_their_data(trained, tmp_path, monkeypatch):
    for name in ("run", "twin"):
        shutil.copytree(trained, tmp_path / name)
    monkeypatch.setattr(kr.data, "load", None)
    card = type("Card", (), {"sources": ["twin"]})
    models = run_cards._source_models(card, tmp_path / "run", (), (None, None))
    assert list(models) == ["twin"]
    models = run_cards._source_models(card, tmp_path / "run", [tmp_path / "twin"], (None, None))
    assert list(models) == ["twin"]


@pytest.mark.parametrize("name", ["../away/twin", "..", "{}/away/twin", "away/twin"])
def test_the_names_in_a_card_lead_nowhere_else(name, trained, tmp_path):
    """A card may be somebody else's; the place of a source is given by its user."""
    name = name.format(tmp_path)
    shutil.copytree(trained, tmp_path / "away" / "twin")
    (tmp_path / "recipe.json").touch()  # what `..` would be
    card = type("Card", (), {"sources": [name]})
    away, run = tmp_path / "away" / "twin", tmp_path / "runs" / "run"
    with pytest.raises(ValueError, match="give its place by --transfer_from"):
        run_cards._source_models(card, run, (), (None, None))
    if Path(name) == away:
        assert list(run_cards._source_models(card, run, [away], (None, None))) == ["twin", name]
