from __future__ import annotations

import json
from pathlib import Path

import pytest

from keras_robust.experiments.recipes import build, schema
from keras_robust.experiments.recipes.attack_spec import (
    attack_spec,
    read_evaluation,
    recipe_options,
)
from trainers import recipes


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("pgd", {}),
        (" pgd:steps=40", {"steps": 40}),
        ("pgd:step_size=2/8:loss=dlr", {"step_size": 0.25, "loss": "dlr"}),
        ("pgd:a=true:b=False:c=none:d=1e-3", {"a": True, "b": False, "c": None, "d": 1e-3}),
    ],
)
def test_an_attack_as_typed(text, options):
    assert attack_spec(text) == {"name": "pgd", "options": options}


def test_an_attack_of_a_recipe():
    spec = {"name": "pgd", "options": {"steps": 3}}
    assert attack_spec(spec) == spec and attack_spec(spec)["options"] is not spec["options"]
    assert attack_spec({"name": "pgd"}) == {"name": "pgd", "options": {}}


@pytest.mark.parametrize(
    "value", ["pgd:steps", "pgd:=3", {"options": {}}, {"name": "x", "y": 1}, 3]
)
def test_not_an_attack(value):
    with pytest.raises(ValueError, match="is not an (attack|option of an attack); expected"):
        attack_spec(value)


LISTED = [
    {"name": "fgsm", "options": {"loss": "margin"}},
    {"name": "pgd", "options": {"steps": 40, "step_size": 0.01, "restarts": 5}},
]


def test_options_that_are_not_given_are_the_recipes():
    assert recipe_options("pgd", LISTED, {}) == LISTED[1]["options"]
    assert recipe_options("pgd", LISTED, {"restarts": 1})["restarts"] == 1
    assert recipe_options("fgsm", LISTED, {}) == {"loss": "margin"}


def test_another_attack_has_the_steps_of_the_first_that_has_them():
    assert recipe_options("bim", LISTED, {}) == {"steps": 40, "step_size": 0.01}
    assert recipe_options("apgd", LISTED, {}) == {}


def test_a_step_size_belongs_to_its_steps_and_ball():
    assert "step_size" not in recipe_options("pgd", LISTED, {"steps": 20})
    assert "step_size" not in recipe_options("bim", LISTED, {}, same_ball=False)
    given = {"steps": 20, "step_size": 0.02}
    assert recipe_options("bim", LISTED, given, same_ball=False) == given


def test_a_recipe_of_release_0_1():
    """It has names of attacks, and one number of steps for all."""
    path = Path(__file__).with_name("recipe_0_1.json")
    config = schema.from_json(path)
    assert config.evaluation.to_dict() == {
        "attacks": (
            {"name": "pgd", "options": {"steps": 40}},
            {"name": "fgsm", "options": {}},
        ),
        "limit": None,
        "radii": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
    }
    build.check(config)
    now = recipes.load("digits/udr_trades")
    now.epochs = 2
    assert config.to_dict() == now.to_dict()


@pytest.mark.parametrize(
    ("attacks", "options"),
    [
        (["apgd", "square"], [{"restarts": 5}] * 2),
        (["bim"], [{"steps": 40, "step_size": 0.1}]),
        (["auto_attack"], [{}]),
        (["pgd"], [{"steps": 40, "step_size": 0.1, "restarts": 5}]),
    ],
)
def test_what_release_0_1_did_with_common_options(attacks, options):
    read = read_evaluation({"attacks": attacks, "steps": 40, "step_size": 0.1, "restarts": 5})
    assert [one["options"] for one in read["attacks"]] == options


def test_fields_of_both_releases_are_refused(tmp_path):
    document = json.loads(json.dumps(recipes.load("digits/trades").to_dict()))
    document["evaluation"]["steps"] = 10
    (tmp_path / "recipe.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="steps of an evaluation; set the options of each attack"):
        schema.from_json(tmp_path / "recipe.json")
