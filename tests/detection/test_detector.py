"""The detector: scores, calibration on data sets of every form, and what it refuses."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust.detection import Calibration, Detector, EntropyDetector


def certainty(x):
    """Two classes; the first logit is ten times the mean of the image, the second 0."""
    first = 10 * tf.reduce_mean(x, axis=[1, 2, 3])
    return {"logits": tf.stack([first, tf.zeros_like(first)], axis=1)}


def gray(values):
    """Images of 2 x 2 pixels, each of one value."""
    return tf.constant(np.reshape(values, [-1, 1, 1, 1]) * np.ones([1, 2, 2, 1]), tf.float32)


def binary_entropy(logit):
    p = 1 / (1 + math.exp(-logit))
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def test_score_is_the_entropy_of_the_softmax():
    scores = EntropyDetector(certainty).score(gray([0.0, 0.1, 1.0]))
    np.testing.assert_allclose(scores, [binary_entropy(z) for z in (0, 1, 10)], atol=1e-6)


def test_calibrate_then_alarms_are_at_most_the_rate():
    clean = gray(np.linspace(0, 1, 40))
    before = EntropyDetector(certainty)
    detector = before.calibrate([(clean, tf.zeros(40))], false_alarm_rate=0.05)
    assert before.threshold is None
    assert detector.threshold == pytest.approx(binary_entropy(10 * 2 / 39))
    assert (detector.false_alarm_rate, detector.samples) == (0.05, 40)
    assert np.flatnonzero(detector.is_adversarial(clean)).tolist() == [0, 1]
    assert detector.is_adversarial(clean).dtype == tf.bool


def test_every_form_of_data_set_gives_the_same_threshold():
    images, labels = gray(np.linspace(0, 1, 50)), tf.zeros(50, tf.int64)
    pairs = tf.data.Dataset.from_tensor_slices((images, labels))
    weighted = tf.data.Dataset.from_tensor_slices((images, labels, tf.ones(50)))
    forms = [
        pairs.batch(50),
        pairs.batch(7),
        weighted.batch(16),
        tf.data.Dataset.from_tensor_slices(images).batch(20),
        [(images.numpy().astype(np.float64), labels)],
        (batch for batch in [images[:30], images[30:]]),
    ]
    found = {EntropyDetector(certainty).calibrate(form, 0.1).threshold for form in forms}
    assert max(found) - min(found) < 1e-6


def test_batches_of_many_sizes_are_traced_once():
    traces = []

    def counting(x):
        traces.append(x.shape)
        return certainty(x)

    images = gray(np.linspace(0, 1, 50))
    EntropyDetector(counting).calibrate([images[:9], images[9:10], images[10:]], 0.1)
    assert len(traces) == 1


def test_a_keras_model_is_scored_in_inference_mode():
    inputs = keras.Input([2, 2, 1])
    features = keras.layers.Dropout(0.9)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, {"logits": keras.layers.Dense(3)(features), "features": features})
    detector = EntropyDetector(model)
    images = gray([0.2, 0.8])
    np.testing.assert_array_equal(detector.score(images), detector.score(images))
    eager, graph = detector.score(images), tf.function(detector.score)(images)
    np.testing.assert_allclose(eager, graph, atol=1e-6)


def test_a_score_that_is_not_a_number_raises_an_alarm():
    def broken(x):
        return {"logits": certainty(x)["logits"] * np.nan}

    assert EntropyDetector(broken, threshold=0.5).is_adversarial(gray([0.5])).numpy().all()


def test_an_uncalibrated_detector_says_how_to_calibrate():
    detector = EntropyDetector(certainty)
    with pytest.raises(ValueError, match=r"no threshold.*detector.calibrate"):
        detector.is_adversarial(gray([0.5]))
    with pytest.raises(ValueError, match="not calibrated"):
        _ = detector.calibration
    with pytest.raises(ValueError, match="not calibrated"):
        _ = EntropyDetector(certainty, threshold=0.5).calibration


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EntropyDetector(certainty).threshold = 0.5


def test_calibration_round_trip():
    detector = EntropyDetector(certainty).calibrate([gray(np.linspace(0, 1, 30))], 0.1)
    assert EntropyDetector.from_calibration(certainty, detector.calibration) == detector
    assert detector.calibration.score == "entropy"


def test_a_calibration_of_another_score_is_refused():
    other = Calibration(0.5, 0.05, score="least_confidence", samples=100)
    with pytest.raises(ValueError, match=r"'least_confidence'.*'entropy'"):
        EntropyDetector.from_calibration(certainty, other)


def test_bad_arguments_are_refused_at_once():
    with pytest.raises(TypeError, match="model is a NoneType"):
        EntropyDetector(None)
    with pytest.raises(ValueError, match="threshold is nan; expected a finite number, or None"):
        EntropyDetector(certainty, threshold=math.nan)
    with pytest.raises(ValueError, match="false_alarm_rate is 0"):
        EntropyDetector(certainty, threshold=0.5, false_alarm_rate=0)


def test_bad_images_are_refused():
    detector = EntropyDetector(certainty, threshold=0.5)
    with pytest.raises(TypeError, match=r"uint8.*Divide 8-bit images by 255"):
        detector.score(np.zeros([1, 2, 2, 1], np.uint8))
    with pytest.raises(ValueError, match="empty batch"):
        detector.score(tf.zeros([0, 2, 2, 1]))
    with pytest.raises(TypeError, match="'logits'"):
        EntropyDetector(lambda x: x).score(gray([0.5]))


def test_bad_data_sets_are_refused():
    detector = EntropyDetector(certainty)
    images = gray(np.linspace(0, 1, 50))
    for array in (images, images.numpy(), None, 3):
        with pytest.raises(TypeError, match="expected batches of images"):
            detector.calibrate(array)
    endless = tf.data.Dataset.from_tensors(images).repeat()
    with pytest.raises(ValueError, match="infinite dataset"):
        detector.calibrate(endless)
    with pytest.raises(ValueError, match="from 0 clean images"):
        detector.calibrate([])
    with pytest.raises(ValueError, match="from 0 to 255 were received"):
        detector.calibrate([images * 255])
    with pytest.raises(ValueError, match="from 10 clean images; at least 20"):
        detector.calibrate([images[:10]], 0.05)
    with pytest.raises(ValueError, match="false_alarm_rate is 5"):
        detector.calibrate([images], 5)


def test_another_score_is_a_parameter():
    """1 - p of the likelier class; its calibration carries the name."""
    images = gray(np.linspace(0, 1, 40))
    detector = Detector(certainty, scored_by="least_confidence")
    found = detector.score(gray([0.0, 0.1]))
    np.testing.assert_allclose(found, [0.5, 1 / (1 + math.exp(1))], rtol=1e-5)
    detector = detector.calibrate([images], 0.05)
    assert type(detector) is Detector and detector.calibration.score == "least_confidence"
    assert Detector.from_calibration(certainty, detector.calibration) == detector
    assert detector.score_title == "1 - largest probability"
    with pytest.raises(ValueError, match="no score 'max'"):
        Detector(certainty, scored_by="max")
    with pytest.raises(ValueError, match="expected those of an ensemble"):
        Detector(certainty, scored_by="disagreement").score(images)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_rounding_step_outside_the_range_is_clipped(dtype):
    images = np.asarray(gray(np.linspace(0, 1, 50))).astype(dtype)
    expected = EntropyDetector(certainty).calibrate([images], 0.1)
    one = np.array(1, dtype)
    images[images == 1] = np.nextafter(one, np.array(2, dtype), dtype=dtype)
    assert EntropyDetector(certainty).calibrate([images], 0.1) == expected
    with pytest.raises(ValueError, match=r"from 0 to 1\.00[12]\d* were received"):
        EntropyDetector(certainty).calibrate([images.astype("float32") * 1.001], 0.1)
