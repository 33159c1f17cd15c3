"""APGD where its result is a formula."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import apgd
from keras_robust.attacks.crafting.initialization import AtInput
from keras_robust.core.config import replace

WEIGHTS = np.random.default_rng(0).normal(size=(12, 2))
ORDERS = {kr.LinfBall: 1, kr.L2Ball: 2, kr.L1Ball: np.inf}  # of the dual norm


def linear(x):
    """It is sure of class 0."""
    return {"logits": (x - 0.5) @ tf.constant(WEIGHTS, x.dtype) + tf.constant([9.0, 0], x.dtype)}


@pytest.mark.parametrize("ball", [kr.LinfBall(0.1), kr.L2Ball(0.3), kr.L1Ball(0.4)], ids=repr)
@pytest.mark.parametrize("loss", ["cross_entropy", pytest.param("margin", marks=pytest.mark.slow)])
def test_a_linear_model_is_moved_as_far_as_can_be(ball, loss):
    """Far from the bounds, the largest gain of margin is the radius times the dual norm of the
    difference of the weights. In L1 that is to move one pixel, and sparse steps move two at least:
    two thirds of two are, rounded up, two."""
    x = np.random.default_rng(1).uniform(0.45, 0.55, (5, 12))
    x_adv = apgd(ball, 40, loss=loss)(linear, x, np.zeros(5, int)).numpy()
    across = WEIGHTS[:, 1] - WEIGHTS[:, 0]
    share = (x_adv - x) @ across / ball.radius / np.linalg.norm(across, ORDERS[type(ball)])
    least = 0.75 if isinstance(ball, kr.L1Ball) else 0.999
    assert (share > least).all() and (share < 1 + 1e-9).all()


def test_the_last_adversarial_point_is_returned_though_the_ascent_continues():
    """The loss grows with the pixel; the model errs between 0.55 and 0.65 only. Steps of 0.02 from
    0.5 end near 0.9, where it is right again; the last that errs lies above 0.63."""

    def model(x):
        wrong = (x > 0.55) & (x < 0.65)
        tilt = tf.where(wrong, 1.0, -1.0)
        return {"logits": tf.concat([-tilt + 1e-3 * (1 - x), tilt + 1e-3 * x], axis=1)}

    attack = apgd(kr.LinfBall(0.4), 25, loss="margin")
    attack = replace(
        attack, step_rule=replace(attack.step_rule, size=0.02), initialization=AtInput()
    )
    x = tf.constant([[0.5], [0.1]])
    x_adv = attack(model, x, tf.constant([0, 0])).numpy()
    assert 0.63 < x_adv[0, 0] < 0.65
    assert x_adv[1, 0] == pytest.approx(0.5)  # never fooled: the best point


def test_gradients_are_averaged_over_calls():
    """Slopes of 3, -2, -2 by turns are one of -1/3: down, where the first call alone says up."""
    calls = []

    def model(x):
        slope = (3.0, -2.0, -2.0)[len(calls) % 3]
        calls.append(slope)
        return {"logits": tf.concat([tf.zeros_like(x), slope * x], axis=1)}

    attack = replace(apgd(kr.LinfBall(0.1), 0, loss="margin", eot_iter=3), initialization=AtInput())
    attack(model, tf.constant([[0.5]]), tf.constant([0]))
    assert len(calls) == 3
    attack = replace(attack, steps=1)
    moved = attack(model, tf.constant([[0.5]]), tf.constant([0]))
    assert len(calls) == 9
    # Values by the last call: -2 x 0.5, then -2 x 0.4, which is better.
    np.testing.assert_allclose(moved, [[0.4]])


def test_stages():
    shrinking = apgd(kr.L1Ball(2.0), 100, use_largereps=True)
    assert shrinking._schedule() == [(3.0, 30), (2.0, 30), (1.0, 40)]
    assert replace(shrinking, steps=3)._schedule() == [(3.0, 1), (2.0, 1), (1.0, 1)]
    assert replace(shrinking, steps=1)._schedule() == [(3.0, 1), (2.0, 0), (1.0, 0)]
    x = np.random.default_rng(1).uniform(0, 1, (5, 12))
    found = replace(shrinking, steps=10)(linear, x, np.zeros(5, int))
    assert shrinking.ball.distance(found, x).numpy().max() <= 2 + 1e-9
    with pytest.raises(ValueError, match="pass an `L1Ball`"):
        apgd(kr.L2Ball(2.0), use_largereps=True)


def test_shrinking_begins_in_the_largest_ball():
    radii = []

    def start(ball, x, seed):
        radii.append(ball.radius)
        return kr.initialization.OnSphere()(ball, x, seed)

    shrinking = replace(apgd(kr.L1Ball(0.5), 3, use_largereps=True), initialization=start)
    shrinking(linear, np.full((2, 12), 0.5), np.zeros(2, int))
    assert radii == [1.5]


def test_restarts():
    ball = kr.LinfBall(0.1)
    assert apgd(ball, 5, restarts=3) == kr.attacks.restarts(apgd(ball, 5), 3)


def test_names():
    ball = kr.LinfBall(0.1)
    assert apgd(ball).name == "APGD-CE-100"
    assert apgd(ball, 7, loss="dlr", targeted=True).name == "APGD-DLR-T-7"
    assert apgd(ball, 7, loss=kr.objectives.LabelLoss()).name == "APGD-7"


@pytest.mark.parametrize("eot_iter", [0, 2.5, True])
def test_an_invalid_eot_iter_is_refused(eot_iter):
    with pytest.raises(ValueError, match=f"eot_iter is {eot_iter}"):
        apgd(kr.LinfBall(0.1), eot_iter=eot_iter)


def test_a_ball_is_needed():
    with pytest.raises(TypeError, match=r"ball is 0.1; expected a threat model"):
        apgd(0.1)
