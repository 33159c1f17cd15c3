"""Pairs of clean and attacked images, as the contrastive loss selects them."""

from __future__ import annotations

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation import contrast_pairs

# The attack turns the second image of class 0 only.
X = np.array([[0.9, 0.1], [0.55, 0.45], [0.1, 0.9]], "float32")
Y = np.array([0, 0, 1])


def pairs(selection):
    attack = kr.attacks.fgsm(kr.LinfBall(0.1))
    return contrast_pairs(lambda x: {"logits": x}, (X, Y), attack, selection)


def test_views():
    found = pairs("leaked")
    assert found.predictions.tolist() == [0, 0, 1, 0, 1, 1]
    assert found.labels.tolist() == [0, 0, 1] * 2
    assert found.adversarial.tolist() == [False] * 3 + [True] * 3
    np.testing.assert_array_equal(found.images[:3], X)
    assert np.abs(found.images[3:] - X).max() == pytest.approx(0.1)


def test_only_the_confused_image_is_a_negative():
    """Of class 1 (predicted 1), the attacked second image alone is predicted 1 and of class 0."""
    found = pairs("leaked")
    assert np.flatnonzero(found.negatives[2]).tolist() == [4]
    assert np.flatnonzero(found.positives[2]).tolist() == [5]
    # Anchors 2 and 5 have one adversarial negative; anchor 4 has one natural, one adversarial.
    assert found.counts()["adversarial_negatives"] == pytest.approx(3 / 6)
    assert found.counts()["natural_negatives"] == pytest.approx(1 / 6)


def test_the_counts_are_those_that_training_logs():
    found = pairs("hard")
    loss = kr.losses.Contrastive("hard")
    clean, moved = ({"features": x, "logits": x} for x in (X, found.images[3:]))
    logged = loss(Y.astype("int32"), moved, clean)
    for name in ("adversarial_positives", "adversarial_negatives"):
        assert np.mean(logged[name]) == pytest.approx(found.counts()[name])
