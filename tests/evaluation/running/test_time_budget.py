"""An evaluation that ran out of time names what is missing, and resumes to the same result.

The model's logits are ten times the two pixels of an image, of margins 0.03 (k + 1/2), k = 0 to 11.
In the ball of radius 0.1 the attack `low` fools the three of them below 0.1, and `high` the seven
below 0.2. Batches are of 4 images, and a call of an attack takes a second.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation import evaluate
from keras_robust.evaluation.rendering import tables, wording
from keras_robust.evaluation.rendering.page import html_page

MARGINS = 0.03 * (np.arange(12) + 0.5)
X = np.stack([0.5 + MARGINS / 2, 0.5 - MARGINS / 2], 1).astype("float32")
Y = np.zeros(12, int)


def pixels(x):
    return {"logits": 10 * tf.convert_to_tensor(x)}


def evaluated(attacks, **options):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    return evaluate(pixels, data, attacks, **options)


@pytest.fixture
def attacks(timed):
    """Three rounds in a row, low, low and high, of three batches each; and one of a round."""
    low, high = timed(below=1.0, name="low"), timed(below=2.0, name="high")
    return {"both": kr.attacks.worst_of(kr.attacks.restarts(low, 2), high), "high": high}


@pytest.mark.parametrize(
    "budgets",
    [
        [1.5] * 3,
        [13.5],
        *(pytest.param(b, marks=pytest.mark.slow) for b in ([0.5, 2.5], [4.5], [8.5], [9.5, 2.5])),
    ],
)
def test_a_resumed_evaluation_has_the_result_of_an_uninterrupted_one(attacks, budgets, tmp_path):
    """9 seconds for `both`, 3 for `high`, and 2 radii of which `both` takes 9 seconds or fewer.

    Seconds too: they add up over all calls.
    """
    expected = evaluated(attacks, radii=[0.05, 0.15])
    options = {"radii": [0.05, 0.15], "resume_dir": tmp_path}
    for budget in budgets:
        assert evaluated(attacks, time_budget=budget, **options).unfinished
    said = []
    found = evaluated(attacks, progress=said.append, **options)
    assert [(a.name, a.accuracy, a.parts) for a in found.attacks] == [
        (a.name, a.accuracy, a.parts) for a in expected.attacks
    ]
    assert found == expected and not found.unfinished


def test_it_says_where_it_stopped(attacks, tmp_path):
    """A batch starts at 3 seconds and none at 4: the second round is at its second batch of 9."""
    said = []
    report = evaluated(
        attacks, radii=[0.05], time_budget=3.5, resume_dir=tmp_path, progress=said.append
    )
    (both,) = report.attacks
    assert (both.name, both.accuracy, both.finished) == ("both", 9 / 12, False)
    assert report.worst_case_accuracy == 9 / 12 and report.curves == ()
    assert report.unfinished == (
        "The time budget of 3.5 s expired before the evaluation was complete. both stopped in "
        "round 2 of 3 (low), after 4 of 9 images. Not started: high and accuracy over radius. "
        "Accuracies of unfinished attacks, and the worst case, are upper bounds of the robust "
        "accuracy; unfinished radii and detectors are omitted. Run the same evaluation again, with "
        "any time budget, to resume from here."
    )
    assert wording.all_warnings([report])[0] == report.unfinished
    assert ("both", "unfinished") in [row[0] for row in tables.attacks(report).rows]
    assert "The evaluation is unfinished; the attacks left out may fool more" in wording.summary(
        report, "m"
    )
    assert said[1:] == [
        "both: round 1 of 3, low: accuracy 0.7500",
        "out of time: both stopped in round 2 of 3 (low), after 4 of 9 images",
        "out of time: high is not started",
    ]
    assert list(tmp_path.iterdir())


def test_unfinished_radii_are_omitted(timed, tmp_path):
    """3 seconds for the attack; at 0.05 all 12 images and 3 seconds, at 0.1 the 9 that are left."""
    report = evaluated(timed(), radii=[0.05, 0.1, 0.15, 0.2], time_budget=7.5, resume_dir=tmp_path)
    (curve,) = report.curves
    assert curve.radii == (0.0, 0.05)
    assert curve.accuracies == (1.0, np.mean(MARGINS >= 0.1))
    assert report.attacks[0].finished
    assert "timed at radius 0.1 stopped after 8 of 9 images" in report.unfinished
    assert "Not started: timed at radius 0.15 and timed at radius 0.2." in report.unfinished
    assert (
        evaluated(timed(), radii=[0.05, 0.1], time_budget=4, resume_dir=tmp_path).unfinished == ""
    )


def test_a_curve_needs_more_than_clean_accuracy(timed):
    assert evaluated(timed(), radii=[0.05], time_budget=3.5).curves == ()


def test_a_detector_is_not_evaluated_under_unfinished_attacks(timed):
    """Nor if there is no time for the adaptive attack, after that for the oblivious ones."""
    detector = kr.detection.EntropyDetector(pixels, threshold=0.3)
    early, late = (evaluated(timed(), detector=detector, time_budget=s) for s in (1.5, 3))
    assert early.detection is None and "Not started: the detector." in early.unfinished
    assert late.detection is None and late.attacks[0].finished
    assert "Not started: PGD-40, adaptive (detector-aware)." in late.unfinished


def test_a_budget_that_is_enough_changes_nothing(timed):
    """It expires with the last batch, after which there is nothing left to start."""
    report = evaluated(timed(), time_budget=3)
    assert report.unfinished == "" and report.attacks[0].finished


def test_no_time_at_all(timed, monkeypatch):
    """The budget expires before anything is attacked."""
    attack = timed()
    report = evaluated(attack, time_budget=1, progress=lambda line: attack.clock.pass_by(1))
    assert report.attacks == () and report.examples is None
    assert report.worst_case_accuracy == report.clean_accuracy == 1
    assert "Not started: timed." in report.unfinished
    assert "Nothing was saved to resume from; pass `resume_dir`" in report.unfinished
    assert "says nothing about its robustness" in html_page([report])


@pytest.mark.parametrize("budget", [0, -1, 0.0, math.nan, math.inf, "60", True, [60]])
def test_invalid_budgets_are_refused(budget):
    def model(x):
        raise AssertionError("the model was called")

    with pytest.raises(
        ValueError, match=r"time_budget is .*; expected a finite number > 0 of seconds"
    ):
        evaluate(model, (X, Y), kr.attacks.fgsm(kr.LinfBall(0.1)), time_budget=budget)
