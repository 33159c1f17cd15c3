from __future__ import annotations

import dataclasses

import numpy as np

import keras_robust as kr
from keras_robust.evaluation import (
    AttackResult,
    Card,
    CertificationResult,
    Curve,
    Detection,
    DetectorResult,
    ExampleImages,
    Report,
)

PGD = AttackResult("PGD-20", "20 steps", 0.1, 0.75, 900, 3.5)
SCORES = tuple(np.linspace(0, 1, 1000).tolist())


def report(**changes):
    images = np.zeros([8, 28, 28, 1], np.float32)
    classes = (0,) * 8
    oblivious = DetectorResult("PGD-20", 0.5, 0.25, SCORES)
    parts = {
        "curves": (Curve("PGD-20", (0.1, 0.2), (0.75, 0.5)),),
        "detection": Detection(0.3, 0.05, 0.04, "entropy (nats)", SCORES, oblivious),
        "examples": ExampleImages(images, images, classes, classes, classes),
    }
    values = ("digits", "mlp", "TRADES", "Linf", 0.1, 1000, 0, 0.96, (PGD,), 0.75)
    return dataclasses.replace(Report(*values, **parts), **changes)


def test_a_report_is_one_line():
    assert repr(report()) == (
        "<Report of digits, mlp, TRADES: 1,000 images, clean 96.0%, worst case 75.0% of PGD-20>"
    )
    assert repr(Report("", "", "", "", 0.1, 10, 0, 0.5, (), 0.5)).startswith("<Report: 10 images")


def test_no_result_shows_its_thousand_numbers():
    found = report()
    proof = CertificationResult(
        "IBP", "ibp", "Linf", 0.1, (0.1,), (0.1,) * 600 + (None,) * 400, 1.0
    )
    card = Card(found, found, {"PGD-20": {}}, {"epochs": 3}, commit="0123456789abcdef")
    for part in (found, found.detection, found.detection.oblivious, found.curves[0], proof, card):
        assert len(repr(part)) < 400, type(part)
        assert len(part._repr_html_()) < 6000, type(part)
    assert "scores=<1,000 values>" in repr(found.detection.oblivious)
    assert "60.0%" in proof._repr_html_()
    assert "epochs" in card._repr_html_()


def test_a_short_text_leaves_the_saved_report_as_it_is():
    found = report()
    assert Report.from_json(found.to_json()) == found


def test_a_report_in_a_notebook_has_its_tables_and_warnings_and_no_markup_of_its_names():
    page = report(defense="<script>", warnings=("one & two",))._repr_html_()
    assert "<td>PGD-20</td><td>75.0%<br><small>" in page
    assert "one &amp; two" in page and "<script>" not in page and "\n\n" not in page


def test_fields_at_their_default_are_omitted():
    assert "finished" not in repr(PGD)
    assert "finished=False" in repr(dataclasses.replace(PGD, finished=False))


def test_results_of_all_kinds_are_tables_in_notebooks():
    """Everything that a function of this room returns as one result shows itself."""
    paired = kr.evaluation.comparison.PairedTest(10, 6, (1, 2), (3,))
    success = kr.evaluation.TaskSuccess.of([[True, False], [True, True]])
    transfer = kr.evaluation.Transfer(
        ("a<b", "c"), ((0.1, 0.8), (0.7, 0.2)), (1, 1), "PGD", 0.1, 9, 0
    )
    results = {
        "<td>0.25</td>": kr.evaluation.Divergence(0.25, 1.0, 0.1, 0.9, 0.2, 8),
        "<td>0.031</td>": kr.evaluation.Perturbations(0.031, 0.1, (0.5, 0.9, 1.0), 8),
        "<td>True</td>": kr.evaluation.DistributionalRisk(
            (1.0,), 0.5, (0.7,), (0.6,), (0.1,), certified=True, samples=8
        ),
        "<td>a&lt;b</td>": transfer,
        "80.0%": kr.evaluation.comparison.ReportComparison(paired, paired),
        "<td>50.0%</td>": success,
        "<td>3</td>": kr.evaluation.TaskGradients(("x",), (3.0,), (0.0,), ((1.0,),), None, None, 5),
    }
    for cell, result in results.items():
        found = result._repr_html_()
        assert found.startswith("<table>") and cell.removesuffix("</td>") in found, found
