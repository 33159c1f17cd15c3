"""No attack and no random point of the ball is below the bounds, on networks of every layer."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.certification.network import network_of
from tests.certification.networks import CLASSES, NETWORKS, SHAPE, draw_weights, true_margins

BALLS = {
    "linf": kr.LinfBall(0.08),
    "l2": kr.L2Ball(0.5),
    "l1": kr.L1Ball(1.5),
}
METHODS = {
    "ibp": kr.certification.ibp,
    "crown_ibp": kr.certification.crown_ibp,
    "crown": kr.certification.crown,
}
BATCH = 8


@pytest.fixture(scope="module")
def built():
    """One network of each kind: what was traced for one test serves the others."""
    networks = {}

    def build(name):
        if name not in networks:
            networks[name] = NETWORKS[name]()
        return networks[name]

    return build


def rules_of(model):
    """The model by its rules, without XLA's grouped convolutions, which compile for seconds."""
    return lambda x: {"logits": network_of(model).forward(x)}


def lowest_margins(forward, ball, x, y, seed, attack):
    """The smallest margin of random points, of points on the sphere, and of an attack."""
    seeds = tf.random.split(tf.constant([seed, 1]), 3)
    points = [ball.sample(x, seeds[0]), ball.sample_sphere(x, seeds[1]), x]
    points.append(attack(x, y, seed=seed))
    logits = forward(tf.concat(points, axis=0))["logits"].numpy()
    margins = true_margins(logits, np.tile(y, len(points)))
    return margins.reshape(len(points), len(y), -1).min(axis=0)


def check_draws(model, forward, ball, methods, draws, seed=0, traced=False):
    """Draws networks and images; compares the bounds with the lowest margins found."""
    rng = np.random.default_rng(seed)
    bounds = {name: functools.partial(METHODS[name](ball), model) for name in methods}
    attack = functools.partial(kr.attacks.pgd(ball, steps=5, loss="margin"), forward)
    if traced:  # worth its time for many draws
        bounds = {name: METHODS[name](ball).compiled(model) for name in methods}
        attack = kr.attacks.pgd(ball, steps=5, loss="margin").compiled(model)
    for draw in range(draws):
        draw_weights(model, rng)
        x = tf.constant(rng.random((BATCH, *SHAPE)), tf.float32)
        y = rng.integers(0, CLASSES, BATCH)
        found = lowest_margins(forward, ball, x, y, draw, attack)
        for name, margins_of in bounds.items():
            margins = margins_of(x, y).numpy()
            assert np.all(np.isfinite(margins)), name
            assert np.all(margins <= found), f"{name} exceeded by {np.max(margins - found)}"


# Each network in Linf and in one of the other norms, in eager mode: a trace costs more.
PAIRS = [
    *((name, "linf", ("ibp", "crown")) for name in NETWORKS),
    *zip(NETWORKS, itertools.cycle(("l2", "l1")), itertools.repeat(("crown_ibp",))),
]


@pytest.mark.parametrize(("name", "norm", "methods"), PAIRS)
def test_bounds_are_not_exceeded(built, name, norm, methods):
    model = built(name)
    check_draws(model, rules_of(model), BALLS[norm], methods, draws=1)


@pytest.mark.slow
@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("name", NETWORKS)
def test_ten_thousand_draws_do_not_exceed_the_bounds(built, name, norm):
    """18 rows of 70 networks and 8 images each."""
    model = built(name)
    forward = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
    check_draws(model, forward, BALLS[norm], METHODS, draws=70, seed=1, traced=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_auto_attack_breaks_no_certified_image(built, name):
    model, rng = built(name), np.random.default_rng(2)
    x = tf.constant(rng.random((64, *SHAPE)), tf.float32)
    certified = 0
    for norm, radius in (("linf", 0.01), ("l2", 0.08)):
        ball = BALLS[norm].replace(radius=radius)
        draw_weights(model, rng)
        y = np.argmax(model(x, training=False)["logits"], axis=1)
        margins = kr.certification.crown(ball).compiled(model)(x, y)
        proven = kr.certification.is_certified(margins, y).numpy()
        x_adv = kr.attacks.auto_attack(ball, steps=20, queries=200)(model, x, y, seed=0)
        attacked = np.argmax(model(x_adv, training=False)["logits"], axis=1) == y
        assert not np.any(proven & ~attacked)
        certified += np.sum(proven)
    assert certified > 0  # or the test says nothing


@pytest.mark.parametrize("name", NETWORKS)
def test_rules_compute_what_the_model_computes(built, name):
    model, rng = built(name), np.random.default_rng(3)
    draw_weights(model, rng)
    x = rng.random((4, *SHAPE)).astype("float32")
    logits = model(x, training=False)["logits"].numpy()
    margins = kr.certification.ibp(kr.LinfBall(0.0))(model, x, [0, 1, 2, 0]).numpy()
    np.testing.assert_allclose(margins, true_margins(logits, [0, 1, 2, 0]), atol=1e-3)
    lower, upper = kr.certification.ibp(kr.LinfBall(0.0)).logits(model, x)
    np.testing.assert_allclose(lower, logits, atol=1e-3)
    assert np.all(lower <= logits) and np.all(logits <= upper)
