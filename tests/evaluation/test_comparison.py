"""Two reports on the same images."""

from __future__ import annotations

import dataclasses
import json
from math import comb

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.cli.main import main
from keras_robust.evaluation import PairedTest, Report, compare_reports, evaluate

X = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]], np.float32)
ATTACK = kr.attacks.fgsm(kr.LinfBall(0.2))


def report_of(outcomes, **fields):
    size = len(outcomes)
    values = {"images_digest": "d", "outcomes": outcomes, **fields}
    return Report(
        "digits", "mlp", "", "Linf", 0.1, size, 0,
        clean_accuracy=1 - outcomes.count("m") / size, attacks=(),
        worst_case_accuracy=outcomes.count("r") / size, **values,
    )  # fmt: skip


def test_an_evaluation_has_the_outcome_of_each_image():
    """Logits are the pixels: within 0.2 the first image withstands, the second is fooled."""
    report = evaluate(lambda x: {"logits": x}, (X, [0, 0, 0, 1]), ATTACK)
    assert report.outcomes == "rfmr"
    assert Report.from_json(report.to_json()) == report
    other = evaluate(lambda x: {"logits": x}, (X, [0, 0, 1, 1]), ATTACK)
    assert report.images_digest != other.images_digest
    same = evaluate(lambda x: {"logits": x[:, ::-1]}, (X, [0, 0, 0, 1]), ATTACK)
    assert report.images_digest == same.images_digest


def test_pairs_and_images():
    found = compare_reports(report_of("rrfm" * 5), report_of("rfrm" * 5))
    assert found.clean == PairedTest(20, 15, (), ())
    assert found.worst_case.both == 5 and found.worst_case.accuracies == (0.5, 0.5)
    assert found.worst_case.only_first == (1, 5, 9, 13, 17)
    assert found.worst_case.only_second == (2, 6, 10, 14, 18)
    assert found.worst_case.p_value == 1.0 and not found.worst_case.is_significant


@pytest.mark.parametrize(("first", "second"), [(0, 0), (5, 0), (6, 0), (3, 12), (40, 40)])
def test_the_p_value_is_that_of_fair_coins(first, second):
    test = PairedTest(200, 50, tuple(range(first)), tuple(range(100, 100 + second)))
    total, least = first + second, min(first, second)
    expected = min(1.0, 2 * sum(comb(total, k) for k in range(least + 1)) / 2**total)
    assert test.p_value == pytest.approx(expected)
    assert test.is_significant == (expected < 0.05)


def test_reports_that_cannot_be_compared():
    report = report_of("rfm")
    with pytest.raises(ValueError, match="second report .mlp. has no outcome of each image"):
        compare_reports(report, dataclasses.replace(report, outcomes=""))
    with pytest.raises(ValueError, match="not of the same images .*of 3 and 4 images"):
        compare_reports(report, report_of("rfmr", images_digest="e"))
    with pytest.raises(ValueError, match=r"outcomes has 2 letters \['r', 'x'\]; expected 3"):
        report_of("rfm").__class__(**{**vars(report), "outcomes": "rx"})
    other = dataclasses.replace(report, threat_model="L2", unfinished="PGD stopped.")
    warnings = compare_reports(report, other).warnings
    assert "threat models differ: Linf; and L2" in warnings[0] and "not complete" in warnings[1]


def test_the_command(tmp_path, capsys):
    report_of("r" * 30 + "fm").save(tmp_path / "a", ["json"])
    report_of("f" * 30 + "rm").save(tmp_path / "b", ["json"])
    main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    text = capsys.readouterr().out
    assert "The first is more robust, significantly" in text
    assert "Only the first withstands on the images 0, 1, 2" in text and "and 10 more" in text
    assert "Only the second withstands on the images 30." in text
    main(["compare", f"--first={tmp_path}/a", f"--second={tmp_path}/b", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["worst_case"]["only_first"] == list(range(30))
    assert document["worst_case"]["p_value"] == pytest.approx(2 * 32 / 2**31)
