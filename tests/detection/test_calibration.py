"""The quantile rule, exactly: ties, small sets, rates that binary numbers miss; saving."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from keras_robust.detection import Calibration, threshold_at
from keras_robust.detection.calibration import exceeds


def test_of_twenty_scores_one_may_be_above():
    """n = 20, rate 0.05: k = 1, so the second largest score is the threshold."""
    scores = np.arange(20.0)[::-1]
    assert threshold_at(scores, 0.05) == 18.0
    assert threshold_at(scores, 0.0999) == 18.0
    assert threshold_at(scores, 0.1) == 17.0


def test_of_two_scores_at_one_half_the_smaller():
    assert threshold_at([3.0, 1.0], 0.5) == 1.0


def test_ties_at_the_threshold_are_no_alarms():
    """Scores 1, 2, 2, 2, 2 at rate 0.4 (k = 2): above 2 there is none, above 1 there are four."""
    assert threshold_at([2.0, 1.0, 2.0, 2.0, 2.0], 0.4) == 2.0
    assert threshold_at([5.0] * 10, 0.3) == 5.0


def test_rates_are_taken_as_typed():
    """0.29 * 100 is 28.999... in binary; 29 of 100 scores may be above, the threshold is s_70."""
    assert math.floor(0.29 * 100) == 28
    assert threshold_at(np.arange(100.0), 0.29) == 70.0


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=60),
    st.integers(1, 99),
)
def test_it_is_the_smallest_score_that_keeps_to_the_rate(scores, percent):
    """By brute force over all candidates, counted in whole numbers."""
    size = len(scores)
    if percent * size < 100:
        with pytest.raises(ValueError, match="at least"):
            threshold_at(scores, percent / 100)
        return
    keeping = [t for t in scores if 100 * sum(s > t for s in scores) <= percent * size]
    assert threshold_at(scores, percent / 100) == min(keeping)


def test_too_few_images_are_refused_and_enough_are_named():
    with pytest.raises(ValueError, match=r"0.05 cannot be set from 19 clean images; at least 20"):
        threshold_at(np.arange(19.0), 0.05)
    assert threshold_at(np.arange(20.0), 0.05) == 18.0
    with pytest.raises(ValueError, match="from 0 clean images"):
        threshold_at([], 0.5)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, math.nan, math.inf, "0.05", None, True])
def test_what_is_no_rate_is_refused(rate):
    with pytest.raises(
        ValueError, match=r"false_alarm_rate is .*; expected a number in \(0, 1\), such as 0.05"
    ):
        threshold_at(np.arange(100.0), rate)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="2 of 30 scores are not finite"):
        threshold_at([bad, *range(28), bad], 0.1)


@pytest.mark.parametrize("scores", [np.zeros([10, 1]), 3.0, ["a"] * 30])
def test_scores_of_another_shape_or_kind_are_refused(scores):
    with pytest.raises(ValueError, match=r"expected one number per image, shape \[n\]"):
        threshold_at(scores, 0.5)


def test_exceeds_is_strict_and_nan_is_above():
    scores = tf.constant([0.5, 0.7, np.nextafter(np.float32(0.7), np.float32(1)), np.nan])
    assert exceeds(scores, 0.7).numpy().tolist() == [False, False, True, True]


def test_a_float32_score_is_not_above_itself_after_json():
    score = np.float32(1.1) / 3
    threshold = json.loads(json.dumps(threshold_at([score] * 4, 0.5)))
    assert not exceeds(tf.constant([score]), threshold).numpy()[0]


CALIBRATION = Calibration(threshold=0.7, false_alarm_rate=0.05, score="entropy", samples=200)


def test_save_and_load(tmp_path):
    path = CALIBRATION.save(tmp_path / "run" / "detector.json")
    assert Calibration.load(path) == CALIBRATION
    assert set(json.loads(path.read_text())) == {
        "threshold",
        "false_alarm_rate",
        "score",
        "samples",
    }
    assert [p.name for p in path.parent.iterdir()] == ["detector.json"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "note": "by hand"}))
    assert Calibration.load(path) == CALIBRATION


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"threshold": 0.7}', "null"])
def test_a_broken_file_is_refused_by_name(tmp_path, text):
    path = tmp_path / "detector.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"detector.json does not contain a calibration"):
        Calibration.load(path)


def test_a_file_with_strange_numbers_is_refused(tmp_path):
    path = CALIBRATION.save(tmp_path / "detector.json")
    for key, value in (("threshold", None), ("threshold", "x"), ("false_alarm_rate", 2)):
        content = {"threshold": 1.0, "false_alarm_rate": 0.1, "score": "entropy", "samples": 9}
        path.write_text(json.dumps({**content, key: value}))
        with pytest.raises(ValueError, match=key):
            Calibration.load(path)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        Calibration.load(tmp_path / "detector.json")
