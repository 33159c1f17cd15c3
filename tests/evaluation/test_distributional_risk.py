"""The worst-case risk, on models whose inner problem has a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation import distributional_risk

EVERYWHERE = (-np.inf, np.inf)
CURVATURE, FLOOR = 0.8, 0.5
X = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
SQUARES = np.mean(np.sum(np.square(X, dtype=np.float64), axis=1))
Y = np.zeros(6, int)


def quadratic(x):
    """A cross-entropy of class 0 of `a/2 ||x||^2 + b`: a lead of class 1 by log(e^loss - 1)."""
    loss = CURVATURE / 2 * tf.reduce_sum(tf.square(x), axis=1) + FLOOR
    return {"logits": tf.stack([tf.zeros_like(loss), tf.math.log(tf.math.expm1(loss))], axis=1)}


@pytest.mark.parametrize(("gamma", "smoothness"), [(0.6, CURVATURE), (0.6, None), (4.0, None)])
def test_a_quadratic_loss(gamma, smoothness):
    """d = a x / (2 g - a), phi = b + g a ||x||^2 / (2 g - a)."""
    found = distributional_risk(
        quadratic, (X, Y), gamma, smoothness=smoothness, bounds=EVERYWHERE, steps=100
    )
    shift = CURVATURE / (2 * gamma - CURVATURE)
    assert found.clean_loss == pytest.approx(FLOOR + CURVATURE / 2 * SQUARES, rel=1e-5)
    assert found.surrogates[0] == pytest.approx(FLOOR + gamma * shift * SQUARES, rel=1e-4)
    assert found.attacked_costs[0] == pytest.approx(shift**2 * SQUARES, rel=5e-3)
    # The bound is tight at the cost of its own maximizers (Sinha et al., section 3.2).
    tight = found.bound(found.attacked_costs[0])
    assert tight == pytest.approx(found.attacked_losses[0], rel=1e-3)
    assert found.certified == (smoothness is not None) and found.samples == 6


def test_the_lowest_of_many_gammas_is_the_worst_case():
    """Of a quadratic it is `b + a/2 (sqrt(E||x||^2) + sqrt(rho))^2`, by moving along the images."""
    rho = np.array([0.0, 0.1, 0.5, 1.0, 2.0])
    found = distributional_risk(
        quadratic, (X, Y), np.geomspace(0.5, 20, 60), smoothness=CURVATURE, bounds=EVERYWHERE
    )
    worst = FLOOR + CURVATURE / 2 * (np.sqrt(SQUARES) + np.sqrt(rho)) ** 2
    bound = found.bound(rho)
    assert np.all(bound >= worst * (1 - 1e-5))
    np.testing.assert_allclose(bound[1:], worst[1:], rtol=0.01)
    assert np.all(found.attacked_loss(rho) <= worst * (1 + 1e-5))
    np.testing.assert_allclose(found.attacked_loss(rho), worst, rtol=0.01)


@pytest.mark.parametrize("steps", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_certificate_holds_however_short_the_ascent(steps):
    """What few steps leave is added: the bound is above the true phi, the estimate below it."""
    gamma = 0.45
    exact = FLOOR + gamma * CURVATURE / (2 * gamma - CURVATURE) * SQUARES
    options = {"bounds": EVERYWHERE, "steps": steps}
    proven = distributional_risk(quadratic, (X, Y), gamma, smoothness=CURVATURE, **options)
    estimate = distributional_risk(quadratic, (X, Y), gamma, **options)
    assert estimate.surrogates[0] < 0.99 * exact < exact * (1 - 1e-5) < proven.surrogates[0]


def test_a_linear_model_in_a_box():
    """Of softplus(s) the worst shift within the box, on a grid; no image leaves the box."""
    slope, gamma = 3.0, 2.0

    def linear(x):
        return {"logits": tf.concat([tf.zeros_like(x), slope * x], axis=1)}

    x, y = np.array([[0.2], [0.9], [0.5]], "float32"), np.array([0, 0, 1])
    found = distributional_risk(linear, (x, y), gamma, smoothness=slope**2 / 4, steps=100)
    grid = np.linspace(0, 1, 100_001)
    sign = np.where(y == 0, 1, -1)[:, None]
    values = np.log1p(np.exp(slope * sign * grid)) - gamma * (grid - x.astype("float64")) ** 2
    assert found.surrogates[0] == pytest.approx(values.max(axis=1).mean(), rel=1e-5)
    worst = grid[values.argmax(axis=1)]
    assert worst[1] == 1.0  # the second is held by the box
    assert found.attacked_costs[0] == pytest.approx(np.square(worst - x[:, 0]).mean(), rel=1e-3)


def test_it_bounds_attacks(make_linear, make_batch):
    """PGD of L2 radius r moves each image by a cost of at most r^2."""
    weights = np.random.default_rng(1).normal(size=(4, 3))
    model = make_linear(weights)
    x, y = make_batch(9, (4, 1, 1))
    # Of softmax cross-entropy the Hessian is W (diag(p) - p p^T) W^T.
    smoothness = np.linalg.norm(weights, 2) ** 2 / 2
    gammas = smoothness / 2 * np.geomspace(1.01, 30, 12)
    found = distributional_risk(model, (x, y), gammas, smoothness=smoothness)
    for radius in (0.05, 0.2, 0.6):
        x_adv = kr.attacks.pgd(kr.L2Ball(radius), 5)(model, x, y)
        loss = float(tf.reduce_mean(kr.losses.cross_entropy(model(x_adv)["logits"], y)))
        assert found.clean_loss < loss <= found.bound(radius**2)
        assert found.attacked_loss(radius**2) <= found.bound(radius**2) + 1e-6
    assert found.bound([0.1, 0.2]).shape == (2,) and found.attacked_loss(0.0) == pytest.approx(
        found.clean_loss
    )


def test_gammas_of_models(tiny_classifier, tiny_batch):
    model = kr.defenses.wrm(tiny_classifier, kr.L2Ball(0.5), gamma=0.7)
    found = distributional_risk(model, tiny_batch, limit=5, steps=3)
    assert found.gammas == (0.7,) and found.samples == 5 and not found.certified
    again = distributional_risk(tiny_classifier, tiny_batch, [1.4, 0.7], limit=5, steps=3)
    assert again.gammas == (0.7, 1.4) and again.surrogates[0] == found.surrogates[0]
    assert again.surrogates[1] <= again.surrogates[0] and again.clean_loss <= again.surrogates[1]
    soft = kr.defenses.udr(tiny_classifier, kr.LinfBall(0.1), base="pgd_at", steps=1)
    with pytest.raises(ValueError, match=r"is not one of `keras_robust.defenses.wrm`.*geomspace"):
        distributional_risk(soft, tiny_batch)


def test_what_is_refused(tiny_classifier, tiny_batch):
    for gammas, options, match in (
        (0.0, {}, "gamma is 0.0; expected a finite number > 0"),
        ([], {}, "gammas is empty"),
        (1.0, {"steps": 0}, "steps is 0"),
        (1.0, {"smoothness": -1.0}, "smoothness is -1.0"),
        ([3.0, 1.0], {"smoothness": 2.0}, r"gamma is 1.0 and smoothness 2.0; expected gamma > "),
        (1.0, {"bounds": (0.0, 0.5)}, r"expected \[0, 0.5\]"),
    ):
        with pytest.raises(ValueError, match=match):
            distributional_risk(tiny_classifier, tiny_batch, gammas, **options)
    found = distributional_risk(quadratic, (X, Y), 1.0, bounds=EVERYWHERE, steps=1)
    with pytest.raises(ValueError, match=r"rho is \[-0.1, 1.0\]; expected transport costs >= 0"):
        found.bound([-0.1, 1.0])
