"""Boundary and HopSkipJump beside Foolbox, on the network of `aa_fab.npz`."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

HERE = pathlib.Path(__file__).parent
CASES = {
    "boundary_l2": lambda: kr.attacks.boundary(kr.L2Ball(4.0), 600),
    "hop_skip_jump_l2": lambda: kr.attacks.hop_skip_jump(kr.L2Ball(4.0), 20),
    "hop_skip_jump_linf": lambda: kr.attacks.hop_skip_jump(kr.LinfBall(1.0), 20),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * name.startswith("boundary")) for name in CASES],
)
def test_examples_are_as_close_as_those_of_foolbox(name):
    """Random walks end in different places of the boundary, so the median is compared."""
    network, theirs = np.load(HERE / "aa_fab.npz"), np.load(HERE / "foolbox" / "decisions.npz")
    w1, b1, w2, b2, x = (network[key].astype("float32") for key in ("W1", "b1", "W2", "b2", "x"))

    def forward(x):
        return {"logits": tf.matmul(tf.tanh(tf.matmul(x, w1) + b1), w2) + b2}

    y = theirs["predictions"]
    np.testing.assert_array_equal(forward(x)["logits"].numpy().argmax(axis=1), y)
    attack = CASES[name]()
    x_adv = attack.compiled(forward)(x, y, 0).numpy()
    assert (forward(x_adv)["logits"].numpy().argmax(axis=1) != y).all()
    ratio = attack.ball.distance(x_adv, x).numpy() / theirs[name]
    assert np.median(ratio) <= 1.01, ratio
