"""Shared parts of minimum-norm attacks: which example is kept, and what counts."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.minimum_norm import MinimumNormAttack, initial_best, keep_closest
from keras_robust.core.config import serializable

X = tf.constant([[0.5, 0.5]] * 4)
Y = tf.zeros([4], tf.int32)
CANDIDATE = tf.constant([[0.5, 0.9], [0.5, 0.6], [0.5, 0.6], [0.5, 0.9]])


def test_the_closer_example_is_kept():
    """Distances 0.4, 0.1, 0.1 (not adversarial), and 0 of an image misclassified already."""
    ball = kr.L2Ball(1.0)
    found = initial_best(X, tf.constant([False, False, False, True]))
    assert found.distance[3] == 0 and found.distance[0] > 1e30
    found = keep_closest(ball, found, X, CANDIDATE, tf.constant([True, True, False, True]))
    np.testing.assert_allclose(found.x, [[0.5, 0.9], [0.5, 0.6], [0.5, 0.5], [0.5, 0.5]])
    np.testing.assert_allclose(found.distance[:2], [0.4, 0.1], rtol=1e-6)
    found = keep_closest(ball, found, X, CANDIDATE[::-1], tf.constant([True] * 4))
    np.testing.assert_allclose(found.x[:2], [[0.5, 0.9], [0.5, 0.6]])


@serializable
class Given(MinimumNormAttack):
    """Finds `CANDIDATE` for the images that are right."""

    ball: object
    name = "given"

    def search(self, forward, x, y, seed, targets):
        wrong = kr.losses.misclassified(forward(x)["logits"], y)
        return keep_closest(self.ball, initial_best(x, wrong), x, CANDIDATE, ~wrong)


def test_the_radius_decides_at_the_end():
    attack = Given(kr.LinfBall(0.2))
    x_adv = attack(lambda x: {"logits": x}, X, Y)
    np.testing.assert_allclose(x_adv, [[0.5, 0.5], [0.5, 0.6], [0.5, 0.6], [0.5, 0.5]])
    np.testing.assert_array_equal(
        attack.at_radius(0.5, step_size=0.1)(lambda x: {"logits": x}, X, Y), CANDIDATE
    )
    np.testing.assert_array_equal(attack.at_radius(0.0)(lambda x: {"logits": x}, X, Y), X)
    np.testing.assert_array_equal(attack(lambda x: {"logits": x}, X, Y + 1), X)
