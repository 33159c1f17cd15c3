"""Damaged reports and cards raise ValueError with a sentence, or are what they say."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation import Card, CertificationResult, Report, evaluate, make_card
from keras_robust.evaluation.rendering.markdown import markdown_page

VALUES = [
    None,
    "text",
    "",
    [],
    [None],
    {},
    {"a": 1},
    -1,
    10**400,
    -1e308,
    0.5,
    True,
    math.nan,
    [[1]],
]


def places(value, path=()):
    """The paths of all values in a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2])
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


def mutations(document):
    for path in places(document):
        for value in [*VALUES, "missing", "extra"]:
            changed = copy.deepcopy(document)
            part = changed
            for key in path[:-1]:
                part = part[key]
            if value == "missing":
                del part[path[-1]]
            elif value == "extra" and isinstance(part, dict):
                part["unheard of"] = 1
            else:
                part[path[-1]] = value
            yield path, value, json.dumps(changed)


def check_all(document, read, use):
    failures, refused = [], 0
    for path, value, text in mutations(document):
        try:
            use(read(text))
        except ValueError as error:
            refused += 1
            assert len(str(error)) > 10
        except Exception as error:
            failures.append((path, value, repr(error)))
    assert not failures, failures[:10]
    assert refused > 100


def test_reports(make_report):
    radii = (0.1, None) * 50
    proof = CertificationResult("IBP", "ibp", "", 0.1, (0.1,), radii, 1.0, {"n": 1}, (2,))
    report = make_report(worst_case_found_by={"PGD-20": 46}, certificates=(proof,))

    def use(found):
        markdown_page([found], "Title")
        assert found.contradictions is not None and Report.from_json(found.to_json()) == found

    check_all(json.loads(report.to_json()), Report.from_json, use)


def test_cards():
    def model(x):
        return {"logits": x}

    data = np.array([[0.5, 0.3], [0.9, 0.1]], "float32"), [0, 0]
    attacks = {"a": kr.attacks.pgd(kr.LinfBall(0.2), 2)}
    attacks["b"] = kr.attacks.transfer(attacks["a"], model, "other")
    card = make_card(model, data, attacks, evaluate(model, data, attacks), recipe={"x": {"y": 1}})
    document = json.loads(card.to_json())
    document["report"] = {**document["report"], "attacks": document["report"]["attacks"][:1]}

    def use(found):
        found.to_markdown()
        found.differences(found.sample)
        assert found.sources is not None

    check_all(document, Card.from_json, use)


@pytest.mark.parametrize("text", ["", "{", "null", "3", '"a"', "[]", "[" * 5000, "{}"])
def test_what_is_not_a_document(text):
    for read in (Report.from_json, Card.from_json):
        with pytest.raises(ValueError, match=r"\w+ \w+"):
            read(text)


def test_damaged_attacks_are_refused_before_anything_is_attacked():
    ball = kr.LinfBall(0.2)
    data = np.array([[0.5, 0.3], [0.9, 0.1]], "float32"), [0, 0]
    model = lambda x: {"logits": x}  # noqa: E731
    attack = kr.attacks.fgsm(ball)
    card = make_card(model, data, attack, evaluate(model, data, attack))
    document = json.loads(card.to_json())
    document["attacks"]["FGSM"]["config"]["ball"]["config"]["radius"] = None
    with pytest.raises(ValueError, match="The attack FGSM of the card is damaged"):
        Card.from_json(json.dumps(document)).reevaluate(model, data)
