"""The rules of APGD on paper."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.adaptive_step_rules import (
    AdaptiveStep,
    SparseStep,
    adaptive_rule,
)
from keras_robust.attacks.crafting.step_rules import Point

FREE = kr.LinfBall(100.0, (-200.0, 200.0))
X = tf.zeros([2, 1], tf.float64)


def walk(rule, values, ball=FREE, x=X, gradient=1.0):
    """Feeds values, `[steps, 2]`, to a rule whose gradient never changes; points and states."""
    here, state, found = x, rule.init(ball, x), []
    for index, value in enumerate(values):
        slope = tf.fill(x.shape, tf.constant(gradient, x.dtype))
        point = Point(tf.constant(index), here, tf.constant(value, tf.float64), slope)
        here, state = rule.update(ball, x, point, state)
        found.append((here.numpy(), state))
    return found


def sizes(found):
    return np.array([state.size for _, state in found])


def test_momentum_by_hand():
    """Steps of 1 up: the first is not damped, 1; the next 3/4 of one and 1/4 of the last:
    1 + 0.75 + 0.25 = 2, and so on. A step back is damped likewise."""
    found = walk(AdaptiveStep(1.0, 100), [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    np.testing.assert_allclose([x[0, 0] for x, _ in found], [1, 2, 3])
    rule = AdaptiveStep(1.0, 100)
    here, state = rule.update(FREE, X, Point(tf.constant(0), X, [0.0, 0.0], tf.ones_like(X)),
                              rule.init(FREE, X))  # fmt: skip
    back, _ = rule.update(FREE, X, Point(tf.constant(1), here, [1.0, 1.0], -tf.ones_like(X)), state)
    np.testing.assert_allclose(back, [[1 - 0.75 + 0.25]] * 2)


def test_checkpoints_of_100_steps():
    """At 0.22, then after intervals of 0.19, 0.16, 0.13, 0.1, 0.07, 0.06, 0.06, ... of the steps,
    which an image whose value never rises shows by its size."""
    found = sizes(walk(AdaptiveStep(1.0, 100), np.zeros((101, 2))))[:, 0]
    halved = 1 + np.flatnonzero(np.diff(found))
    assert halved.tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
    np.testing.assert_allclose(found[halved], 0.5 ** np.arange(1, 9))


def test_the_fraction_of_increases_decides():
    """First window of 4 steps (n = 20). Image 0 rises in 4, image 1 in 3 = 0.75 of them."""
    values = [[1, 1], [2, 2], [3, 3], [4, 4], [5, 3.5]]
    found = walk(AdaptiveStep(1.0, 20), np.array(values, float))
    np.testing.assert_array_equal(sizes(found)[-1], [1.0, 0.5])


def test_the_first_step_increases_if_the_value_after_it_is_positive():
    """As in the authors' code. Both images rise in all four steps of the first window, but image 0
    from -2 to -1 in the first: three of four are counted, and its size is halved."""
    values = [[-2, -2], [-1, 1], [0, 2], [1, 3], [2, 4]]
    found = walk(AdaptiveStep(1.0, 20), np.array(values, float))
    np.testing.assert_array_equal(sizes(found)[-1], [0.5, 1.0])


def test_a_restart_from_the_best_point_keeps_the_momentum():
    """Image 1 is halved at 4 and was best at 3, where x was 3: its next step is 0.5 long, of which
    3/4 count, and 1/4 of how far the best point is from where the last step began (3 - 3 = 0).
    Image 0 continues: 4 + 1."""
    values = [[1, 1], [2, 2], [3, 3], [4, 4], [5, 3.5]]
    *_, (x, state) = walk(AdaptiveStep(1.0, 20), np.array(values, float))
    np.testing.assert_allclose(x, [[5.0], [3 + 0.75 * 0.5]])
    np.testing.assert_array_equal(state.best.x, [[4.0], [3.0]])
    np.testing.assert_array_equal(state.best.value, [5.0, 4.0])


def test_no_better_best_since_the_last_checkpoint_halves():
    """n = 20: windows of 4, 4, ... Image 0 starts at 10, and later rises by turns from 1: at the
    first checkpoint all four rise; at the second all four, but the best is still 10."""
    values = [[10, 10]] + [[v, 10 + v] for v in (1, 2, 3, 4, 5, 6, 7)]
    found = sizes(walk(AdaptiveStep(1.0, 20), np.array(values, float)))
    np.testing.assert_array_equal(found[4], [1.0, 1.0])
    np.testing.assert_array_equal(found[7], [0.5, 1.0])


def test_nan_is_never_best():
    *_, (_, state) = walk(AdaptiveStep(1.0, 20), [[np.nan, 1.0], [2.0, np.nan]])
    np.testing.assert_array_equal(state.best.value, [2.0, 1.0])
    np.testing.assert_array_equal(state.best.x, [[1.0], [0.0]])


def test_sparse_steps_by_hand():
    """Of 10 pixels a fifth is moved, those of the largest gradients, by half of the size each."""
    ball, x = kr.L1Ball(1.0, (-9.0, 9.0)), tf.zeros([1, 10], tf.float64)
    gradient = tf.constant([[1.0, -5, 0, 2, 3, -1, 0, 4, 0, 0]], tf.float64)
    rule = SparseStep(1.0, 100)
    point = Point(tf.constant(0), x, [0.0], gradient)
    moved, state = rule.update(ball, x, point, rule.init(ball, x))
    np.testing.assert_allclose(moved, [[0, -0.5, 0, 0, 0, 0, 0, 0.5, 0, 0]])
    assert float(state.changed[0]) == 10


def test_sparse_checkpoints():
    """n = 100: every 4 steps. The best point has moved 1 pixel of 10 instead of all: the size is
    the first one again, and the fraction 1/15. Then it is still 1: the size is divided by 1.5."""
    ball, x = kr.L1Ball(1.0, (-9.0, 9.0)), tf.zeros([1, 10], tf.float64)
    only = tf.one_hot([3], 10, dtype=tf.float64)
    rule, states = SparseStep(1.0, 100), []
    state = rule.init(ball, x)
    for index in range(9):
        point = Point(tf.constant(index), only * min(index, 1), [float(index)], only)
        _, state = rule.update(ball, x, point, state)
        states.append(state)
    np.testing.assert_allclose([s.size[0] for s in states], [1] * 8 + [1 / 1.5])
    np.testing.assert_allclose(states[4].fraction, [1 / 15])
    np.testing.assert_allclose([s.changed[0] for s in states], [10] * 4 + [1] * 5)


def test_the_size_of_sparse_steps_has_a_floor():
    """1 / 1.5^k falls below a tenth at k = 6."""
    ball, x = kr.L1Ball(1.0, (-9.0, 9.0)), tf.zeros([1, 10], tf.float64)
    rule = SparseStep(1.0, 10, fraction=None)
    state = rule.init(ball, x)
    for index in range(9):
        point = Point(tf.constant(index), x, [0.0], tf.ones_like(x))
        _, state = rule.update(ball, x, point, state)
    np.testing.assert_allclose(state.size, [0.1])


def test_the_rule_of_a_ball():
    assert adaptive_rule(kr.LinfBall(0.25), 10) == AdaptiveStep(0.5, 10)
    assert adaptive_rule(kr.L2Ball(0.25), 10) == AdaptiveStep(0.5, 10)
    assert adaptive_rule(kr.L1Ball(12.0), 10) == SparseStep(12.0, 10)


@pytest.mark.parametrize("rule", [AdaptiveStep, SparseStep])
def test_what_is_refused(rule):
    with pytest.raises(ValueError, match="step size is -1"):
        rule(-1.0, 10)
    for steps in (-1, 2.5, True):
        with pytest.raises(ValueError, match=rf"{rule.__name__}: steps is {steps}"):
            rule(1.0, steps)
    with pytest.raises(ValueError, match="expected a number in"):
        rule(1.0, 10, 1.5)
