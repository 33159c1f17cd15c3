"""Attacks under XLA: they compile, and give what the graph gives, from the same noise."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import apgd, auto_attack, fab, mim, multi_targeted, pgd, square
from keras_robust.attacks.crafting.gradient_ascent import value_and_gradient

X = np.random.default_rng(0).random((4, 4, 3, 1)).astype("float32")
Y = np.arange(4)
BALLS = {"linf": kr.LinfBall(0.08), "l2": kr.L2Ball(0.5), "l1": kr.L1Ball(1.2)}
WEIGHTS = np.random.default_rng(1).normal(size=(12, 8)).astype("float32")


def model(x):
    hidden = tf.tanh(tf.reshape(x, [-1, 12]) @ WEIGHTS)
    return {"logits": hidden @ WEIGHTS[:8, :5]}


def assert_same(attack):
    targets = (Y + 1) % 5 if attack.takes_targets else None

    def run(seed):
        return attack(model, X, Y, seed=seed, targets=targets)

    graph, compiled = (tf.function(run, autograph=False, jit_compile=jit) for jit in (False, True))
    for seed in ([3, 0], [4, 1]):
        expected = graph(tf.constant(seed)).numpy()
        np.testing.assert_allclose(compiled(tf.constant(seed)), expected, atol=1e-3)
        assert np.any(expected != X)


@pytest.mark.slow
@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize(
    "build",
    [
        lambda ball: pgd(ball, 3),
        lambda ball: pgd(ball, 3, loss="kl", initialization="gaussian"),
        lambda ball: mim(ball, 3),
        lambda ball: apgd(ball, 5),
        lambda ball: square(ball, 9),
        lambda ball: fab(ball, 4, targeted=True),
        lambda ball: multi_targeted(pgd(ball, 2, targeted=True), 2),
    ],
    ids=["pgd", "gaussian", "mim", "apgd", "square", "fab", "multi_targeted"],
)
def test_graph_and_xla_agree(build, norm):
    assert_same(build(BALLS[norm]))


@pytest.mark.slow
def test_auto_attack():
    assert_same(auto_attack(BALLS["linf"], steps=3, queries=4))


@pytest.mark.slow
def test_pgd_starts_at_the_same_point():
    assert_same(pgd(BALLS["linf"], 0))


@pytest.mark.slow
def test_signs_part_only_where_the_gradient_is_zero():
    """DLR is constant where the label has the third-largest logit; rounding has a sign there."""
    order = tf.argsort(model(tf.constant(X))["logits"], axis=1, direction="DESCENDING")
    labels = tf.gather(order, [2, 0, 2, 0], axis=1, batch_dims=0)
    labels = tf.linalg.diag_part(labels)
    value = kr.objectives.LabelLoss("dlr")(model, tf.constant(X), labels, None)

    def gradient(x):
        return value_and_gradient(value, x)[1]

    graph, compiled = (
        tf.function(gradient, autograph=False, jit_compile=jit)(tf.constant(X)).numpy()
        for jit in (False, True)
    )
    for found in (graph, compiled):
        assert np.abs(found[::2]).max() < 1e-5 * np.abs(found[1::2]).max()
    np.testing.assert_array_equal(np.sign(graph[1::2]), np.sign(compiled[1::2]))
