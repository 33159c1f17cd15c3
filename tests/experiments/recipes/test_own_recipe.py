"""Recipes in a file of one's own."""

from __future__ import annotations

import json

import pytest
from absl import flags

from keras_robust.experiments.recipes import schema
from keras_robust.experiments.recipes.own_recipe import from_file
from trainers import recipes, train

PYTHON = """
from trainers import recipes

def get_config():
    config = recipes.load("digits/trades")
    config.name = ""
    config.epochs = 3
    config.defense.options.beta = 2.0
    return config
"""


def test_python(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PYTHON)
    expected = recipes.load("digits/trades")
    expected.name, expected.epochs, expected.defense.options.beta = "mine", 3, 2.0
    assert from_file(path).to_dict() == expected.to_dict()


def test_json_of_some_fields(tmp_path):
    path = tmp_path / "short.json"
    path.write_text(json.dumps({"epochs": 3, "defense": {"name": "pgd_at", "options": {}}}))
    config = from_file(path)
    expected = schema.defaults()
    expected.name, expected.epochs, expected.defense.name = "short", 3, "pgd_at"
    assert config.to_dict() == expected.to_dict()


def test_a_file_is_a_recipe_of_the_trainer(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PYTHON)
    values = flags.FlagValues()
    train.define_flags(values)
    train.parse(["train", f"--recipe={path}", "--output_dir=a", "--config.epochs=5"], values)
    assert (values.config.name, values.config.epochs) == ("mine", 5)
    assert values.config.defense.options.beta == 2.0


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.py", "1 / 0", "a.py cannot be run: ZeroDivisionError: division by zero"),
        ("a.py", "def config(): pass", r"get_config\(\) of .*a.py is missing; expected a function"),
        ("a.py", "def get_config(): return {}", "returns dict|returns NoneType"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "[]", "it holds list"),
        ("a.json", '{"epoch": 3}', r"has the field 'epoch'; .* Did you mean 'epochs'\?"),
        ("a.json", '{"ball": {"radios": 3}}', "is not a recipe that this release reads"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, name, text, says):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=says) as caught:
        from_file(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="There is no recipe at"):
        from_file(tmp_path / f"no_{name}")
