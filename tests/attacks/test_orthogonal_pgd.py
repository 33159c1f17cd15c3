"""Steps of orthogonal PGD, by hand."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.orthogonal_pgd import _orthogonal, orthogonal_pgd

BALL = kr.LinfBall(0.3)


def linear(x):
    """The larger of the first two pixels is the class."""
    return {"logits": 9.0 * x[:, :2]}


def test_a_gradient_without_its_component_along_another():
    gradient, other = tf.constant([[3.0, 4.0], [1.0, 2.0]]), tf.constant([[1e-25, 0.0], [0.0, 0.0]])
    assert _orthogonal(gradient, other).numpy().tolist() == [[0.0, 4.0], [1.0, 2.0]]


def test_steps_against_the_detector_keep_the_prediction():
    """The detector sees the third pixel and the margin; only the third one can be mended."""

    class Third:
        def outputs_and_score(self, forward, x):
            return forward(x), 5 * (x[:, 2] - 0.2) ** 2 + x[:, 0] - x[:, 1]

    x, y = np.float32([[0.6, 0.5, 0.5], [0.9, 0.2, 0.5]]), np.array([0, 0])
    attack = orthogonal_pgd(BALL, Third(), steps=30, step_size=0.05)
    found = attack(linear, x, y, seed=1).numpy()
    assert found[0, 1] > found[0, 0]
    assert found[0, 2] == pytest.approx(0.2, abs=0.06)
    assert found[1, 0] - found[1, 1] == pytest.approx(0.1, abs=0.02)  # as close as the ball allows
    assert attack.at_radius(0.1).step_rule.size == pytest.approx(0.05 / 3)
    assert attack.gradient_steps == 30
    with pytest.raises(ValueError, match="targets"):
        attack(linear, x, y, targets=np.array([1, 1]))
    with pytest.raises(ValueError, match="score"):
        orthogonal_pgd(BALL, "nothing")
