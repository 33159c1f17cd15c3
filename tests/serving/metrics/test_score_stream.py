"""The counts, the histogram and the alarm of a version's detection scores."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest

from keras_robust.serving.exporting.clean_scores import (
    MOST,
    find_clean_scores,
    read_clean_scores,
    write_clean_scores,
)
from keras_robust.serving.metrics.detection_metrics import MAX_VERSIONS, DetectionMetrics
from keras_robust.serving.metrics.score_stream import RECENT, ScoreStream, score_buckets

CLEAN = np.linspace(0, 1, 101)


def test_a_histogram_counts_each_score_once():
    stream = ScoreStream("digits", CLEAN, 1e6)
    scores = [-5.0, 0.0, 0.5, 0.51, 4.9, 1e9, math.inf, math.nan]
    stream.update(scores, [False] * len(scores))
    buckets, total = stream.histogram()
    found = dict(buckets)
    assert found["0.0"] == 2 and found["0.5"] == 3 and found["0.75"] == 4 and found["5.0"] == 5
    assert found["+Inf"] == stream.images == 8
    assert total == pytest.approx(sum(scores[:-2]))
    numbers = [number for _, number in buckets]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("clean", [None, CLEAN, np.full(30, 2.0), np.full(30, 0.0), -CLEAN])
def test_buckets_are_ascending_and_reach_beyond_clean_scores(clean):
    bounds = score_buckets(clean)
    assert len(bounds) > 4 and bounds == sorted(set(bounds))
    if clean is not None:
        assert bounds[0] <= clean.min() and bounds[-1] > clean.max()


def test_the_share_of_flagged_images_is_that_of_the_last_ones():
    stream = ScoreStream("digits", None, 1e6)
    stream.update([0.5] * RECENT, [True] * RECENT)
    assert stream.flagged_ratio == 1 and stream.alarms is None and stream.evidence is None
    stream.update([0.5] * 250, [False] * 250)
    assert stream.flagged_ratio == pytest.approx(0.75)
    assert (stream.images, stream.flagged) == (RECENT + 250, RECENT)


def test_an_attack_wave_raises_the_alarm_and_is_logged(caplog):
    random = np.random.default_rng(0)
    stream = ScoreStream("digits version 3", random.normal(size=500), 1e6)
    stream.update(random.normal(size=500), [False] * 500)
    assert stream.alarms == 0 and stream.alarmed == 0
    with caplog.at_level(logging.WARNING):
        stream.update(random.normal(4.0, size=60), [True] * 60)
        assert stream.alarms >= 1 and stream.alarmed > 1.7e9
        stream.update(random.normal(4.0, size=60), [True] * 60)
    assert stream.alarms >= 2
    assert "The detection scores of digits version 3 have drifted: alarm 1, after" in caplog.text
    assert caplog.text.count("have drifted") == 1


def test_flags_alone_are_counted_and_claim_no_alarm():
    """A version may withhold the score: nobody can tell whether it drifts."""
    stream = ScoreStream("digits", CLEAN, 1e6)
    assert stream.alarms == 0
    stream.update(None, [True, False])
    assert (stream.images, stream.flagged, stream.flagged_ratio) == (2, 1, 0.5)
    assert stream.alarms is None and stream.evidence is None
    assert stream.histogram()[0][-1] == ("+Inf", 0)
    stream.update([0.5], [False])
    assert stream.alarms == 0 and stream.evidence is not None


def samples(metrics):
    return {
        (one.name, *one.labels.values()): one.value
        for family in metrics.collect()
        for one in family.samples
    }


def test_versions_have_series_of_their_own_and_old_ones_end():
    metrics = DetectionMetrics(lambda model, version: CLEAN if version % 2 else None, 1e6)
    for version in range(1, MAX_VERSIONS + 3):
        metrics.update("digits", version, [0.1 * version], [version == 4])
    found = samples(metrics)
    assert ("keras_robust_detection_images_total", "digits", "2") not in found
    assert found["keras_robust_detection_flagged_total", "digits", "4"] == 1
    assert found["keras_robust_detection_flagged_total", "digits", "5"] == 0
    # Without clean scores there is no alarm, and none is claimed.
    assert found["keras_robust_detection_alarms_total", "digits", "5"] == 0
    assert ("keras_robust_detection_alarms_total", "digits", "4") not in found
    assert found["keras_robust_detection_score_bucket", "digits", "4", "+Inf"] == 1


def test_damaged_clean_scores_cost_the_alarm_and_not_the_server(caplog):
    def damaged(model, version):
        raise ValueError("clean_scores.npy is damaged")

    metrics = DetectionMetrics(damaged, 1e6)
    metrics.update("digits", 1, [0.1], [False])
    assert "digits version 1 has no alarm: clean_scores.npy is damaged" in caplog.text
    assert samples(metrics)["keras_robust_detection_images_total", "digits", "1"] == 1


def test_a_version_keeps_clean_scores(tmp_path):
    assert find_clean_scores(tmp_path) is None
    write_clean_scores(tmp_path, CLEAN)
    np.testing.assert_allclose(find_clean_scores(tmp_path), CLEAN, rtol=1e-6)
    path = write_clean_scores(tmp_path, np.arange(2 * MOST + 1))
    kept = read_clean_scores(path)
    assert MOST // 2 < len(kept) <= MOST and kept[-1] > 1.9 * MOST  # from all of them


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.arange(5.0), "at least 20 finite"),
        (np.full(30, np.nan), "finite"),
        (np.array([{"a": 1}] * 30, dtype=object), "does not hold the scores"),
        (np.zeros(9 * MOST), "at most 50000 scores"),
    ],
)
def test_other_files_are_no_clean_scores(tmp_path, array, says):
    path = tmp_path / "scores.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(ValueError, match=says):
        read_clean_scores(path)


def test_a_file_that_claims_more_than_it_has_is_refused(tmp_path):
    path = tmp_path / "scores.npy"
    np.save(path, CLEAN)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(101,)", b"(10**15,)".ljust(6)))
    with pytest.raises(ValueError, match="does not hold the scores"):
        read_clean_scores(path)
    path.write_bytes(content[:-100])
    with pytest.raises(ValueError, match="does not hold the scores"):
        read_clean_scores(path)
