"""Supervised contrast of augmented views."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.losses.contrastive import Contrastive

BALL = kr.LinfBall(0.1)


def test_the_second_view_is_another_one_of_each_image(tiny_classifier, tiny_batch):
    """By the augmentation, with a seed of its own for each image and each call."""
    x, y = tiny_batch
    x = tf.repeat(x[:1], 8, axis=0)
    augment = kr.data.shift_flip(0.4)
    model = kr.defenses.scl(tiny_classifier, BALL, augment=augment)
    seed = tf.constant([3, 4])
    views = model.attack(tiny_classifier, x, y, seed=seed)
    assert len(np.unique(views.numpy().reshape(8, -1), axis=0)) == 8
    seeds = tf.cast(tf.random.split(seed, 8), tf.int64)
    for view, one, image in zip(views, seeds, x, strict=True):
        np.testing.assert_allclose(view, augment(image, one), atol=1e-6)
    np.testing.assert_array_equal(views, model.attack(tiny_classifier, x, y, seed=seed))
    assert np.any(views != model.attack(tiny_classifier, x, y, seed=5))
    assert model.attack.at_radius(0.5) == model.attack
    assert model.validation_attack == kr.attacks.pgd(BALL, 10)


def test_what_is_not_an_augmentation_is_refused(tiny_classifier):
    with pytest.raises(TypeError, match="augment is 'flip'; expected a function"):
        kr.defenses.scl(tiny_classifier, BALL, augment="flip")


def test_pretraining_is_the_contrast_alone(tiny_classifier, tiny_batch):
    """It trains the features, and neither the logits nor anything on attacked images."""
    x, y = tiny_batch

    def augment(image, seed):
        return tf.reverse(image, [1])

    model = kr.defenses.scl(tiny_classifier, BALL, augment=augment, mode="pretraining")
    assert model.robust_loss == Contrastive("global", "cosine", 0.07, 1.0)
    assert model.validation_attack == model.attack
    before = {w.path: w.numpy() for w in tiny_classifier.trainable_weights}
    model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    history = model.fit(x, y, batch_size=8, verbose=0).history
    assert history["loss"] == history["contrastive"]
    moved = {path for path, w in before.items() if np.any(w != _weight(tiny_classifier, path))}
    assert moved == {path for path in before if "logits" not in path}


def _weight(model, path):
    return next(w.numpy() for w in model.weights if w.path == path)


def test_another_mode_is_refused(tiny_classifier):
    augment = kr.data.shift_flip(0.3)
    with pytest.raises(ValueError, match="scl: mode is 'alone'; expected one of 'joint', 'pretr"):
        kr.defenses.scl(tiny_classifier, BALL, augment=augment, mode="alone")
