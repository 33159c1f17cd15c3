"""Latents are those of the model, and neighbours stay neighbours in the plane."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation import latents, project

FGSM = kr.attacks.fgsm(kr.LinfBall(0.1))


def test_clean_latents_first_then_those_of_the_same_images_attacked(tiny_classifier, tiny_batch):
    x, y = tiny_batch
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(3)
    found = latents(tiny_classifier, data, FGSM)
    for rows, images in ((slice(0, 8), x), (slice(8, 16), FGSM(tiny_classifier, x, y))):
        outputs = tiny_classifier(images, training=False)
        np.testing.assert_allclose(found.features[rows], outputs["features"], atol=1e-5)
        entropies = kr.losses.entropy(outputs["logits"])
        np.testing.assert_allclose(found.entropies[rows], entropies, atol=1e-5)
        np.testing.assert_array_equal(found.predictions[rows], np.argmax(outputs["logits"], 1))
        np.testing.assert_array_equal(found.labels[rows], y)
    assert found.adversarial.tolist() == [False] * 8 + [True] * 8


def test_fooling_are_attacked_images_of_another_prediction():
    """The second image is wrong before the attack, the third after it."""
    x = np.array([[0.9, 0.1], [0.4, 0.5], [0.55, 0.5]], "float32")
    found = latents(lambda x: {"logits": x, "features": x}, (x, [0, 0, 0]), FGSM)
    assert found.fooling.tolist() == [False, False, False, False, True, True]


def test_an_ensemble_predicts_by_its_mean():
    """Two members at 0.9 and 0.3 of class 0: the mean is 0.6, whatever the logits say."""
    logits = tf.math.log(tf.constant([[[0.9, 0.1], [0.3, 0.7]]]))

    def model(x):
        return {"logits": -x, "features": x, "member_logits": logits + 0 * x[:, None]}

    found = latents(model, (np.array([[0.8, 0.2]], "float32"), [0]), FGSM)
    assert found.predictions[0] == 0
    mean = np.array([0.6, 0.4])
    assert found.entropies[0] == pytest.approx(-(mean * np.log(mean)).sum(), rel=1e-5)


def test_a_limit_counts_clean_images(tiny_classifier, tiny_batch):
    assert len(latents(tiny_classifier, tiny_batch, FGSM, limit=5).labels) == 10


def test_clusters_stay_apart_and_points_repeat():
    """Two clusters far apart in 20 dimensions: each point's nearest neighbour is of its own."""
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(0, 1, (12, 20)), rng.normal(8, 1, (12, 20))])
    points = project(z, perplexity=5)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert ((distance.argmin(1) < 12) == (np.arange(24) < 12)).all()
    np.testing.assert_array_equal(points, project(z, perplexity=5))


def test_latents_of_one_number_have_a_place_too():
    assert np.isfinite(project(np.linspace(0, 1, 8)[:, None], perplexity=2)).all()


@pytest.mark.parametrize(
    ("features", "perplexity", "text"),
    [
        (np.zeros((5, 2, 2)), 2, r"shape \(5, 2, 2\).*expected finite numbers \[n, d\]"),
        (np.full((5, 2), np.nan), 2, "not finite"),
        (np.zeros((5, 2)), 30, r"perplexity is 30; expected a number in \(0, 5\) for 5 latents"),
        (np.zeros((5, 2)), 0, r"perplexity is 0; expected a number in \(0, 5\) for 5 latents"),
    ],
)
def test_what_cannot_be_projected_is_refused(features, perplexity, text):
    with pytest.raises(ValueError, match=text):
        project(features, perplexity=perplexity)
