"""Several detectors on the same images, by hand."""

from __future__ import annotations

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation import compare_detectors, orthogonal_pgd

BALL = kr.LinfBall(0.3)


def linear(x):
    """The larger of two pixels is the class; a third one only counts as a feature."""
    return {"logits": 9.0 * x[:, :2], "features": x}


def clean_images(count, seed):
    """Two separate classes, whose third pixel is always 0.5."""
    random = np.random.default_rng(seed)
    y = np.arange(count) % 2
    x = np.where(np.eye(2)[y] > 0, 0.7, 0.3) + random.normal(scale=0.03, size=(count, 2))
    third = 0.5 + random.normal(scale=0.03, size=(count, 1))
    return np.concatenate([x, third], axis=1).astype(np.float32), y


@pytest.fixture(scope="module")
def compared():
    detectors = {
        name: kr.detection.build(name, linear).fit(clean_images(200, 0))
        for name in ("entropy", "mahalanobis")
    }
    return compare_detectors(
        linear,
        clean_images(40, 1),
        detectors,
        {"PGD": kr.attacks.pgd(BALL, 6)},
        calibration=clean_images(100, 2),
        adaptive={"orthogonal": lambda score: orthogonal_pgd(BALL, score, 6)},
        other_images={"far": np.full([10, 3], 0.95, np.float32)},
    )


def test_each_detector_scores_what_the_attack_fooled(compared):
    assert {row.source for row in compared.rows} == {"PGD", "orthogonal", "far"}
    row = compared.row("mahalanobis", "PGD")
    assert (row.attacked, row.samples, row.kind) == (40, 40, "oblivious")
    assert row.auc > 0.99
    assert row.detected[0] > 0.9 and row.detected[1] == 1 and row.evaded[1] == 0
    assert row.detected_interval(1)[0] > 0.9
    far = compared.row("mahalanobis", "far")
    assert (far.samples, far.detected) == (10, (1.0, 1.0))


def test_evasion_counts_fooled_and_unflagged_of_all_attacked(compared):
    for row in compared.rows:
        if row.kind != "other":
            part = row.samples / row.attacked
            expected = [(1 - detected) * part for detected in row.detected]
            np.testing.assert_allclose(row.evaded, expected)
    assert compared.worst_adaptive("entropy").source == "orthogonal"
    # The ball leaves no image that is misclassified and as certain as a clean one.
    assert compared.worst_adaptive("entropy").evaded[1] < 0.1


def test_false_alarms_are_those_of_the_test_images(compared):
    assert set(compared.false_alarms) == {"entropy", "mahalanobis"}
    assert all(0 <= low <= high < 0.25 for low, high in compared.false_alarms.values())


def test_the_tables_name_everything(compared):
    text = compared.markdown()
    for word in ("evasion at 0.05", "AUROC", "false alarms, aimed at 0.01", "orthogonal", "far"):
        assert word in text
    assert compared.to_dict()["rows"][0]["detector"] == "entropy"
    with pytest.raises(KeyError):
        compared.row("entropy", "nothing")


def test_an_attack_that_fools_nothing_has_no_area():
    found = compare_detectors(
        linear,
        clean_images(8, 1),
        {"entropy": kr.detection.Detector(linear)},
        {"weak": kr.attacks.fgsm(kr.LinfBall(0.01))},
        calibration=clean_images(100, 2),
        false_alarm_rates=(0.05,),
    )
    row = found.row("entropy", "weak")
    assert (row.samples, row.auc, row.evaded) == (0, None, (0.0,))
    assert "| weak | entropy | 0 |  |  | 0.0 %" in found.markdown()


def test_only_detectors_are_compared():
    with pytest.raises(TypeError, match=r"detectors\['a'\] is .*; expected a `Detector`"):
        compare_detectors(
            linear, clean_images(8, 1), {"a": linear}, {}, calibration=clean_images(40, 2)
        )
