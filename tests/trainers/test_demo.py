from __future__ import annotations

import re

import numpy as np
import pytest

import keras_robust as kr
from trainers import demo
from trainers.crafting import Crafted
from trainers.run_directory import RunDirectory


def test_the_two_recipes_differ_in_the_defense_alone():
    plain, hardened = (config.to_dict() for config in demo.configs(epochs=3).values())
    different = {name for name in plain if plain[name] != hardened[name]}
    assert different == {"name", "defense", "monitor"}
    assert plain["epochs"] == 3


def test_the_whole_road(tiny, tmp_path):
    said = []
    quick = {"evaluation.attacks": ("pgd",), "evaluation.radii": ()}
    configs = {"trades": tiny(**quick)}
    (report,) = demo.run(tmp_path, configs, said.append, verbose=0, command="make demo")
    text = "\n".join(said)
    for number, heading in enumerate(["Train: trades", "Judge", "Export", "Serve"], start=1):
        assert f"\n{number}. {heading}" in text
    assert report.command == "make demo"
    assert kr.evaluation.load_reports(tmp_path / "report") == (report,)
    assert (tmp_path / "report" / "report.html").is_file()
    assert (tmp_path / "exported" / "digits" / "1" / "saved_model.pb").is_file()
    assert RunDirectory(tmp_path / "trades").is_run
    shares = re.findall(r"(clean|attacked) +([\d.]+)% classified correctly", text)
    assert [name for name, _ in shares] == ["clean", "attacked"]
    assert float(shares[0][1]) == pytest.approx(100 * report.clean_accuracy, abs=0.05)
    assert "gRPC and REST give the same answers" in text
    assert f"open {tmp_path}/report/report.html" in text


def test_the_table_shows_both_kinds_of_images():
    images = np.zeros([5, 1, 1, 1], np.float32)
    labels = np.array([0, 1, 2, 3, 4])
    crafted = Crafted(None, images, labels, images, labels, labels)

    def answers(classes, flagged):
        scores = np.arange(5) / 10
        return {
            "classes": np.array(classes),
            "detection_score": scores,
            "is_adversarial": np.array(flagged),
        }

    text = demo.table(
        crafted, answers([0, 1, 2, 3, 0], [False] * 5), answers([0, 2, 2, 0, 4], [True] * 5)
    )
    rows = [line.split() for line in text.splitlines() if re.match(r" +\d", line)]
    assert [row[0] for row in rows] == ["1", "3", "0", "2"]  # fooled ones, then those that held
    assert rows[0] == ["1", "1", "|", "1", "0.10", "no", "|", "2", "0.10", "yes"]
    assert "clean     80.0% classified correctly,   0.0% flagged" in text
    assert "attacked  60.0% classified correctly, 100.0% flagged" in text


def test_a_directory_of_something_else_is_left_alone(tiny, tmp_path):
    (tmp_path / "standard").mkdir()
    (tmp_path / "standard" / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="holds other files than a run"):
        demo.run(tmp_path, {"standard": tiny("standard")}, print)
