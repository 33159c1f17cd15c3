"""Conformal p-values: on paper, and their rate of false alarms over many calibrations."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr


def pixel(x):
    """A binary prediction: the less certain, the closer the pixel is to 0."""
    z = tf.reshape(x, [-1, 1])
    return {"logits": tf.concat([20 * z, tf.zeros_like(z)], axis=1)}


def gray(values):
    return np.float32(values).reshape(-1, 1, 1, 1)


def test_p_values_on_paper():
    """Of nine scores, those of 0.1, ..., 0.9, an image of 0.25 has two that are as large."""
    clean = gray(np.arange(1, 10) / 10)
    detector = kr.detection.Conformal(pixel).calibrate((clean,), 0.2)
    found = detector.score(gray([0.25, 0.0, 0.95]))
    np.testing.assert_allclose(found, [1 - 3 / 10, 1 - 1 / 10, 0], atol=1e-6)
    # p <= 0.2: at most one clean score is as large.
    assert detector.is_adversarial(gray([0.05, 0.15, 0.25])).numpy().tolist() == [True, True, False]
    altered = kr.detection.Conformal(pixel, altered=1 / 9 + 1e-3).calibrate((clean,), 0.2)
    np.testing.assert_allclose(altered.score(gray([0.25, 0.0])), [1 - 4 / 10, 1 - 2 / 10])
    assert altered.is_adversarial(gray([0.05, 0.15])).numpy().tolist() == [True, False]


def _false_alarms(random, altered, replaced):
    """The mean rate over calibrations of 20 images, of which the most suspicious are replaced."""
    rates = []
    for _ in range(150):
        clean = np.sort(random.uniform(size=20))
        clean[:replaced] = 1.0  # by images of the lowest score
        detector = kr.detection.Conformal(lambda x: x, altered=altered)
        scores = np.sort(-clean).astype(np.float32)
        detector = detector.with_statistics({"clean_scores": scores})
        found = detector._of_base(tf.constant(-random.uniform(size=400), tf.float32)).numpy()
        rates.append(np.mean(found > 1 - (np.floor(0.2 * 21) + 0.5) / 21))
    return np.mean(rates)


def test_the_rate_holds_for_small_calibrations_and_after_poisoning():
    """20 images at a rate of 0.2: 4/21 by proof; two replaced images break the plain one."""
    random = np.random.default_rng(0)
    assert _false_alarms(random, altered=0.0, replaced=0) == pytest.approx(4 / 21, abs=0.015)
    assert _false_alarms(random, altered=0.0, replaced=2) > 0.25
    assert _false_alarms(random, altered=0.1, replaced=2) <= 0.2


def test_too_few_images_for_the_rate_are_refused():
    with pytest.raises(ValueError, match=r"0\.01 cannot be set from 60 clean images"):
        kr.detection.Conformal(pixel).calibrate((gray(np.linspace(0, 1, 60)),), 0.01)
    with pytest.raises(ValueError, match="of which 6 may be altered"):
        kr.detection.Conformal(pixel, altered=0.1).calibrate((gray(np.linspace(0, 1, 60)),), 0.1)
    with pytest.raises(ValueError, match="no clean scores"):
        kr.detection.Conformal(pixel).score(gray([0.5]))


def test_a_score_that_is_not_a_number_raises_an_alarm():
    detector = kr.detection.Conformal(pixel).calibrate((gray(np.linspace(0, 1, 20)),), 0.1)
    assert detector.is_adversarial(gray([np.nan])).numpy().all()


def test_an_unknown_base_is_refused():
    with pytest.raises(ValueError, match="mahalanobi"):
        kr.detection.Conformal(pixel, base="mahalanobi")
