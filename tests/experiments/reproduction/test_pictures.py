"""Pictures of attacked images."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from keras_robust.experiments.measuring import attacked_pictures
from keras_robust.experiments.reproduction.experiment import Training
from keras_robust.experiments.reproduction.pictures import History, LatentSpace, Surface
from keras_robust.experiments.reproduction.scales import SCALES

TRAINING = Training("digits/pgd_at")
PGD = "pgd:steps=40:step_size=0.01"


@pytest.fixture
def outcome(loaded):
    return SimpleNamespace(load=lambda training: loaded, scale=SCALES["minutes"])


def test_the_surface_around_an_attacked_image_of_a_kind(outcome, loaded, monkeypatch):
    attacks = []

    def surfaces(run, attack, count):
        attacks.append(attack)
        return {"input_surface_robust_0": "input", "latent_surface_robust_0": "latent"}

    monkeypatch.setattr(attacked_pictures, "surfaces", surfaces)
    for space in ("input", "latent"):
        assert Surface("x", TRAINING, space, PGD, "robust").draw(outcome) == space
    assert attacks[0] == loaded.attack(SCALES["minutes"].attack(PGD))
    with pytest.raises(ValueError, match="None of the first test images is fooling under pgd"):
        Surface("x", TRAINING, "input", PGD, "fooling").draw(outcome)


def test_latents_of_either_kind(outcome, loaded, monkeypatch):
    """Both kinds together are all attacked images."""
    shown = []
    monkeypatch.setattr(
        "keras_robust.plots.latent_space", lambda *args, fooled: shown.append(int(args[3].sum()))
    )
    monkeypatch.setattr("keras_robust.evaluation.project", lambda features: features[:, :2])
    for kind in ("fooling", "robust"):
        LatentSpace("x", TRAINING, "pgd:steps=2", 60, kind).draw(outcome)
    assert sum(shown) == 60 and min(shown) > 0


def test_a_history_has_every_seed(monkeypatch):
    """The same training with two seeds: both rows are drawn, as errors where they are errors."""
    logged = {0: [{"acc": 0.25}, {"other": 1.0}, {"acc": 0.5}], 1: [{"acc": 0.0}, {"acc": 1.0}]}
    drawn = {}
    monkeypatch.setattr(
        "keras_robust.plots.training_curves", lambda curves, label: drawn.update({label: curves})
    )
    outcome = SimpleNamespace(
        seeds=2,
        load=lambda training, seed: SimpleNamespace(run=SimpleNamespace(rows=lambda: logged[seed])),
    )
    curves = {"a": (TRAINING, "acc")}
    History("x", curves, "accuracy").draw(outcome)
    History("x", curves, "error", error=True).draw(outcome)
    assert drawn == {
        "accuracy": {"a": [[0.25, 0.5], [0.0, 1.0]]},
        "error": {"a": [[0.75, 0.5], [1.0, 0.0]]},
    }
