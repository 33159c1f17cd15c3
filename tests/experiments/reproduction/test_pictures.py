"""Pictures of attacked images."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from keras_robust.experiments.measuring import attacked_pictures
from keras_robust.experiments.reproduction.experiment import Training
from keras_robust.experiments.reproduction.pictures import LatentSpace, Surface
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
        "keras_robust.plots.latent_space", lambda *args: shown.append(int(args[3].sum()))
    )
    monkeypatch.setattr("keras_robust.evaluation.project", lambda features: features[:, :2])
    for kind in ("fooling", "robust"):
        LatentSpace("x", TRAINING, "pgd:steps=2", 60, kind).draw(outcome)
    assert sum(shown) == 60 and min(shown) > 0
