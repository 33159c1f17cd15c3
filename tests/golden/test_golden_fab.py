"""FAB and its projections beside the official implementation, run in float64."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import fab

BALLS = {"Linf": kr.LinfBall, "L2": kr.L2Ball, "L1": kr.L1Ball}
WHOLE = {"Linf": 1.0, "L2": 4.0, "L1": 16.0}  # radii that hold all images of 16 pixels


def equal(found, expected, **kwargs):
    np.testing.assert_allclose(found, expected, **{"rtol": 1e-6, "atol": 1e-8, **kwargs})


@pytest.mark.parametrize("norm", BALLS)
def test_projections(load, norm):
    """The last two planes miss the box, and the projection is its farthest corner."""
    d = load("aa_fab_projections")
    ball = BALLS[norm](0.1)
    value = tf.reduce_sum(d["w"] * d["t"], axis=1) - d["b"]
    step = ball.project_onto_hyperplane(d["t"], d["w"], value)
    length = ball.distance(step, tf.zeros_like(step))
    equal(length[:-2], d[f"norm_opt_{norm.lower()}"][:-2])
    equal(length, ball.distance(d[f"d_{norm.lower()}"], tf.zeros_like(step)))
    equal((value + tf.reduce_sum(d["w"] * step, axis=1))[:-2], np.zeros(len(step) - 2))
    if norm != "L1":  # whose shortest steps may be several
        equal(step, d[f"d_{norm.lower()}"])


def network(d):
    def forward(x):
        return {"logits": tf.tanh(x @ d["W1"] + d["b1"]) @ d["W2"] + d["b2"]}

    return forward


@pytest.mark.parametrize(
    "targeted",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["untargeted", "targeted"],
)
@pytest.mark.parametrize("norm", BALLS)
def test_whole_attacks(load, norm, targeted):
    """From the image itself; the target is the third class by the clean logits."""
    d = load("aa_fab")
    forward, x, y = network(d), d["x"], d["y"]
    ball = BALLS[norm](WHOLE[norm])
    settings = {name: float(d[name]) for name in ("alpha_max", "eta", "beta")}
    attack = fab(ball, int(d["n_iter"]), targeted=targeted, **settings)
    third = tf.argsort(forward(x)["logits"], axis=1)[:, -3]
    x_adv = attack(forward, x, y, targets=third if targeted else None)
    suffix = "_t3" if targeted else ""
    equal(x_adv, d[f"{norm}_adv{suffix}"])
    equal(ball.distance(x_adv, x), d[f"{norm}_dist{suffix}"])
