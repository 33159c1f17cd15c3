"""Optimality, median distances and curves by hand; counted and bounded passes; both in a report."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation.results.optimality import accuracy_curve, median_distance, optimality
from keras_robust.evaluation.running.passes import CountedForward

INF = math.inf


def test_optimality_by_hand():
    """The best distances are 1, 2, 4 and 0: the whole area is 3/4 of 4, the smallest 7/4. The
    distances of A beyond 4 are cut there: its area is (1 + 4 + 4) / 4."""
    found = optimality({"A": [1.0, 5.0, INF, 0.0], "B": [3.0, 2.0, 4.0, 0.0]})
    whole, smallest = 3 / 4 * 4, (1 + 2 + 4) / 4
    assert found["A"] == pytest.approx((whole - (1 + 4 + 4) / 4) / (whole - smallest))
    assert found["B"] == pytest.approx((whole - (3 + 2 + 4) / 4) / (whole - smallest))


def test_other_attacks_lower_the_optimality():
    alone = optimality({"A": [1.0, 2.0]})
    assert alone == {"A": 1.0}
    assert optimality({"A": [1.0, 2.0]}, best=[0.5, 2.0])["A"] == pytest.approx(2 / 3)


def test_without_distances_all_are_equal():
    assert optimality({"A": [0.0, INF], "B": [0.0, INF]}) == {"A": 1.0, "B": 1.0}
    assert optimality({"A": [3.0, INF], "B": [3.0, 3.0]}) == {"A": 0.5, "B": 1.0}


def test_the_area_is_that_of_the_curve():
    """Integrated by a fine grid, for random distances."""
    random = np.random.default_rng(0)
    found = {name: random.exponential(size=50) * random.integers(0, 2, 50) for name in "AB"}
    for name in found:
        found[name][:5] = INF
    best = np.minimum(found["A"], found["B"])
    largest = best[np.isfinite(best)].max()
    grid = (np.arange(20_000) + 0.5) * largest / 20_000

    def area(distances):
        return np.mean([(distances > radius).mean() for radius in grid]) * largest

    whole = (best > 0).mean() * largest
    for name, value in optimality(found).items():
        expected = (whole - area(found[name])) / (whole - area(best))
        assert value == pytest.approx(max(expected, 0), abs=2e-3)


def test_median_and_curve():
    assert median_distance([0.0, 3.0, INF, INF]) == INF
    assert median_distance([0.0, 3.0, 2.0, INF, 1.0]) == 2.0
    curve = accuracy_curve("A", np.arange(1.0, 101.0), most=5)
    assert curve.radii[0] == 0 and len(curve.radii) == 6
    assert curve.accuracies[0] == 1 and curve.accuracies[-1] == 0


@pytest.mark.parametrize(
    "distances",
    [{}, {"A": [1.0], "B": [1.0, 2.0]}, {"A": [-1.0]}, {"A": [math.nan]}, {"A": []}],
)
def test_other_distances_are_refused(distances):
    with pytest.raises(ValueError, match="expected"):
        optimality(distances)


def linear(x):
    x = tf.reshape(x, [tf.shape(x)[0], 2])
    return {"logits": x}


X, Y = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], "float32"), np.zeros(3, int)


def fab(ball):
    return kr.attacks.fab(ball, 2)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda ball: kr.attacks.pgd(ball, 3), (3, 3)),
        # One at first; each step has a backward pass per class, and one for the result.
        pytest.param(fab, (1 + 2 * 2, 2 * 2), marks=pytest.mark.slow),
        pytest.param(lambda ball: kr.attacks.square(ball, 7), (8, 0), marks=pytest.mark.slow),
    ],
)
def test_passes_are_counted_in_a_loop(build, expected):
    attack, counted = build(kr.LinfBall(0.1)), CountedForward(linear, bounded=False)
    x_adv = attack.compiled(counted)(X, Y)
    assert counted.counts() == expected
    np.testing.assert_allclose(x_adv, attack(linear, X, Y), atol=1e-6)


def test_a_budget_ends_the_search():
    """FMN with 40 steps and a budget of 8 passes is FMN's first four steps."""
    counted = CountedForward(linear, bounded=True)
    attack = kr.attacks.fmn(kr.L2Ball(2.0), 40).compiled(counted)
    distances = []
    for budget in (1, 8, INF):
        counted.reset(budget)
        x_adv = attack(X[:1], Y[:1]).numpy()
        assert sum(counted.counts()) == min(budget, 81) and np.isfinite(x_adv).all()
        distances.append(float(np.linalg.norm(x_adv - X[:1])))
    assert distances[0] == 0 < distances[2] < distances[1]


def test_a_report_has_distances_passes_and_optimality():
    ball = kr.L2Ball(2.0)
    attacks = [kr.attacks.fmn(ball, 20), kr.attacks.deepfool(ball), kr.attacks.pgd(ball, 2)]
    report = kr.evaluation.evaluate(linear, (X, Y), attacks, budget_per_image=INF)
    fmn, deepfool, pgd = report.attacks
    exact = [0.8 / 2**0.5, 0.2 / 2**0.5, 0.0]
    np.testing.assert_allclose(fmn.distances, exact, rtol=0.01)
    np.testing.assert_allclose(deepfool.distances, np.multiply(1.02, exact), rtol=1e-5)
    assert pgd.distances is None and (pgd.forward_passes, pgd.backward_passes) == (2, 2)
    assert (fmn.forward_passes, fmn.backward_passes) == (21, 20)
    assert report.optimality["FMN-20"] == 1 > report.optimality["DeepFool-50"] > 0.9
    curve = {curve.name: curve for curve in report.curves}["FMN-20, one run"]
    assert curve.accuracies == pytest.approx((2 / 3, 1 / 3, 0))
    assert kr.evaluation.Report.from_json(report.to_json()) == report
    assert report.contradictions == ()


def test_a_budget_bounds_each_attack_and_is_kept(tmp_path):
    ball = kr.L2Ball(0.3)
    attack = kr.attacks.restarts(kr.attacks.pgd(ball, 3), 4)
    report = kr.evaluation.evaluate(
        linear, (X, Y), attack, budget_per_image=10, resume_dir=tmp_path
    )
    result = report.attacks[0]
    # The image that withstands has two runs of 6 passes, of which the second is cut.
    assert 6 <= result.forward_passes + result.backward_passes <= 10
    assert report.budget_per_image == 10 and "at most 10 passes" in report_text(report, tmp_path)
    again = kr.evaluation.evaluate(linear, (X, Y), attack, budget_per_image=10, resume_dir=tmp_path)
    assert again.attacks[0].forward_passes == result.forward_passes


def report_text(report, directory):
    return (report.save(directory / "report", formats=["md"]) / "report.md").read_text("utf-8")


def test_infinite_distances_are_saved():
    report = kr.evaluation.evaluate(linear, (X, Y), kr.attacks.fmn(kr.L2Ball(0.3), 20))
    assert report.attacks[0].distances[0] == INF and report.attacks[0].forward_passes is None
    assert kr.evaluation.Report.from_json(report.to_json()) == report


@pytest.mark.parametrize("budget", [0, -1, "many", math.nan])
def test_other_budgets_are_refused(budget):
    with pytest.raises(ValueError, match="budget_per_image is"):
        kr.evaluation.evaluate(linear, (X, Y), kr.attacks.fgsm(kr.L2Ball(0.3)),
                               budget_per_image=budget)  # fmt: skip
