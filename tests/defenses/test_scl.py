"""Supervised contrast of augmented views."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

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
