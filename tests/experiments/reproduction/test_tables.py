"""Numbers of made-up results: means, spreads, intervals and gains, as text and as data."""

from __future__ import annotations

import pytest

from keras_robust.evaluation.results.parts import wilson_interval
from keras_robust.experiments.reproduction import tables
from keras_robust.experiments.reproduction.experiment import (
    Column,
    Experiment,
    Part,
    Row,
    Training,
)
from keras_robust.experiments.reproduction.measurements import Attacked
from keras_robust.experiments.reproduction.outcome import Outcome, Spread
from keras_robust.experiments.reproduction.scales import SCALES

PGD = Attacked("pgd:steps=20", 0.1)
COLUMNS = (
    Column("Nat", PGD, "clean"),
    Column("PGD", PGD),
    Column("size", PGD, "l1", percent=False),
)
ROWS = (
    Row("base", (Training("x"),), (90.0, 50.0, None)),
    Row("ours", (Training("y"),), skip=("size",)),
)
PART = Part("P", COLUMNS, ROWS, {"ours": "base"}, {"ours": 3.5})
EXPERIMENT = Experiment("t-1", "Table | one", (PART,), notes=("A note.",))


def outcome(*seeds):
    """Results whose seeds are pairs (robust of base, robust of ours)."""
    base = [{"clean": 1.0, "robust": b, "l1": 0.0271, "samples": 100.0} for b, _ in seeds]
    ours = [{"clean": 0.9, "robust": o, "samples": 100.0} for _, o in seeds]
    cells = {("base", column.title): base for column in COLUMNS}
    cells |= {("ours", title): ours for title in ("Nat", "PGD")}
    return Outcome(EXPERIMENT, len(seeds), (cells,), SCALES["hour"], load=None)


def test_the_interval_over_seeds_is_students():
    """Of 0.4, 0.5, 0.6: deviation 0.1; the quantile for 2 degrees of freedom is 4.30265."""
    spread = Spread.of([0.4, 0.5, 0.6], samples=100)
    assert (spread.mean, spread.deviation) == pytest.approx((0.5, 0.1))
    assert spread.interval == pytest.approx((0.5 - 0.248413, 0.5 + 0.248413), abs=1e-5)


def test_the_interval_of_one_seed_is_wilsons_of_a_fraction_alone():
    assert Spread.of([0.5], samples=100) == Spread(0.5, None, wilson_interval(0.5, 100))
    assert Spread.of([0.5]) == Spread(0.5, None, None)


def test_a_mean_over_tasks_has_no_interval_of_images():
    cells = {("base", "A-Avg"): [{"average": 0.5, "robust": 0.5, "samples": 100.0}]}
    columns = (Column("A-Avg", PGD, "average"), Column("A-All", PGD, "robust"))
    cells["base", "A-All"] = cells["base", "A-Avg"]
    experiment = Experiment("t", "T", (Part("P", columns, (Row("base", (Training("x"),)),)),))
    found = Outcome(experiment, 1, (cells,), SCALES["hour"], load=None)
    average, whole = (found.spread(0, "base", column) for column in columns)
    assert average.interval is None
    assert whole.interval == wilson_interval(0.5, 100)


def test_gains_are_paired_by_seed_and_leave_clean_accuracy_out():
    """Gains of 0.1 in both seeds: no spread, though the accuracies differ by 0.2."""
    gain = outcome((0.3, 0.4), (0.5, 0.6)).gain(0, "ours")
    assert gain.mean == pytest.approx(0.1)
    assert gain.deviation == pytest.approx(0.0, abs=1e-12)
    assert outcome((0.3, 0.4)).gain(0, "base") is None


def test_gains_leave_out_what_is_not_in_percent():
    found = outcome((0.3, 0.4))
    found.cells[0]["ours", "size"] = [{"l1": 5.0}]
    assert found.gain(0, "ours").mean == pytest.approx(0.1)


def test_the_page_has_the_published_numbers_below_the_measured_ones():
    text = tables.markdown(outcome((0.3, 0.4), (0.5, 0.6)), ["epochs: 200 to 4"], "python -m x")
    lines = text.splitlines()
    assert lines[0] == "# Table \\| one"
    assert "|  | Nat | PGD | size | mean gain |" in lines
    row = lines.index("|---|---|---|---|---|") + 1
    # 0.3 and 0.5: deviation 0.1414, half an interval 12.7062 * 0.1 = 1.2706.
    assert lines[row] == (
        "| base | 100.0 ± 0.0 (100.0 to 100.0) | 40.0 ± 14.1 (-87.1 to 167.1) "
        "| 0.0271 ± 0 (0.0271 to 0.0271) |  |"
    )
    assert lines[row + 1] == "| *thesis* | *90* | *50* |  |  |"
    assert lines[row + 2].startswith("| ours | 90.0 ± 0.0 (90.0 to 90.0) | 50.0 ± 14.1")
    assert "|  | 10.0 ± 0.0 (10.0 to 10.0) |" in lines[row + 2]
    assert "- epochs: 200 to 4" in lines
    assert "- A note." in lines
    assert "2 seeds" in text
    assert "python -m x" in text


def test_a_page_without_cuts_says_so():
    assert "nothing is cut, one seed" in tables.markdown(outcome((0.3, 0.4)), [], "x")


def test_the_document_has_the_values_of_every_seed():
    found = tables.document(outcome((0.3, 0.4), (0.5, 0.6)), [], "python -m x")
    base, ours = found["parts"][0]["rows"]
    assert base["cells"][1]["values"] == [0.3, 0.5]
    assert base["cells"][1]["mean"] == pytest.approx(0.4)
    assert base["thesis"] == [90.0, 50.0, None]
    assert ours["cells"][2] is None
    assert ours["gain"]["mean"] == pytest.approx(0.1)
    assert (found["scale"], found["seeds"], found["command"]) == ("hour", 2, "python -m x")
