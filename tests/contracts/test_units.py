"""The range of the pixels is a choice of units: no attack and no start depends on it.

Each attack runs on the same model and the same images in [0, 1] and in another range, with the ball
scaled. `Square` in L1 depends on the units, as the authors' code does; its docstring says so.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting import initialization
from tests.contracts.attack_table import BALLS, CLASSES, ROWS

UNIT, BYTES, SIGNED, SHIFTED = (0.0, 1.0), (0.0, 255.0), (-1.0, 1.0), (-30.0, 225.0)
SHAPE = (3, 3, 1)
X = 0.1 + 0.8 * np.random.default_rng(0).random((6, *SHAPE)).astype("float32")
WEIGHTS = [
    f(1 + k * np.arange(9 * CLASSES)).reshape(9, CLASSES) for f, k in ((np.sin, 2), (np.cos, 3))
]
WEIGHTS = [weights.astype("float32") for weights in WEIGHTS]
STARTS = {"gaussian": initialization.Gaussian(0.05), "uniform": initialization.Uniform(),
          "step": initialization.RandomStep(0.5), "sphere": initialization.OnSphere()}  # fmt: skip
# Attacks with a number that has units, or had one.
QUICK = {
    ("spsa", "linf"), ("carlini_wagner", "l2"), ("pgd gaussian", "l2"),
    ("multi_task", "linf"), ("multi_task members", "l2"), ("hop_skip_jump", "l2"), ("fab", "l2"),
    ("boundary", "l2"), ("apgd", "l1"), ("square", "linf"),
}  # fmt: skip


def scaled(x, bounds):
    return x * (bounds[1] - bounds[0]) + bounds[0]


def unscaled(x, bounds):
    return (x - bounds[0]) / (bounds[1] - bounds[0])


def in_range(ball, bounds):
    if ball.p == 0:  # a number of pixels has no units
        return ball.replace(bounds=bounds)
    return ball.replace(radius=float(ball.radius) * (bounds[1] - bounds[0]), bounds=bounds)


def network(bounds, members=0):
    def forward(x):
        flat = tf.reshape(unscaled(x, bounds), [-1, 9]) - 0.5
        logits = [tf.tanh(flat) @ WEIGHTS[0], flat @ WEIGHTS[1]]
        if not members:
            return {"logits": logits[0]}
        return {"logits": tf.add_n(logits) / 2, "member_logits": tf.stack(logits, axis=1)}

    return forward


def build(name, ball, bounds):
    if name == "transfer":  # its source has units too
        return kr.attacks.transfer(kr.attacks.pgd(ball, 3), network(bounds))
    if name == "multi_task":  # the transformations of the table are its own
        tasks = kr.tasks.Transformations(kr.transforms.ALL[:3], stochastic=True)
        return kr.attacks.multi_task(ball, 3, tasks=tasks, solver="min_norm", loss="margin")
    return ROWS[name].build(ball)


def crafted(name, ball, bounds):
    """What an attack finds in a range, scaled back to [0, 1]."""
    row, x = ROWS[name], tf.constant(scaled(X, bounds))
    model = network(bounds, row.members)
    y = network(UNIT, row.members)(tf.constant(X))["logits"].numpy().argmax(1)
    targets = {"targets": (y + 1) % CLASSES} if row.targeted else {}
    found = build(name, in_range(ball, bounds), bounds)(model, x, y, seed=3, **targets)
    return np.stack([unscaled(part, bounds) for part in tf.nest.flatten(found)])


@pytest.mark.parametrize("bounds", [SHIFTED, pytest.param(SIGNED, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize(
    ("name", "norm"),
    [
        pytest.param(name, norm, marks=() if (name, norm) in QUICK else pytest.mark.slow)
        for name in ROWS
        for norm in ROWS[name].norms
    ],
)
def test_attacks(name, norm, bounds):
    if (name, norm) == ("square", "l1"):
        pytest.skip("it depends on the units, as its docstring says")
    ball = BALLS[norm]
    if ROWS[name].minimum_norm:  # a few steps do not come closer
        ball = ball.replace(radius=3 * float(ball.radius))
    expected, found = (crafted(name, ball, b) for b in (UNIT, bounds))
    assert np.abs(expected - X).max() > 0.005
    # Brendel and Bethge's steps end within a tolerance of the boundary.
    atol = 5e-3 if name == "brendel_bethge" else 2e-4
    differs = np.abs(found - expected).reshape(len(found), len(X), -1).max(axis=(0, 2)) > atol
    assert differs.sum() <= (norm == "l1")  # a tie of two pixels, which rounding decides


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("start", STARTS)
def test_initializations(start, norm):
    expected, *found = (
        unscaled(STARTS[start](in_range(BALLS[norm], b), tf.constant(scaled(X, b)), [1, 2]), b)
        for b in (UNIT, BYTES, SIGNED)
    )
    assert np.abs(expected - X).max() > 0.01
    for one in found:
        np.testing.assert_allclose(one, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "make",
    [
        kr.attacks.carlini_wagner,
        kr.attacks.boundary,
        kr.attacks.hop_skip_jump,
        lambda ball: kr.attacks.multi_task(
            ball, 1, tasks=kr.tasks.Transformations((kr.transforms.ALL[-1],))
        )(network(UNIT), X, np.zeros(6, int)),
    ],
)
def test_attacks_that_need_a_range_refuse_a_ball_without_one(make):
    with pytest.raises(ValueError, match="needs a finite range of the pixels.*`bounds=.0, 1.`"):
        make(kr.L2Ball(1.0, bounds=(-math.inf, math.inf)))


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("spsa", "linf"),
        ("apgd", "l1"),
        pytest.param("brendel_bethge", "l2", marks=pytest.mark.slow),
    ],
)
def test_the_others_do_without_a_range(name, norm):
    """They found nothing, or NaN."""
    ball = BALLS[norm].replace(bounds=(-math.inf, math.inf))
    y = network(UNIT)(X)["logits"].numpy().argmax(1)
    found = ROWS[name].build(ball)(network(UNIT), X, y)
    distances = ball.distance(found, X).numpy()
    assert (distances <= float(ball.radius) * 1.001).all() and distances.max() > 0.05
