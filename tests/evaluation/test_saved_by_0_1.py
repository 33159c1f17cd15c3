"""Reports and model cards that release 0.1 wrote load, verify, and are written in schema 4."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.evaluation import Card, Report, load_reports
from keras_robust.evaluation.rendering.markdown import markdown_page

SAVED = pathlib.Path(__file__).parent / "saved_by_0_1"


def model(x):
    return {"logits": 3.0 * tf.reshape(x, [-1, 4, 4])[:, 0, :3]}


@pytest.fixture(scope="module")
def card():
    return Card.from_json((SAVED / "card.json").read_text("utf-8"))


def test_a_report_loads_under_the_names_of_today():
    (report,) = load_reports(SAVED)
    assert (report.dataset, report.clean_accuracy, report.seed) == ("noise", 0.875, 3)
    assert [attack.name for attack in report.attacks] == ["PGD-5", "AutoAttack", "PGD-5 from b"]
    assert len(report.attacks[1].parts) == 4 and report.curves[0].radii == (0.0, 0.1, 0.3)
    assert report.detection.oblivious.name == "worst case of the report's attacks"
    assert report.detection.adaptive.evasion_rate > 0
    assert [check.name for check in report.checks] == ["gradients", "logits", "one step"]
    assert report.checks[0].message == (
        "The gradient of the cross-entropy vanishes in 0.0% of the images."
    )
    assert report.examples.clean.shape[1:] == (4, 4, 1)
    assert "## Evaluation settings" in markdown_page([report], "Title").replace("###", "##")


def test_a_report_is_written_again_in_the_schema_of_today():
    (report,) = load_reports(SAVED)
    document = json.loads(report.to_json())
    assert document["schema_version"] == 4 and document["certificates"] == []
    assert {"oblivious", "adaptive"} < set(document["detection"])
    assert set(document["checks"][0]) == {"name", "passed", "value", "message"}
    assert Report.from_json(report.to_json()) == report


def test_a_card_loads_and_its_attacks_find_the_same_today(card):
    with np.load(SAVED / "data.npz") as data:
        images = data["x"], data["y"]
    assert card.sources == ("b",)
    found = card.reevaluate(model, images, sources={"b": model})
    assert card.differences(found, weights="sha256:45") == ()
    assert found.worst_case_accuracy == card.sample.worst_case_accuracy


def test_a_card_round_trips(card):
    assert Card.from_json(card.to_json()) == card
