"""The table of the trained models, and their cards on the data itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import keras_robust as kr
from keras_robust.experiments.publishing import published_models
from keras_robust.models import zoo

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "tensorflow_datasets"


def test_the_document_has_the_table_of_the_cards(tmp_path):
    document = ROOT / "docs" / "models.md"
    copy = tmp_path / "models.md"
    copy.write_text(document.read_text("utf-8"), "utf-8")
    published_models.write_table(copy)
    assert copy.read_text("utf-8") == document.read_text("utf-8")
    copy.write_text("no table")
    with pytest.raises(ValueError, match="has no lines '<!-- Trained models"):
        published_models.write_table(copy)


def test_the_table_is_in_the_order_of_robustbench(monkeypatch):
    """By data, threat model and radius; then the most robust first, whatever the names."""
    card = published_models.read_card("digits/ibp-linf-0.15")
    made = {
        "digits/a": ("Linf, radius 0.15, bounds [0, 1]", 0.15, 0.5),
        "digits/b": ("Linf, radius 0.15, bounds [0, 1]", 0.15, 0.7),
        "digits/c": ("Linf, radius 0.1, bounds [0, 1]", 0.1, 0.1),
        "digits/d": ("L2, radius 1, bounds [0, 1]", 1.0, 0.2),
        "cifar10/e": ("Linf, radius 8/255, bounds [0, 1]", 8 / 255, 0.3),
    }
    fields = ("threat_model", "radius", "worst_case_accuracy")

    def read(name):
        changes = dict(zip(fields, made[name], strict=True))
        return dataclasses.replace(card, report=dataclasses.replace(card.report, **changes))

    monkeypatch.setattr(published_models, "read_card", read)
    file = zoo.weights_file("digits/ibp-linf-0.15")
    monkeypatch.setattr(zoo, "weights_file", lambda name: file)
    rows = published_models.table(list(made)).splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [
        "cifar10/e", "digits/d", "digits/c", "digits/b", "digits/a"
    ]  # fmt: skip
    model = kr.models.load("digits/ibp-linf-0.15")
    assert f"| {model.count_params():,} |" in rows[0] and "| 70.0% (" in rows[3]


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.available())
def test_a_card_holds(name):
    """AutoAttack and the certificates on the first hundred test images."""
    try:
        different = published_models.verify(name, str(SHARED) if SHARED.is_dir() else None)
    except FileNotFoundError as error:
        pytest.skip(f"The data is missing: {error}")
    assert different == ()
