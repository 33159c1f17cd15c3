"""What the report of a run says of its training."""

from __future__ import annotations

import json
import shutil

import pytest

from keras_robust.experiments.measuring.evaluate_run import (
    EvaluationPlan,
    evaluate_run,
    overfitting_warnings,
)
from keras_robust.experiments.runs.loaded_run import load_run

MONITOR = "val_robust_accuracy"


def rows(*accuracies):
    return [{"epoch": n + 1, MONITOR: value} for n, value in enumerate(accuracies)]


@pytest.mark.parametrize(
    ("last", "told"), [(0.50, False), (0.47, False), (0.45, True), (0.2, True)]
)
def test_a_fall_is_told_if_it_is_significant(last, told):
    """Of 1,000 images: 1.645 sqrt(2 * 0.25 / 1000) = 0.037."""
    found = overfitting_warnings(rows(0.3, 0.5, 0.49, last), MONITOR, "best", 1000)
    assert bool(found) == told
    if told:
        assert "fell from 50.0% after epoch 2 to" in found[0]
        assert f"to {100 * last:.1f}% after the last one, 4. The model" in found[0]
        assert found[0].endswith("evaluated is that of epoch 2.")
        (other,) = overfitting_warnings(rows(0.3, 0.5, 0.49, last), MONITOR, "last", 1000)
        assert other.endswith("evaluated is that of epoch 4.")


def test_without_validation_there_is_nothing_to_tell():
    assert overfitting_warnings([], MONITOR, "last", 100) == []
    assert overfitting_warnings([{"epoch": 1}], MONITOR, "last", 0) == []


def test_the_report_tells_it(trained, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(trained, path)
    file = path / "metrics.json"
    (row,) = json.loads(file.read_text())
    file.write_text(json.dumps([{**row, **best} for best in rows(0.5, 0.2)]))
    plan = EvaluationPlan(attacks=("fgsm",), radii=(), limit=20)
    report = evaluate_run(load_run(path), plan)
    report.save(tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "Training overfitted: val" in text and "fell from 50.0% after epoch 1 to 20.0%" in text
    assert "The model evaluated is that of epoch 1." in report.warnings[-1]
