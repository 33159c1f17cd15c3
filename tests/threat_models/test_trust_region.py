"""Steps along a plane: by hand, feasible, and as good as what a general solver finds."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import minimize

import keras_robust as kr
from keras_robust.threat_models.trust_region import closest_step_on_hyperplane

BALLS = {"linf": kr.LinfBall(0.1), "l2": kr.L2Ball(0.1), "l1": kr.L1Ball(0.1)}
every_ball = pytest.mark.parametrize("kind", BALLS)


@functools.cache
def solver(kind):
    """Compiled once for all tests, of any number of images and pixels."""
    flat = tf.TensorSpec([None, None], tf.float64)
    return tf.function(
        lambda *arrays: closest_step_on_hyperplane(BALLS[kind], *arrays),
        autograph=False,
        input_signature=[
            flat, flat, flat, tf.TensorSpec([None], tf.float64), tf.TensorSpec([], tf.float64)
        ],
    )  # fmt: skip


def step(kind, *arrays):
    """From `x, clean, normal, need, radius`."""
    return solver(kind)(*(tf.constant(a, tf.float64) for a in arrays)).numpy()


@every_ball
def test_along_a_side_by_hand(kind):
    """The plane is d_1 = 0 and the clean image 0.4 away in both pixels: only the second may move.

    With a radius of 1 it arrives, with a radius of 0.1 it goes so far; in Linf it may as well stay,
    as the first pixel is 0.4 away whatever the second does.
    """
    x, clean, normal = [[0.5, 0.5]] * 2, [[0.9, 0.1]] * 2, [[3.0, 0.0]] * 2
    for radius, expected in ((1.0, -0.4), (0.1, -0.1)):
        found = step(kind, x, clean, normal, [0.0, 0.0], radius)
        assert np.abs(found[:, 0]).max() < 1e-6
        if kind != "linf":
            np.testing.assert_allclose(found[:, 1], expected, atol=1e-3)


def test_linf_by_hand():
    """The clean image is (0.4, 0.2) away, the plane d_1 + d_2 = 0: (d, -d) is farthest from the
    clean image by max(0.4 - d, 0.2 + d), least at d = 0.1."""
    found = step("linf", [[0.5, 0.5]], [[0.9, 0.7]], [[1.0, 1.0]], [0.0], 1.0)
    np.testing.assert_allclose(found, [[0.1, -0.1]], atol=1e-3)


@every_ball
def test_a_plane_out_of_reach_is_approached(kind):
    """The shortest way to d_1 + d_2 = 0.4 has length 0.28: as far along it as the radius allows.
    Where the bounds keep it away, into the corner."""
    x, normal = [[0.5, 0.5], [0.9, 0.9]], [[1.0, 1.0]] * 2
    found = step(kind, x, [[0.1, 0.2], [0.0, 0.0]], normal, [0.4, 0.4], 0.15)
    side = 0.15 / np.sqrt(2)
    np.testing.assert_allclose(found, [[side, side], [0.1, 0.1]], atol=1e-9)


@every_ball
def test_nothing_to_do(kind):
    """Without a normal, or at the clean image on the plane."""
    x = [[0.5, 0.3]]
    found = step(kind, x, x, [[0.0, 0.0]], [0.2], 1.0)
    np.testing.assert_array_equal(found, [[0.0, 0.0]])
    np.testing.assert_array_equal(step(kind, x, x, [[1.0, 0.5]], [0.0], 1.0), [[0.0, 0.0]])


def reference(kind, x, clean, normal, need, radius):
    """The smallest distance that SLSQP finds from several starts; infinite without a solution."""
    pixels, away = len(x), clean - x
    # Behind the step stand upper bounds: of the largest distance in Linf, of each pixel's in L1.
    more = {"linf": 1, "l2": 0, "l1": pixels}[kind]

    def objective(z):
        return z[pixels:].sum() if more else ((z - away) ** 2).sum()

    constraints = [
        {"type": "eq", "fun": lambda z: normal @ z[:pixels] - need},
        {"type": "ineq", "fun": lambda z: radius**2 - (z[:pixels] ** 2).sum()},
    ]
    for sign in (1, -1) if more else ():
        bound = {"type": "ineq", "fun": lambda z, s=sign: z[pixels:] - s * (z[:pixels] - away)}
        constraints.append(bound)
    best = np.inf
    for seed in range(4):
        start = np.random.default_rng(seed).uniform(-0.1, 0.1, pixels)
        start = np.concatenate([start, np.full(more, np.abs(away).max())])
        bounds = [*zip(-x, 1 - x, strict=True), *[(0, None)] * more]
        options = {"maxiter": 500, "ftol": 1e-12}
        found = minimize(objective, start, bounds=bounds, constraints=constraints, options=options)
        if found.success:
            best = min(best, np.sqrt(found.fun) if kind == "l2" else found.fun)
    return best


@every_ball
def test_as_good_as_a_general_solver(kind):
    """Of random problems with a solution; the clean image often at the end of the range."""
    random = np.random.default_rng(0)
    count, pixels, radius = 24, 6, 0.4
    x = random.random((count, pixels))
    clean = np.clip(x + random.normal(0, 0.3, x.shape), 0, 1)
    normal = random.normal(size=x.shape)
    need = random.uniform(-0.3, 0.3, count)
    found = step(kind, x, clean, normal, need, radius)
    assert (x + found >= -1e-9).all() and (x + found <= 1 + 1e-9).all()
    assert np.linalg.norm(found, axis=1).max() <= radius * (1 + 1e-6)
    missed = np.abs((normal * found).sum(axis=1) - need)
    distance = BALLS[kind].distance(x + found, clean).numpy()
    problems = zip(x, clean, normal, need, strict=True)
    expected = np.array([reference(kind, *problem, radius) for problem in problems])
    solvable = np.isfinite(expected)
    assert solvable.sum() >= 18
    assert (missed[solvable] <= 0.011 * np.abs(need[solvable]) + 1e-6).all()
    np.testing.assert_allclose(distance[solvable], expected[solvable], rtol=0.02, atol=2e-3)


@every_ball
def test_the_scale_of_the_normal_does_not_matter(kind):
    """Squares of 1e25 are infinite in float32, and those of 1e-25 are 0."""
    x, clean, normal = ([[0.5, 0.2, 0.7]], [[0.6, 0.4, 0.3]], np.array([[1.0, -0.5, 0.25]]))
    for dtype, scales in (("float32", (1e-25, 1e25)), ("float64", (1e-200, 1e200))):
        scale = np.array(scales, dtype)
        arrays = [np.tile(a, (2, 1)) for a in (x, clean)] + [normal * scale[:, None], scale * 0.05]
        arrays = (tf.constant(a, dtype) for a in arrays)
        scaled = closest_step_on_hyperplane(BALLS[kind], *arrays, 0.3)
        plain = step(kind, x, clean, normal, [0.05], 0.3)
        np.testing.assert_allclose(scaled, np.tile(plain, (2, 1)), atol=1e-4)


def test_other_norms_are_refused():
    class L3Ball(kr.L2Ball):
        p = 3.0

    x = tf.zeros([1, 2])
    with pytest.raises(TypeError, match="is defined in L1, L2 and Linf; ball is .*L3Ball"):
        closest_step_on_hyperplane(L3Ball(1.0), x, x, x + 1, tf.ones([1]), 1.0)
