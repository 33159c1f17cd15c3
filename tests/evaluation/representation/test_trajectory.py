"""The way of an attack."""

from __future__ import annotations

import numpy as np
import pytest

import keras_robust as kr


def linear(x):
    return {"logits": x}


def test_it_begins_at_the_start_and_ends_where_the_attack_does():
    attack = kr.attacks.pgd(kr.LinfBall(0.2), steps=3, step_size=0.1)
    x, y = np.array([[0.5, 0.4], [0.1, 0.9]], "float32"), np.array([0, 1])
    way = kr.evaluation.trajectory(attack, linear, x, y, seed=5)
    assert way.shape == (4, 2, 2)
    np.testing.assert_array_equal(way[-1], attack(linear, x, y, seed=5))
    assert np.any(way[0] != x)  # the random start
    # Away from class 0: the first coordinate falls by a step, until the ball holds it.
    low = x[0, 0] - np.float32(0.2)
    for before, after in zip(way[:-1, 0, 0], way[1:, 0, 0], strict=True):
        assert after == pytest.approx(max(before - 0.1, low), abs=1e-6)


def test_other_attacks_have_no_way():
    twice = kr.attacks.restarts(kr.attacks.pgd(kr.LinfBall(0.2)), 2)
    with pytest.raises(TypeError, match="gradient attack"):
        kr.evaluation.trajectory(twice, linear, np.zeros([1, 2], "float32"), np.array([0]))
