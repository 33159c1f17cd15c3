"""Results by part of a combined attack.

The model's logits are ten times the two pixels of an image, of margins 0.03 (k + 1/2), k = 0 to 11.
In the ball of radius 0.1 `low` fools the three of them below 0.1, and `high` the seven below 0.2.
Batches are of 4 images.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation import AttackResult, Part, Report, evaluate
from keras_robust.evaluation.rendering import tables
from keras_robust.evaluation.rendering.markdown import markdown_page
from keras_robust.evaluation.rendering.page import html_page

MARGINS = 0.03 * (np.arange(12) + 0.5)
X = np.stack([0.5 + MARGINS / 2, 0.5 - MARGINS / 2], 1).astype("float32")
Y = np.zeros(12, int)
PARTS = (Part("low", 9 / 12, 12, 6.0), Part("high", 5 / 12, 9, 6.0))


def evaluated(attack, **options):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    model = lambda x: {"logits": 10 * tf.convert_to_tensor(x)}  # noqa: E731
    return evaluate(model, data, attack, **options)


@pytest.fixture
def attack(timed):
    low, high = timed(below=1.0, name="low"), timed(name="high", seconds=2.0)
    return kr.attacks.worst_of(kr.attacks.restarts(low, 2), high)


def test_rounds_of_one_name_in_a_row_are_a_part(attack):
    """Two rounds of `low`, of 12 and of 9 images, take 3 seconds each; that of `high` 3 times 2."""
    (found,) = evaluated(attack).attacks
    assert found.parts == PARTS
    assert found.accuracy == 5 / 12 and found.seconds == 12.0


def test_a_part_that_comes_again_is_another(attack):
    (found,) = evaluated(kr.attacks.restarts(attack, 2)).attacks
    assert [(part.name, part.samples_attacked) for part in found.parts] == [
        ("low", 12), ("high", 9), ("low", 5), ("high", 5),
    ]  # fmt: skip


def test_a_single_attack_has_no_parts(timed):
    for attack in (timed(), kr.attacks.restarts(timed(), 3)):
        assert evaluated(attack).attacks[0].parts == ()


@pytest.mark.parametrize("budget", [1.5, 3, 4.5, 6, 9.5])
def test_parts_survive_an_interruption(attack, budget, tmp_path):
    """Completed parts, and the current one, are in the unfinished report; all at the end."""
    (cut,) = evaluated(attack, resume_dir=tmp_path, time_budget=budget).attacks
    whole = [part for part in PARTS if cut.seconds >= (6 if part.name == "low" else 12)]
    assert list(cut.parts[: len(whole)]) == whole
    assert cut.parts[-1].accuracy == cut.accuracy
    assert sum(part.seconds for part in cut.parts) == cut.seconds
    (found,) = evaluated(attack, resume_dir=tmp_path).attacks
    assert found.parts == PARTS


def test_a_checkpoint_without_parts_resumes_without_them(attack, tmp_path):
    evaluated(attack, resume_dir=tmp_path, time_budget=4.5)
    (path,) = tmp_path.iterdir()
    with np.load(path) as kept:
        arrays = {name: kept[name] for name in kept.files if name != "ends"}
    np.savez(path, **arrays)
    (found,) = evaluated(attack, resume_dir=tmp_path).attacks
    assert found.accuracy == 5 / 12 and found.parts == ()


def with_parts(make_report, **changes):
    result = AttackResult("Both", "a worst of two", 0.1, 5 / 12, 12, 75.0, PARTS)
    return make_report(attacks=(result,), worst_case_accuracy=5 / 12, **changes)


def test_reports_round_trip(make_report):
    report = with_parts(make_report, unfinished="There was no time.")
    assert Report.from_json(report.to_json()) == report


def test_earlier_reports_are_read(make_report):
    document = json.loads(make_report().to_json())
    del document["unfinished"]
    for attack in document["attacks"]:
        del attack["parts"], attack["finished"]
    assert Report.from_json(json.dumps(document)) == make_report()


def test_parts_are_in_tables_and_on_pages(make_report):
    plain = {"examples": None, "detection": None, "curves": ()}
    plain |= {"confusion_clean": None, "confusion_adversarial": None}
    report = with_parts(make_report, samples=12, **plain)
    (table,) = tables.parts(report)
    assert [(row[0].text, *(cell.text for cell in row[1:])) for row in table.rows] == [
        ("low", "75.0%", "12", "6.0 s"),
        ("high", "41.7%", "9", "6.0 s"),
    ]
    assert table.caption.startswith("Parts of Both. ")
    text = markdown_page([report], "Title")
    assert f"{table.caption}\n\n| Part | Accuracy | Images attacked | Time |" in text
    assert "| high | 41.7% (19.3\N{EN DASH}68.0%) | 9 | 6.0 s |" in text
    for shown in ([report], [report, make_report(defense="MART", **plain)]):
        assert html_page(shown).count(table.caption) == 2  # the caption, and the frame's label


def test_inconsistent_parts_are_refused():
    last = dataclasses.replace(PARTS[1], accuracy=0.8)
    for parts in ((PARTS[0], last), PARTS[:1]):
        with pytest.raises(
            ValueError, match=r"The parts of A have accuracies .*expected values that do not"
        ):
            AttackResult("A", "", 0.1, 5 / 12, 12, 1.0, parts)
    with pytest.raises(ValueError, match="accuracy is 75"):
        Part("low", 75, 12, 1.0)
