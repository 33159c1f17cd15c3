"""The crafting loop on functions with a known maximum, and the states that it passes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting import initialization, objectives
from keras_robust.attacks.crafting.gradient_ascent import (
    GradientAttack,
    SingleObjective,
    gradient_ascent,
    logits_and_jacobian,
    noinline,
    value_and_gradient,
)
from keras_robust.attacks.crafting.step_rules import FixedStep, MomentumStep

W = np.array(
    [[1.0, -3.0], [2.0, 0.0], [-0.5, 0.5], [0.0, 0.25]]
)  # g for label 0 is W[:, 1] - W[:, 0]
GREY = tf.fill([2, 4], tf.constant(0.5, tf.float64))
Y = tf.constant([0, 1])
ASCENT = np.stack([W[:, 1] - W[:, 0], W[:, 0] - W[:, 1]])


def linear(x):
    return {"logits": x @ tf.constant(W, x.dtype)}


def unit(ball):
    """The steepest direction of the constant gradients, by the norm's own formula."""
    if isinstance(ball, kr.LinfBall):
        return np.sign(ASCENT)
    if isinstance(ball, kr.L2Ball):
        return ASCENT / np.linalg.norm(ASCENT, axis=1, keepdims=True)
    largest = np.abs(ASCENT) == np.abs(ASCENT).max(axis=1, keepdims=True)
    return np.sign(ASCENT) * largest


def attack(ball, steps, size, rule=FixedStep, start=None, loss="cross_entropy"):
    start = start or initialization.AtInput()
    return GradientAttack(ball, objectives.LabelLoss(loss), rule(size), steps, start)


@pytest.mark.parametrize("ball", [kr.LinfBall(0.2), kr.L2Ball(0.2), kr.L1Ball(0.2)], ids=repr)
@pytest.mark.parametrize("rule", [FixedStep, MomentumStep])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize("steps", [0, 1, 3, 7])
def test_a_linear_classifier_is_attacked_along_a_straight_line(ball, rule, loss, steps):
    """Two logits: every gradient is a multiple of w_other - w_label, so k steps of size s end
    min(k s, r) away along its steepest direction."""
    x_adv = attack(ball, steps, 0.05, rule, loss=loss)(linear, GREY, Y)
    expected = 0.5 + min(steps * 0.05, 0.2) * unit(ball)
    np.testing.assert_allclose(x_adv, expected, rtol=1e-9)


def test_the_straight_line_ends_at_the_bounds():
    x_adv = attack(kr.LinfBall(0.7), 10, 0.1)(linear, GREY, Y)
    np.testing.assert_allclose(x_adv, np.clip(0.5 + 0.7 * np.sign(ASCENT), 0, 1))


def test_from_any_start_the_far_corner_is_reached():
    """Steps of 2 r in all cross the whole ball."""
    ball = kr.LinfBall(0.2)
    x_adv = attack(ball, 8, 0.05, start=initialization.Uniform())(linear, GREY, Y, seed=5)
    np.testing.assert_allclose(x_adv, 0.5 + 0.2 * np.sign(ASCENT))


def test_value_and_gradient_of_each_image():
    """f(x) = sum x^3 has gradient 3 x^2 in its own image, whatever else is in the batch."""
    x = tf.constant([[1.0, 2.0], [3.0, -1.0]])
    value, gradient = value_and_gradient(lambda x: tf.reduce_sum(x**3, 1), x)
    np.testing.assert_allclose(value, [9, 26])
    np.testing.assert_allclose(gradient, [[3, 12], [27, 3]])


def test_gradients_that_are_not_finite_become_zero():
    """sqrt has an infinite gradient at 0, and none below."""
    x = tf.constant([[4.0, 0.0, -1.0]])
    _, gradient = value_and_gradient(lambda x: tf.reduce_sum(tf.sqrt(x), 1), x)
    np.testing.assert_allclose(gradient, [[0.25, 0.0, 0.0]])


def test_weights_are_not_watched():
    weight = tf.Variable([[1.0], [2.0]])
    with tf.GradientTape() as outer:
        value_and_gradient(lambda x: (x @ weight)[:, 0], tf.ones([1, 2]))
    assert {id(v) for v in outer.watched_variables()} <= {id(weight)}
    _, gradient = value_and_gradient(lambda x: (x @ weight)[:, 0], tf.ones([1, 2]))
    np.testing.assert_allclose(gradient, [[1, 2]])


@pytest.mark.parametrize("value", [lambda x: tf.reduce_sum(tf.stop_gradient(x), 1), lambda _: Y])
def test_no_path_to_the_input_is_an_error(value):
    with pytest.raises(ValueError, match=r"do not depend on its input.*gradient-free"):
        value_and_gradient(value, GREY)


class Recorder:
    """A step rule that records every point, and adds 1."""

    def __init__(self):
        self.points = []

    def init(self, ball, x_start):
        return tf.constant(10)

    def update(self, ball, x, point, state):
        self.points.append((int(point.index), float(point.x[0, 0]), int(state)))
        return point.x + 1, state + 1


class Counter(SingleObjective):
    """An oracle with a state."""

    def init(self, x_start):
        return tf.constant(100)

    def __call__(self, x_adv, state):
        value, gradient, _ = super().__call__(x_adv, ())
        return value, gradient, state + 1


def test_the_loop_passes_index_point_and_state():
    rule = Recorder()
    oracle = Counter(lambda x: tf.reduce_sum(x, 1))
    end = gradient_ascent(None, rule, oracle, tf.zeros([1, 2]), tf.zeros([1, 2]), steps=3)
    assert rule.points == [(0, 0.0, 10), (1, 1.0, 11), (2, 2.0, 12)]
    np.testing.assert_array_equal(end.x, [[3, 3]])
    assert (int(end.oracle_state), int(end.rule_state)) == (103, 13)


def test_the_number_of_steps_may_be_a_tensor():
    rule = FixedStep(1.0)
    ball = kr.LinfBall(9.0, (-9.0, 9.0))

    @tf.function
    def run(steps):
        x = tf.zeros([1, 2])
        return gradient_ascent(
            ball, rule, SingleObjective(lambda x: tf.reduce_sum(x, 1)), x, x, steps
        ).x

    for steps in (0, 2, 5):
        np.testing.assert_array_equal(run(tf.constant(steps)), [[steps, steps]])
    assert run.experimental_get_tracing_count() == 1


def test_noinline_returns_the_function_in_eager_mode():
    def function(x):
        return x

    assert noinline(function) is function


@pytest.mark.slow
def test_graph_and_eager_agree():
    for ball in (kr.LinfBall(0.2), kr.L2Ball(0.2), kr.L1Ball(0.2)):
        ascent = attack(ball, 5, 0.07, MomentumStep, initialization.Uniform())
        graph = tf.function(lambda ascent=ascent: ascent(linear, GREY, Y, seed=3))
        np.testing.assert_allclose(graph(), ascent(linear, GREY, Y, seed=3), rtol=1e-12)


def test_no_gradient_flows_out():
    ascent = attack(kr.LinfBall(0.2), 2, 0.1)
    with tf.GradientTape() as tape:
        tape.watch(GREY)
        x_adv = ascent(linear, GREY, Y)
    assert tape.gradient(x_adv, GREY) is None


def test_at_radius_keeps_the_ratio_of_the_step():
    ascent = kr.attacks.pgd(kr.LinfBall(0.4), steps=10, step_size=0.1).at_radius(0.2)
    assert (ascent.ball, ascent.step_rule.size) == (kr.LinfBall(0.2), 0.05)
    assert (ascent.steps, ascent.initialization, ascent.name) == (
        10,
        initialization.Uniform(),
        "PGD-10",
    )


def test_at_radius_takes_a_step_size():
    ascent = kr.attacks.mim(kr.L2Ball(0.4), decay=0.5).at_radius(0.2, step_size=0.01)
    assert ascent.step_rule == MomentumStep(0.01, 0.5) and ascent.ball == kr.L2Ball(0.2)


def test_at_radius_of_zero_has_no_ratio():
    nowhere = kr.attacks.pgd(kr.LinfBall(0.4)).at_radius(0)
    assert nowhere.step_rule.size == 0
    with pytest.raises(ValueError, match=r"radius is 0.*no ratio.*Pass `step_size`"):
        nowhere.at_radius(0.1)
    assert nowhere.at_radius(0.1, step_size=0.02).step_rule.size == 0.02


@pytest.mark.parametrize("steps", [-1, 2.0, None, True, "3"])
def test_steps_are_refused(steps):
    with pytest.raises(ValueError, match=r"steps is .*an integer >= 0"):
        attack(kr.LinfBall(0.1), steps, 0.1)


@pytest.mark.parametrize("dtype", [tf.float16, tf.float32, tf.float64])
def test_the_jacobian_of_all_logits(dtype):
    """z = sin(x) W: dz_k / dx_i = cos(x_i) W_ik, of each image by itself; also for no images."""

    def model(x):
        return {"logits": tf.cast(tf.sin(x), tf.float32) @ tf.constant(W, tf.float32)}

    x = tf.cast(np.random.default_rng(0).random((3, 4)), dtype)
    logits, jacobian = logits_and_jacobian(model, x)
    tolerance = 2e-3 if dtype == tf.float16 else 1e-6
    np.testing.assert_allclose(logits, np.sin(x) @ W, atol=tolerance)
    expected = np.cos(x)[:, None, :] * W.T
    np.testing.assert_allclose(jacobian, expected, atol=tolerance)
    graph = tf.function(lambda x: logits_and_jacobian(model, x), autograph=False)
    np.testing.assert_allclose(graph(x)[1], jacobian, atol=1e-6)
    assert graph(x[:0])[1].shape == (0, 2, 4)
