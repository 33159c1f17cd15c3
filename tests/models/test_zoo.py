"""Trained models of the package: files, weights, and agreement with their cards."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.models import zoo
from keras_robust.models.building import is_classifier

MEGABYTES = 8  # of all models, which every installation downloads


@pytest.fixture(scope="module")
def model(make_classifier):
    return make_classifier()


@pytest.fixture
def zoo_of_one(tmp_path, monkeypatch):
    """A copy of the smallest model, to be damaged."""
    shutil.copytree(zoo.DIRECTORY / "digits/ibp-linf-0.15", tmp_path / "digits/ibp-linf-0.15")
    monkeypatch.setattr(zoo, "DIRECTORY", tmp_path)
    return tmp_path / "digits/ibp-linf-0.15"


def test_weights_are_read_as_they_were(model, tmp_path):
    zoo.write(model, tmp_path)
    found = zoo.read(tmp_path)
    assert zoo.fingerprint(found) == zoo.fingerprint(model)
    assert sorted(found.output) == ["features", "logits"]


def test_half_precision_rounds_kernels_and_nothing_else(model, tmp_path):
    zoo.write(model, tmp_path, half=True)
    found = zoo.read(tmp_path)
    assert zoo.fingerprint(found) != zoo.fingerprint(model)
    for mine, theirs in zip(model.weights, found.weights, strict=True):
        value = mine.numpy()
        expected = value.astype("float16") if value.ndim > 1 else value
        np.testing.assert_array_equal(theirs, expected.astype("float32"))
        assert theirs.dtype == "float32"


@pytest.mark.parametrize("name", zoo.available())
def test_a_published_model_is_that_of_its_card(name):
    text = zoo.card_file(name).read_text("utf-8")
    card = kr.evaluation.Card.from_json(text)
    classifier = kr.models.load(name)  # compares the weights with the card
    assert is_classifier(classifier) and classifier.name == name.replace("/", "-")
    assert card.recipe["dataset"]["name"] == name.partition("/")[0]
    assert card.recipe["dataset"]["data_dir"] is None
    assert "/tmp" not in text and "/work" not in text and "/home" not in text
    assert card.commit and "changes" not in card.commit
    assert f"--name={name}" in card.report.command
    assert not card.report.unfinished and not card.report.contradictions
    assert "AutoAttack" in [attack.name for attack in card.report.attacks]
    for proof in card.report.proofs:
        assert proof.certified_accuracy <= card.report.worst_case_accuracy
    md = zoo.card_file(name).with_suffix(".md").read_text("utf-8")
    assert md == card.to_markdown()


def test_the_models_are_small():
    sizes = [path.stat().st_size for path in zoo.DIRECTORY.rglob("*") if path.is_file()]
    assert sum(sizes) < MEGABYTES * 1e6


@pytest.mark.parametrize("function", [zoo.load, zoo.card_file, zoo.weights_file])
def test_an_unknown_name(function):
    with pytest.raises(ValueError, match="no trained model 'digits/ibp'; expected one of digits/"):
        function("digits/ibp")
    with pytest.raises(ValueError, match="expected one of"):
        function("../models/published/digits/ibp-linf-0.15")


def test_weights_of_another_model_are_refused(zoo_of_one):
    found = zoo.read(zoo_of_one)
    found.weights[0].assign(found.weights[0] * 1.01)
    zoo.write(found, zoo_of_one)
    with pytest.raises(ValueError, match="weights of digits/ibp-linf-0.15 are sha256:.*card has"):
        zoo.load("digits/ibp-linf-0.15")


def test_damaged_files_are_named(zoo_of_one, model):
    document = json.loads((zoo_of_one / "model.json").read_text())
    zoo.write(model, zoo_of_one)
    (zoo_of_one / "model.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"weights\.npz has other weights than model\.json"):
        zoo.load("digits/ibp-linf-0.15")
    (zoo_of_one / "weights.npz").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="holds no readable model"):
        zoo.load("digits/ibp-linf-0.15")
