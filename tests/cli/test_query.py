"""`keras-robust query`: the names of the classes."""

from __future__ import annotations

import json

import pytest

from keras_robust.cli import query
from keras_robust.serving.client.query import table, with_class_names

ROWS = [
    {"image": "a.png", "class": 1, "probability": 0.8, "probabilities": [0.2, 0.8]},
    {"image": "b.png", "class": 0, "probability": 0.9, "probabilities": [0.9, 0.1]},
]


def write_version(base, number, names):
    folder = base / str(number) / "assets.extra"
    folder.mkdir(parents=True)
    (folder / "keras_robust.json").write_text(json.dumps({"class_names": names}))


@pytest.fixture
def answers(monkeypatch):
    monkeypatch.setattr(query, "_query", lambda values, paths: ROWS)


@pytest.mark.usefixtures("answers")
def test_names_of_the_newest_version_or_as_given(command, tmp_path):
    write_version(tmp_path, 9, ["old", "older"])
    write_version(tmp_path, 10, ["cat", "dog"])
    arguments = ["query", "--model=m", "--images=a.png", "--rest"]
    for names in (tmp_path, "cat,dog"):
        lines = command(*arguments, f"--class_names={names}").splitlines()
        assert lines[0].split()[:3] == ["image", "class", "class_name"]
        assert [line.split()[2] for line in lines[1:]] == ["dog", "cat"]
    rows = json.loads(command(*arguments, "--class_names=cat,dog", "--json"))
    assert [row["class_name"] for row in rows] == ["dog", "cat"]
    assert "class_name" not in table(ROWS)


@pytest.mark.usefixtures("answers")
def test_names_that_do_not_fit(fails, tmp_path):
    arguments = ["query", "--model=m", "--images=a.png", "--rest"]
    assert "has no version with class names" in fails(*arguments, f"--class_names={tmp_path}")
    write_version(tmp_path, 1, None)
    assert "has no version with class names" in fails(*arguments, f"--class_names={tmp_path}")
    with pytest.raises(ValueError, match="There are 3 class names; expected 2"):
        with_class_names(ROWS, ["a", "b", "c"])
