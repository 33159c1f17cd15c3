"""Detectors with statistics: what they measure, on paper, and what they share."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.detection.feature_squeezing import median, reduce_bits
from keras_robust.detection.statistics import Statistics

ON_FEATURES = ("mahalanobis", "relative_mahalanobis", "nearest_neighbors", "lid")


def four_features(x):
    """The pixels are the features; two of them are the logits."""
    features = tf.reshape(x, [-1, 4])
    return {"logits": 8 * features[:, :2], "features": features}


def uniform(count, seed=0):
    return np.random.default_rng(seed).uniform(size=(count, 2, 2, 1)).astype(np.float32)


def images(*features):
    return np.float32(features).reshape(-1, 2, 2, 1)


TRAIN = uniform(120), np.arange(120) % 2


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(0)
    return kr.models.mlp((2, 2, 1), 2, hidden=(6, 5))


def test_mahalanobis_is_the_distance_in_the_shrunk_covariance_of_the_classes():
    from sklearn.covariance import ledoit_wolf

    x, y = TRAIN
    features = x.reshape(-1, 4).astype(np.float64)
    means = np.stack([features[y == label].mean(0) for label in (0, 1)])
    inverse = np.linalg.inv(ledoit_wolf(features - means[y], assume_centered=True)[0])
    point = np.array([0.9, 0.1, 0.5, 0.2])
    expected = min((point - mean) @ inverse @ (point - mean) for mean in means)
    detector = kr.detection.Mahalanobis(four_features).fit(TRAIN)
    np.testing.assert_allclose(detector.score(images(point)), [expected], rtol=1e-4)
    everything = features - features.mean(0)
    other = np.linalg.inv(ledoit_wolf(everything, assume_centered=True)[0])
    centered = point - features.mean(0)
    relative = kr.detection.RelativeMahalanobis(four_features).fit(TRAIN)
    np.testing.assert_allclose(
        relative.score(images(point)), [expected - centered @ other @ centered], rtol=1e-3
    )


def test_nearest_neighbors_is_the_distance_of_directions():
    train = images([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0])
    detector = kr.detection.NearestNeighbors(four_features, k=2).fit((train,))
    # Half of the first neighbor, whose angle is 45 degrees, and the same of the second.
    found = detector.score(images([0.5, 0.5, 0, 0], [0.5, 0, 0, 0]))
    np.testing.assert_allclose(found, [np.sqrt(2 - np.sqrt(2)), np.sqrt(2)], rtol=1e-5)


def test_lid_is_the_maximum_likelihood_estimate():
    train = images([0.1, 0, 0, 0], [0.2, 0, 0, 0], [0.4, 0, 0, 0], [0.9, 0, 0, 0])
    detector = kr.detection.LocalDimension(four_features, k=3).fit((train,))
    expected = -1 / np.mean(np.log([0.25, 0.5, 1.0]))
    np.testing.assert_allclose(detector.score(images([0, 0, 0, 0])), [expected], rtol=1e-4)


def test_lid_grows_with_the_dimension_of_the_data():
    random = np.random.default_rng(1)
    line = np.zeros([400, 4])
    line[:, 0] = random.uniform(size=400)
    found = [
        np.mean(kr.detection.LocalDimension(four_features).fit((images(*data),)).score(uniform(9)))
        for data in (line, random.uniform(size=(400, 4)))
    ]
    assert found[0] > 0
    inside = kr.detection.LocalDimension(four_features).fit((images(*line),))
    assert np.mean(inside.score(images([0.5, 0, 0, 0]))) < 1.5 < found[1]


def test_squeezed_images_on_paper():
    assert reduce_bits(tf.constant([0.2, 0.4, 0.9]), 2).numpy() == pytest.approx([1 / 3, 1 / 3, 1])
    with tf.GradientTape() as tape:
        x = tf.constant([0.2, 0.4])
        tape.watch(x)
        total = tf.reduce_sum(reduce_bits(x, 1))
    assert tape.gradient(total, x).numpy().tolist() == [1, 1]  # of the identity
    dot = np.zeros([1, 5, 5, 1], np.float32)
    dot[0, 2, 2, 0] = 1
    assert not median(tf.constant(dot), 3).numpy().any()
    assert median(tf.constant(dot + 0.25), 3).numpy() == pytest.approx(np.full_like(dot, 0.25))


def test_feature_squeezing_is_the_larger_change_of_the_prediction():
    detector = kr.detection.FeatureSqueezing(four_features, bits=1, window=1)
    x = images([0.4, 0.6, 0, 0])
    before, after = (1 / (1 + np.exp(8 * gap)) for gap in (0.2, 1.0))
    np.testing.assert_allclose(detector.score(x), [2 * (before - after)], rtol=1e-5)


def test_layer_inconsistency_reads_the_layers_of_the_graph(classifier):
    detector = kr.detection.LayerInconsistency(classifier).fit(TRAIN)
    assert len(detector.read_layers) == 2
    shapes = {name: detector.fitted[name].shape for name in detector.fitted}
    assert sorted(shapes.values()) == [(2,), (2,), (5, 2), (6, 2)]
    outputs = detector.extended_outputs(tf.constant(TRAIN[0]))
    probabilities = tf.nn.softmax(outputs["logits"]).numpy()
    terms = []
    for number in (0, 1):
        name = f"layer/{number}"
        linear = outputs[name].numpy() @ detector.fitted[f"{name}/kernel"]
        layer = tf.nn.log_softmax(linear + detector.fitted[f"{name}/bias"]).numpy()
        terms.append(-(probabilities * layer).sum(1))
    np.testing.assert_allclose(detector.score(TRAIN[0]), np.mean(terms, 0), rtol=1e-4)


def test_layer_inconsistency_refuses_models_without_layers(classifier):
    with pytest.raises(ValueError, match="needs a model that exposes several layers"):
        kr.detection.LayerInconsistency(four_features)
    with pytest.raises(ValueError, match="there is no layer 'missing'"):
        kr.detection.LayerInconsistency(classifier, layers=("missing", "features"))
    with pytest.raises(ValueError, match="needs at least two layers"):
        kr.detection.LayerInconsistency(classifier, layers=("features",))


@pytest.mark.parametrize("name", [*ON_FEATURES, "conformal", "feature_squeezing"])
def test_fitted_calibrated_saved_and_loaded(name, tmp_path):
    options = {"base": "mahalanobis", "altered": 0.01} if name == "conformal" else {}
    before = kr.detection.build(name, four_features, **options)
    fitted = before.fit(TRAIN)
    detector = fitted.calibrate((uniform(60, seed=1),), 0.1)
    assert detector.scored_by == detector.calibration.score == name
    assert np.mean(detector.is_adversarial(uniform(60, seed=1))) <= 0.1
    again = kr.detection.load(detector.save(tmp_path / "detector.npz"), four_features)
    assert again == detector
    np.testing.assert_array_equal(again.score(uniform(5)), detector.score(uniform(5)))
    assert hash(again.adaptive_score) == hash(detector.adaptive_score)


def test_detectors_of_other_statistics_are_not_equal():
    one = kr.detection.Mahalanobis(four_features).fit(TRAIN)
    other = kr.detection.Mahalanobis(four_features).fit((uniform(120, seed=5), TRAIN[1]))
    assert one != other
    assert one.adaptive_score != other.adaptive_score


def test_a_refit_is_not_calibrated():
    detector = kr.detection.NearestNeighbors(four_features).fit(TRAIN).calibrate(TRAIN, 0.1)
    assert detector.threshold is not None
    assert detector.fit(TRAIN).threshold is None


def test_what_cannot_be_used_is_refused(tmp_path):
    detector = kr.detection.Mahalanobis(four_features)
    with pytest.raises(ValueError, match=r"no statistics; call `detector = detector.fit"):
        detector.score(uniform(2))
    with pytest.raises(ValueError, match=r"'mahalanobis'.*not be fitted|not finite"):
        kr.detection.Mahalanobis(lambda x: {"features": x / 0, "logits": x}).fit(TRAIN)
    with pytest.raises(TypeError, match="expected 'features' too"):
        kr.detection.Mahalanobis(lambda x: {"logits": x}).fit(TRAIN)
    with pytest.raises(ValueError, match="keeps 3 of 3 training images, and k is 5"):
        kr.detection.NearestNeighbors(four_features).fit((uniform(3),))
    with pytest.raises(ValueError, match=r"no option 'neighbors'; there are"):
        kr.detection.build("lid", four_features, neighbors=3)
    with pytest.raises(ValueError, match=r"'entropy' has no option 'k'; there are none"):
        kr.detection.build("entropy", four_features, k=3)
    with pytest.raises(ValueError, match="scored_by|threshold is of the score 'disagreement'"):
        kr.detection.Mahalanobis(four_features, scored_by="disagreement")
    (tmp_path / "other.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="does not contain a fitted detector"):
        kr.detection.load(tmp_path / "other.npz", four_features)
    with pytest.raises(ValueError, match="statistics would be lost"):
        fitted = detector.fit(TRAIN)
        kr.objectives.AdaptiveObjective(fitted.adaptive_score).get_config()


def test_an_adaptive_attack_lowers_a_fitted_score():
    detector = kr.detection.Mahalanobis(four_features).fit(TRAIN).calibrate(TRAIN, 0.05)
    x = images([0.9, 0.2, 0.9, 0.1], [0.8, 0.1, 0.05, 0.9])
    y = np.array([0, 0])
    ball = kr.LinfBall(0.4)
    oblivious = kr.attacks.pgd(ball, 20)(four_features, x, y)
    objective = kr.objectives.AdaptiveObjective(detector.adaptive_score)
    adaptive = kr.attacks.pgd(ball, 20, loss=objective)(four_features, x, y)
    assert four_features(adaptive)["logits"].numpy().argmax(1).tolist() == [1, 1]
    assert (detector.score(adaptive).numpy() < 0.8 * detector.score(oblivious).numpy()).all()


def test_statistics_are_compared_by_content():
    arrays = {"a": np.arange(3.0), "base/b": np.ones([2, 2], np.float32)}
    one, other = Statistics(arrays), Statistics({**arrays, "a": np.arange(3.0) + 1e-9})
    assert one == Statistics(dict(reversed(arrays.items())))
    assert one != other
    assert one.below("base/")["b"].shape == (2, 2)
    assert one.as_variables() == one
    assert one.nbytes == 24 + 16


def test_a_fit_of_a_robust_model_is_that_of_its_classifier(classifier):
    model = kr.defenses.pgd_at(classifier, kr.LinfBall(0.1))
    of_model, of_classifier = (
        kr.detection.Mahalanobis(one).fit(TRAIN) for one in (model, classifier)
    )
    assert of_model.fitted == of_classifier.fitted
    assert dataclasses.replace(of_model, model=classifier) == of_classifier
