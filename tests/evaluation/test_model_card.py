"""Model cards round-trip, and name the figures that a re-evaluation contradicts.

The model's logits are its two pixels; an attack of radius 0.1 fools the images whose margin is
below 0.2.
"""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation import Card, evaluate, make_card

MARGINS = np.linspace(0.01, 0.4, 40)  # 20 of them below 0.2
DATA = np.stack([0.5 + MARGINS / 2, 0.5 - MARGINS / 2], 1).astype("float32"), np.zeros(40, int)
BALL = kr.LinfBall(0.1)
ATTACKS = {"one": kr.attacks.fgsm(BALL), "many": kr.attacks.restarts(kr.attacks.pgd(BALL, 3), 2)}


def pixels(x):
    return {"logits": x}


def shifted(x):
    """Wrong about the margins below 0.06 as well, and fooled at those below 0.26."""
    return {"logits": x + tf.constant([[0.0, 0.06]])}


@pytest.fixture(scope="module")
def report():
    return evaluate(pixels, DATA, ATTACKS, seed=3, dataset="a line", defense="none")


@pytest.fixture(scope="module")
def card(report):
    recipe = {"epochs": 3, "dataset": {"name": "a line"}}
    return make_card(
        pixels, DATA, ATTACKS, report, recipe=recipe, commit="abc", weights="w", sample=30
    )


def test_it_round_trips(card, tmp_path):
    path = card.save(tmp_path / "deep")
    assert Card.from_json(path.read_text("utf-8")) == card
    assert {file.name for file in path.parent.iterdir()} == {"card.json", "card.md"}
    assert (card.report.samples, card.sample.samples) == (40, 30)
    assert card.report.examples is None


def test_the_sample_is_the_first_images(card):
    """Of the first 30 margins, 20 are below 0.2."""
    assert card.report.worst_case_accuracy == pytest.approx(20 / 40, abs=0.026)
    assert card.sample.worst_case_accuracy == pytest.approx(10 / 30, abs=0.034)


def test_an_honest_card_holds(card):
    again = Card.from_json(card.to_json())  # from its text alone
    found = again.reevaluate(pixels, DATA)
    assert [attack.name for attack in found.attacks] == ["one", "many"]
    assert found.seed == 3
    assert again.differences(found, "w") == ()


def test_another_model_is_detected(card):
    said = card.differences(card.reevaluate(shifted, DATA), "v")
    assert said[0] == "The weights are v; the card has w."
    assert [sentence.split(":")[0] for sentence in said[1:]] == [
        "Clean accuracy",
        "Accuracy under one",
        "Accuracy under many",
        "Worst case",
    ]
    assert said[1] == "Clean accuracy: 100.0% of the sample in the card, 83.3% now."


def test_a_forged_accuracy_is_detected(card):
    flattering = dataclasses.replace(card.report, worst_case_accuracy=0.9)
    forged = dataclasses.replace(card, report=flattering)
    (said,) = forged.differences(card.sample)
    assert said.startswith(
        "Worst case: 90.0% of all images in the card, which contradicts its sample ("
    )


def test_one_image_may_fall_on_the_other_side(card):
    one = dataclasses.replace(card.sample, clean_accuracy=1 - 1 / 30)
    two = dataclasses.replace(card.sample, clean_accuracy=1 - 2 / 30)
    assert card.differences(one) == ()
    assert len(card.differences(two)) == 1


def test_fewer_images_are_detected(card):
    found = evaluate(pixels, DATA, ATTACKS, limit=20)
    assert card.differences(found)[0] == "There are 20 images; expected 30."


def test_markdown_contains_everything(card):
    card_text = card.to_markdown()
    assert card_text.startswith("# Model card: none\n")
    for text in (
        "| Worst case (all attacks together) |",
        "- dataset.name: a line\n",
        "- epochs: 3\n",
        "- Commit: abc\n- Weights: w\n- Sample: the first 30 test images",
        "## Serialized attacks",
        "keras\\_robust.attacks",
    ):
        assert text.replace("\\_", "_") in card_text.replace("\\_", "_"), text


def test_markdown_takes_what_a_card_quotes_for_text(card):
    """A card may be somebody else's: its names and values are no tags, links or images."""
    evil = "<img src=x onerror=alert(1)> ![x](http://x.org/y) [a](javascript:b) | `c`\n# d"
    recipe = {evil: evil, "nested": {evil: (evil,)}}
    changed = dataclasses.replace(
        card, recipe=recipe, commit=evil, weights=evil, attacks={evil: {"name": evil}}
    )
    text = changed.to_markdown()
    assert "<img" not in text and "&lt;img" in text
    assert not re.search(
        r"(?<!\\)[\[\]`]", text.partition("## Serialized attacks")[2].replace("`--verify`", "")
    )
    assert "\n# d" not in text
    assert "<img" not in changed._repr_html_()


def test_an_attack_from_another_model_needs_that_model():
    attacks = {"one": ATTACKS["one"], "other": kr.attacks.transfer(ATTACKS["one"], shifted, "b")}
    card = make_card(pixels, DATA, attacks, evaluate(pixels, DATA, attacks))
    again = Card.from_json(card.to_json())
    assert again.sources == ("b",) and card.sources == again.sources
    with pytest.raises(
        ValueError, match="attack other is crafted on b; pass that model in `sources`"
    ):
        again.reevaluate(pixels, DATA)
    found = again.reevaluate(pixels, DATA, sources={"b": shifted})
    assert [attack.name for attack in found.attacks] == ["one", "other"]
    assert again.differences(found) == ()
    assert '"transferred_from": "b"' in card.to_markdown().replace("\\", "")


def test_an_unfinished_report_has_no_card(report):
    cut = dataclasses.replace(report, unfinished="There was no time.")
    with pytest.raises(ValueError, match="report is unfinished.*There was no time"):
        make_card(pixels, DATA, ATTACKS, cut)


def test_invalid_cards_are_refused(card, report):
    with pytest.raises(ValueError, match="Not a model card; expected the fields attacks, commit"):
        Card.from_json(report.to_json())
    document = json.loads(card.to_json())
    with pytest.raises(ValueError, match="schema version 9"):
        Card.from_json(json.dumps({**document, "schema_version": 9}))
    document["attacks"]["one"] = {"module": "os", "class_name": "system", "registered_name": None}
    with pytest.raises(ValueError, match="The attack one is None; expected one of keras_robust"):
        Card.from_json(json.dumps(document)).reevaluate(pixels, DATA)
    with pytest.raises(ValueError, match="The attacks are FGSM; expected those of the report, one"):
        make_card(pixels, DATA, kr.attacks.fgsm(BALL), report)
