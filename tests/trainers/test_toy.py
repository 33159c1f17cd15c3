from __future__ import annotations

import json

import pytest

from keras_robust.experiments.recipes import build
from trainers import toy


@pytest.mark.parametrize("name", toy.TRAININGS)
def test_every_training_is_a_recipe_that_differs_as_it_says(name):
    config = toy.config(name, seed=3, epochs=2)
    build.check(config)
    assert (config.seed, config.epochs) == (3, 2)
    for field, value in toy.TRAININGS[name][1].items():
        *path, last = field.split(".")
        part = config
        for step in path:
            part = part[step]
        assert part[last] == value


def test_points_may_be_drawn_by_the_seed():
    assert toy.config(toy.HARD, 3, 2).dataset.name == "toy"
    config = toy.config(toy.HARD, 3, 2, redraw_data=True)
    build.check(config)
    assert config.dataset.name == "toy/3"


@pytest.mark.slow
def test_it_trains_evaluates_and_draws_and_does_not_train_twice(tmp_path, monkeypatch, capsys):
    names = (toy.HARD, toy.SOFT)
    monkeypatch.setattr(toy, "TRAININGS", {name: toy.TRAININGS[name] for name in names})
    monkeypatch.setattr(toy, "STEPS", 5)
    monkeypatch.setattr(toy, "DRAWN_STEPS", 3)
    found = toy.run(tmp_path, seeds=1, epochs=1, command="python -m x")
    assert json.loads((tmp_path / "toy.json").read_text()) == found
    assert list(found["trainings"]) == list(names)
    text = (tmp_path / "toy.md").read_text()
    for name, both in found["trainings"].items():
        assert f"| {name} | {both['clean'][0]:.1%} ± 0.0 | {both['robust'][0]:.1%} ± 0.0 |" in text
        assert both["robust"][0] <= both["clean"][0]
    for picture in ("boundaries", "trajectories", "dual"):
        assert (tmp_path / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    last = tmp_path / "runs" / "pgd-at_0" / "checkpoints" / "last.keras"
    before = last.stat().st_mtime_ns
    assert toy.run(tmp_path, seeds=1, epochs=1, command="python -m x") == found
    assert last.stat().st_mtime_ns == before
    assert "%" in capsys.readouterr().out


def test_the_spread_is_the_standard_deviation():
    """Of 70 and 80 per cent: 75, and the square root of (25 + 25) / 1."""
    assert toy.table({"x": {"clean": [1.0], "robust": [0.7, 0.8]}}, "y").splitlines()[2] == (
        "| x | 100.0% ± 0.0 | 75.0% ± 7.1 |"
    )
