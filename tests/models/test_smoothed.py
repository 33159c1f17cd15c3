"""Randomized smoothing, on linear models whose smoothed answers are formulas."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import special

import keras_robust as kr
from keras_robust.core import random
from keras_robust.models.smoothed import ABSTAIN, Certificates

SIGMA = 0.5
NORMAL = np.array([0.6, -0.8, 2.4], "float32")  # of length 2.6
REPETITIONS = 1000


def halfspace(x):
    """Class 1 where `normal . x > 0`: under noise with probability Phi(distance / sigma)."""
    margin = tf.linalg.matvec(x, NORMAL)
    return {"logits": tf.stack([-margin, margin], axis=1)}


def at_distance(distance, count=REPETITIONS):
    """Copies of a point of class 1 at that distance from the boundary; each has its own noise."""
    point = distance * NORMAL / np.linalg.norm(NORMAL) + np.array([0.8, 0.6, 0.0])
    return np.tile(point.astype("float32"), (count, 1))


@pytest.fixture(scope="module")
def smooth():
    return kr.models.smoothed(halfspace, SIGMA)


def at_most(rate, alpha):
    """Whether a rate agrees with a probability of at most alpha, within three deviations."""
    return rate <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / REPETITIONS)


@pytest.mark.parametrize(("distance", "alpha"), [(0.5, 0.1), (0.15, 0.05), (0.0, 0.1)])
def test_certified_radii_are_too_large_in_at_most_alpha(smooth, distance, alpha):
    """The true radius is the distance, for class 1; class 0 has none."""
    found = smooth.certify(at_distance(distance), 200, n0=20, alpha=alpha, batch_size=50_000)
    decided = found.classes != ABSTAIN
    too_large = decided & ((found.classes == 0) | (found.radii > distance + 1e-5))
    assert at_most(too_large.mean(), alpha)
    # Bounds are not vacuous: discreteness costs less than two thirds of alpha.
    assert too_large.mean() > alpha / 3 or distance == 0.15
    assert np.all(found.radii[decided] > 0) and np.all(found.radii[~decided] == 0)
    np.testing.assert_allclose(
        found.radii[decided], SIGMA * special.ndtri(found.lower_bounds[decided])
    )


def test_radii_approach_the_distance(smooth):
    found = smooth.certify(at_distance(0.6, 4), 100_000, batch_size=100_000)
    assert np.all(found.classes == 1)
    assert np.all(found.radii < 0.6 + 1e-5) and np.all(found.radii > 0.58)


@pytest.mark.parametrize(("distance", "alpha"), [(0.03, 0.05), (0.0, 0.1)])
def test_predictions_are_wrong_in_at_most_alpha(smooth, distance, alpha):
    """At distance 0 either class is wrong; so are all but few abstentions near it."""
    classes = smooth.predict(at_distance(distance), 200, alpha=alpha, batch_size=50_000)
    wrong = classes == 0 if distance else classes != ABSTAIN
    assert at_most(wrong.mean(), alpha)
    assert (classes == ABSTAIN).mean() > 0.5


def test_far_from_the_boundary_it_decides(smooth):
    assert np.all(smooth.predict(at_distance(1.0, 5), 100) == 1)
    assert np.all(smooth.predict(at_distance(-1.0, 5), 100) == 0)
    assert smooth.predict(at_distance(1.0, 1), 1)[0] == ABSTAIN  # p = 1 of a single sample


@pytest.mark.parametrize("size", [3, 8])
def test_a_sample_does_not_depend_on_its_batch(size):
    key = tf.constant([123456789], tf.uint64)
    whole = random.numbered_normal(key, np.uint64(0), 40, size).numpy()
    for first, count in ((0, 1), (1, 2), (7, 33), (39, 1)):
        part = random.numbered_normal(key, np.uint64(first), count, size)
        np.testing.assert_array_equal(part, whole[first : first + count])


def test_noise_is_standard_normal_and_samples_differ():
    draws = random.numbered_normal(tf.constant([5], tf.uint64), np.uint64(2**40), 20_000, 6).numpy()
    assert len(np.unique(draws)) > 0.99 * draws.size
    covariance = np.cov(draws.T)
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(covariance, np.eye(6), atol=0.04)
    ordered = np.sort(draws.ravel())
    uniform = np.arange(1, draws.size + 1) / draws.size
    assert np.abs(special.ndtr(ordered) - uniform).max() < 2 / np.sqrt(draws.size)


def test_the_seed_decides_and_batch_sizes_do_not(tiny_classifier, tiny_batch):
    x = tiny_batch[0][:5]
    smooth = kr.models.smoothed(tiny_classifier, 0.4)
    first = smooth.certify(x, 60, n0=10, alpha=0.3, seed=3)
    for batch_size in (1, 7, 60, 64, 299):
        again = smooth.certify(x, 60, n0=10, alpha=0.3, seed=3, batch_size=batch_size)
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)
    other = smooth.certify(x, 60, n0=10, alpha=0.3, seed=4)
    assert np.any(first.lower_bounds != other.lower_bounds)
    head = smooth.certify(x[:2], 60, n0=10, alpha=0.3, seed=3)
    np.testing.assert_array_equal(head.lower_bounds, first.lower_bounds[:2])


def test_it_is_traced_once_and_follows_the_weights():
    calls = []

    def forward(x):
        calls.append(1)
        return {"logits": x * scale}

    scale = tf.Variable([1.0, 0.0])
    smooth = kr.models.smoothed(forward, 0.1)
    x = np.array([[3.0, 0.0], [4.0, 0.0], [5.0, 0.0]], "float32")
    assert smooth.predict(x, 50, batch_size=40).tolist() == [0, 0, 0]
    scale.assign([-1.0, 0.0])
    assert smooth.predict(x[:2], 30).tolist() == [1, 1]
    assert smooth.certify(x, 30, n0=5).classes.tolist() == [1, 1, 1]
    assert len(calls) == 1


def test_noise_leaves_the_range_of_pixels():
    """Each of 40 white pixels is above 1 with probability 1/2."""

    def beyond(x):
        outside = tf.reduce_max(tf.abs(x - 0.5), axis=1) > 0.5
        return {"logits": tf.one_hot(tf.cast(outside, tf.int32), 2)}

    assert kr.models.smoothed(beyond, 0.1).predict(np.ones([1, 40], "float32"), 50)[0] == 1


def test_logits_that_are_not_finite_count_for_no_class():
    def broken(x):
        return {"logits": tf.where(x[:, :1] > 0, [[np.nan, 1.0]], [[0.0, 1.0]])}

    smooth = kr.models.smoothed(broken, 0.1)
    x = np.array([[9.0], [-9.0], [0.0]], "float32")
    found = smooth.certify(x, 1000, n0=100)
    assert found.classes.tolist() == [ABSTAIN, 1, ABSTAIN]
    assert found.lower_bounds[0] == 0 and found.lower_bounds[2] < 0.5
    assert smooth.predict(x, 100).tolist() == [ABSTAIN, 1, 1]  # of the finite ones all are 1


def test_models_that_it_takes(tiny_classifier, tiny_batch):
    robust = kr.defenses.pgd_at(tiny_classifier, kr.LinfBall(0.1), steps=1)
    smooth = kr.models.smoothed(robust, 0.1)
    assert smooth.classifier is tiny_classifier
    x = tiny_batch[0][:3]
    found = smooth.predict(tf.constant(x), 40)
    np.testing.assert_array_equal(found, smooth.predict(x.astype("float64"), 40))
    with pytest.raises(TypeError, match=r"Wrap a Keras model of your own with"):
        kr.models.smoothed(lambda x: x, 0.1).predict(x)


def test_certified_accuracy():
    """A radius is one of smaller distances, so an image is not certified at its own."""
    found = Certificates(np.array([2, 2, 1, ABSTAIN]), np.array([0.3, 0.1, 0.9, 0.0]), np.ones(4))
    y = np.array([2, 2, 0, 0])
    assert found.accuracy(y) == 0.5
    np.testing.assert_array_equal(found.accuracy(y, [0.05, 0.1, 0.2, 0.3]), [0.5, 0.25, 0.25, 0])
    assert found.accuracy(np.eye(3)[y], 0.2) == 0.25


def test_the_progress_bar(smooth, capsys):
    smooth.predict(at_distance(1.0, 2), 30, batch_size=20)
    assert capsys.readouterr().out == ""
    smooth.certify(at_distance(1.0, 2), 30, n0=10, batch_size=20, verbose=1)
    assert "80/80" in capsys.readouterr().out


def test_what_is_refused(smooth):
    with pytest.raises(TypeError, match="the classifier is 'mnist'; expected a Keras model"):
        kr.models.smoothed("mnist", 0.1)
    for sigma in (0, -1.0, np.nan, "0.1"):
        with pytest.raises(
            ValueError, match=r"smoothed: sigma is .*; expected a finite number > 0"
        ):
            kr.models.smoothed(halfspace, sigma)
    x = at_distance(1.0, 2)
    for options, match in (
        ({"alpha": 0}, r"alpha is 0; expected a number in \(0, 1\)"),
        ({"alpha": 1.0}, "alpha is 1.0"),
        ({"n": 0}, "smoothed: n is 0; expected an integer >= 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": 0.5}, "seed is 0.5"),
    ):
        for method in (smooth.predict, smooth.certify):
            with pytest.raises(ValueError, match=match):
                method(x, **options)
    with pytest.raises(ValueError, match="n0 is 2.5"):
        smooth.certify(x, n0=2.5)
    with pytest.raises(TypeError, match="dtype uint8 .*Divide 8-bit images by 255"):
        smooth.predict(np.zeros([2, 3], "uint8"))
    for bad in (x * np.nan, x[:0], x[0]):
        with pytest.raises(ValueError, match="expected at least one image"):
            smooth.predict(bad)
