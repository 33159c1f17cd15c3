"""AutoAttack's parts beside the official implementation, run in float64."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.apgd import AdversarialTracker
from keras_robust.attacks.black_box.square_proposals import Size, bump, window_fraction
from keras_robust.attacks.crafting.gradient_ascent import gradient_ascent
from keras_robust.core.config import replace


class Padded(kr.L2Ball):
    """An L2 ball that adds 1e-12 to the length that it divides by, as the official code does.

    Where the DLR loss has two logits nearly tied in its denominator, that decides all digits.
    """

    def steepest(self, gradient):
        length = tf.norm(gradient, axis=1, keepdims=True)
        return gradient / (length + 1e-12)


BALLS = {"Linf": kr.LinfBall, "L2": Padded, "L1": kr.L1Ball}


def equal(found, expected, **kwargs):
    np.testing.assert_allclose(found, expected, **{"rtol": 1e-6, "atol": 1e-8, **kwargs})


def network(d):
    def forward(x):
        return {"logits": tf.tanh(x @ d["W1"] + d["b1"]) @ d["W2"] + d["b2"]}

    return forward


def test_the_projection_in_l1(load):
    d = load("aa_l1_projection")
    ball = kr.L1Ball(float(d["eps"]))
    equal(ball.project(d["x"] + d["y"], d["x"]) - d["x"], d["projected"])


CASES = [("Linf", "ce"), ("Linf", "dlr"), ("Linf", "dlrt"), ("L2", "ce"), ("L2", "dlr"),
         ("L1", "ce"), ("L1", "dlr")]  # fmt: skip


@pytest.mark.parametrize(("norm", "loss"), CASES)
def test_apgd(load, norm, loss):
    """The best point, its loss, and the last misclassified one."""
    d = load("aa_apgd")
    targets = d["Linf_dlrt_target"] if loss == "dlrt" else None
    ball = BALLS[norm](float(d[f"eps_{norm}"]))
    attack = kr.attacks.apgd(
        ball,
        int(d["n_iter"]),
        loss="cross_entropy" if loss == "ce" else "dlr",
        targeted=loss == "dlrt",
    )
    rule = replace(attack.step_rule, fraction=None) if norm == "L1" else attack.step_rule
    key = f"{norm}_{loss}"
    oracle = AdversarialTracker(attack.objective, network(d), d["x"], d["y"], targets, 1)
    ended = gradient_ascent(ball, rule, oracle, d["x"], d[f"x_init_{norm}"], attack.steps + 1)
    # Directions are divided by lengths of gradients that nearly vanish, and so are roundings.
    close = {} if norm == "Linf" else {"atol": 1e-6}
    best, (fooled, fooling) = ended.rule_state.best, ended.oracle_state
    equal(best.value, d[f"{key}_loss_best"], **close)
    equal(best.x, d[f"{key}_x_best"], **close)
    equal(tf.cast(~fooled, tf.float64), d[f"{key}_still_correct"])
    equal(fooling, d[f"{key}_x_best_adv"], **close)


def test_the_schedule_of_square(load):
    d = load("aa_square_schedule")
    queries = d["it_std5000"].numpy()
    first = float(d["p_init"])
    equal([window_fraction(query, first) for query in queries], d["p_std5000"])
    sides = Size(32, 32, 3).windows(5000, first, 1)
    np.testing.assert_array_equal(np.array(sides)[queries], d["side_linf_32"])


@pytest.mark.parametrize("norm", ["L2", "L1"])
@pytest.mark.parametrize("shape", [(1, 3), (2, 5), (3, 7), (4, 4)])
def test_the_windows_of_square(load, norm, shape):
    expected = load("aa_square_schedule")[f"eta_rect_{norm}_{shape[0]}x{shape[1]}"]
    equal(bump(*shape, order=BALLS[norm].p), expected)
