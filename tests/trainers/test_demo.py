from __future__ import annotations

import re

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.experiments.measuring.attack_run import AttackedTestSet
from keras_robust.experiments.publishing import serving_demo
from keras_robust.experiments.runs.run_directory import RunDirectory
from trainers import demo


def test_the_recipes_differ_in_the_defense_alone_and_the_last_is_of_an_ensemble():
    plain, hardened, ensemble = (config.to_dict() for config in demo.configs(epochs=3).values())
    for config, model in ((hardened, set()), (ensemble, {"model"})):
        different = {name for name in plain if plain[name] != config[name]}
        assert different == {"name", "defense", "monitor"} | model
    assert ensemble["model"]["options"]["options"] == plain["model"]["options"]
    assert plain["epochs"] == 3


@pytest.mark.slow
def test_the_whole_demo(tiny, tmp_path, recwarn):
    lines = []
    quick = {"evaluation.attacks": ("pgd",), "evaluation.radii": ()}
    quick |= {"model.name": "ensemble"}
    quick["model.options"] = {"members": ("mlp", "mlp"), "options": {"hidden": (16,)}}
    configs = {"cce": tiny("cce_detection", **quick)}
    (report,) = demo.run(tmp_path, configs, lines.append, verbose=0, command="make demo")
    text = "\n".join(lines)
    for number, heading in enumerate(["Train: cce", "Evaluate", "Export", "Serve"], start=1):
        assert f"\n{number}. {heading}" in text
    assert report.command == "make demo"
    assert kr.evaluation.load_reports(tmp_path / "report") == (report,)
    assert (tmp_path / "report" / "report.html").is_file()
    assert (tmp_path / "exported" / "digits" / "1" / "saved_model.pb").is_file()
    assert RunDirectory(tmp_path / "cce").is_run
    shares = re.findall(r"(clean|attacked) +([\d.]+)% classified correctly", text)
    assert [name for name, _ in shares] == ["clean", "attacked"]
    assert float(shares[0][1]) == pytest.approx(100 * report.clean_accuracy, abs=0.05)
    assert "1 epochs of an ensemble of 2, each batch attacked first: 1 steps" in text
    assert "(false alarms)" in text
    assert re.search(r"evades the detector:\n[\d.]+% of the images are misclassified", text)
    assert "gRPC and REST agree" in text
    assert re.search(r"clean images, then a wave of \d+, every second one attacked. /metrics", text)
    assert re.search(r"^  images +\d+ +\d+$", text, flags=re.MULTILINE)
    assert f"open {tmp_path}/report/report.html" in text
    times = re.findall(r"^  (\w[\w ]+?) +(\d+) s +\d+%$", text, flags=re.MULTILINE)
    assert [step for step, _ in times] == ["train cce", "evaluate", "export", "serve and query"]
    total = int(re.search(r"Done in (\d+) s", text)[1])
    assert sum(int(seconds) for _, seconds in times) == pytest.approx(total, abs=2)
    # A program does not show the warnings of this category.
    shown = [one for one in recwarn if not issubclass(one.category, DeprecationWarning)]
    assert not shown, shown[0]


def test_the_table_shows_both_kinds_of_images():
    images = np.zeros([5, 1, 1, 1], np.float32)
    labels = np.array([0, 1, 2, 3, 4])
    crafted = AttackedTestSet(None, images, labels, images, labels, labels)

    def answers(classes, flagged):
        scores = np.arange(5) / 10
        return {
            "classes": np.array(classes),
            "detection_score": scores,
            "is_adversarial": np.array(flagged),
        }

    text = serving_demo.table(
        crafted, answers([0, 1, 2, 3, 0], [False] * 5), answers([0, 2, 2, 0, 4], [True] * 5)
    )
    rows = [line.split() for line in text.splitlines() if re.match(r" +\d", line)]
    assert [row[0] for row in rows] == ["1", "3", "0", "2"]  # fooled ones, then those that held
    assert rows[0] == ["1", "1", "|", "1", "0.10", "no", "|", "2", "0.10", "yes"]
    middle = "classified correctly, median score 0.20, "
    assert f"clean     80.0% {middle}  0.0% flagged (false alarms)" in text
    assert f"attacked  60.0% {middle}100.0% flagged" in text


def test_the_adaptive_attack_is_measured_by_its_evasion_rate():
    labels = np.array([0, 1, 2, 3])

    def answers(classes, flagged):
        return {"classes": np.array(classes), "is_adversarial": np.array(flagged)}

    oblivious = answers(
        [1, 1, 0, 0], [True, False, True, False]
    )  # one of three errors is not flagged
    adaptive = answers([1, 1, 0, 0], [False, False, False, False])
    text = serving_demo.adaptive_summary(labels, oblivious, adaptive)
    assert "75.0% of the images are misclassified and not flagged, against 25.0% under" in text


def test_a_directory_of_something_else_is_left_alone(tiny, tmp_path):
    (tmp_path / "standard").mkdir()
    (tmp_path / "standard" / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="contains other files than a run"):
        demo.run(tmp_path, {"standard": tiny("standard")}, print)
