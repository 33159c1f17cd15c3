"""Where an ascent begins, in numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting import initialization

GREY = tf.fill([50, 8, 8, 1], 0.5)
SEED = tf.constant([1, 2])


def test_clean_is_the_image():
    assert initialization.AtInput()(kr.LinfBall(0.1), GREY, SEED) is GREY


@pytest.mark.parametrize("ball", [kr.LinfBall(0.1), kr.L2Ball(0.5), kr.L1Ball(3.0)])
def test_uniform_is_a_sample_of_the_ball(ball):
    np.testing.assert_array_equal(
        initialization.Uniform()(ball, GREY, SEED), ball.sample(GREY, SEED)
    )


@pytest.mark.parametrize("ball", [kr.LinfBall(0.1), kr.L2Ball(0.5), kr.L1Ball(3.0)])
def test_uniform_of_twice_the_scale_is_a_sample_of_the_ball_of_twice_the_radius(ball):
    np.testing.assert_allclose(
        initialization.Uniform(scale=2.0)(ball, GREY, SEED),
        ball.replace(radius=2 * ball.radius).sample(GREY, SEED),
        rtol=1e-6,
    )


def test_without_a_scale_uniform_is_saved_as_before():
    assert repr(initialization.Uniform()) == "Uniform()"
    assert initialization.Uniform().get_config() == {}


def test_gaussian_has_its_scale():
    """Standard deviation 0.01 over 3200 pixels: its error is 0.01 / sqrt(2 n), about 0.000125."""
    moved = initialization.Gaussian(0.01)(kr.LinfBall(0.3), GREY, SEED).numpy() - 0.5
    assert abs(moved.std() - 0.01) < 0.0005
    assert abs(moved.mean()) < 4 * 0.01 / math.sqrt(moved.size)


def test_gaussian_stays_in_a_small_ball():
    """Two thirds of a normal lie within one deviation; the others are moved to the rim."""
    moved = initialization.Gaussian(0.01)(kr.LinfBall(0.01), GREY, SEED).numpy() - 0.5
    assert np.abs(moved).max() <= 0.01 + 1e-7
    assert abs((np.abs(moved) > 0.01 - 1e-6).mean() - 0.317) < 0.035


def test_gaussian_stays_in_the_bounds():
    moved = initialization.Gaussian(0.01)(kr.LinfBall(0.3), tf.zeros_like(GREY), SEED).numpy()
    assert moved.min() == 0 < moved.max()


def test_trades_starts_a_thousandth_away():
    assert initialization.Gaussian().scale == 0.001


def test_random_step_of_linf_moves_every_pixel_by_the_share():
    moved = initialization.RandomStep(0.25)(kr.LinfBall(0.2), GREY, SEED).numpy() - 0.5
    np.testing.assert_allclose(np.abs(moved), 0.05, atol=1e-7)
    assert abs((moved > 0).mean() - 0.5) < 4 * 0.5 / math.sqrt(moved.size)


@pytest.mark.parametrize("ball", [kr.L2Ball(0.8), kr.L1Ball(0.8), kr.L1Ball(0.8, density=1.0)])
def test_random_step_goes_the_share_of_the_radius(ball):
    moved = initialization.RandomStep(0.5)(ball, GREY, SEED)
    np.testing.assert_allclose(ball.distance(moved, GREY), 0.4, rtol=1e-4)


@pytest.mark.parametrize(
    "start", [initialization.Uniform(), initialization.Gaussian(), initialization.RandomStep()]
)
def test_the_seed_decides(start):
    ball = kr.LinfBall(0.1)
    np.testing.assert_array_equal(start(ball, GREY, SEED), start(ball, GREY, SEED))
    assert np.any(start(ball, GREY, SEED) != start(ball, GREY, SEED + 1))


@pytest.mark.parametrize("scale", [0, -0.1, math.nan, math.inf])
def test_gaussian_refuses(scale):
    with pytest.raises(ValueError, match=r"Gaussian: scale is .*> 0"):
        initialization.Gaussian(scale)


@pytest.mark.parametrize("fraction", [0, 1.1, -0.5, math.nan])
def test_random_step_refuses(fraction):
    with pytest.raises(ValueError, match=r"RandomStep: fraction is .*\(0, 1\]"):
        initialization.RandomStep(fraction)


def test_rims():
    """The radius is the largest change in Linf, the length in L2, in L1 the sum, of few pixels."""
    far = initialization.OnSphere()
    moved = far(kr.LinfBall(0.1), GREY, SEED).numpy() - 0.5
    np.testing.assert_allclose(np.abs(moved).max(axis=(1, 2, 3)), 0.1, rtol=1e-5)
    assert np.abs(moved).mean() == pytest.approx(0.05, abs=0.002)  # uniform, not signs
    moved = far(kr.L2Ball(0.5), GREY, SEED).numpy() - 0.5
    np.testing.assert_allclose(np.linalg.norm(moved.reshape(50, -1), axis=1), 0.5, rtol=1e-5)
    moved = far(kr.L1Ball(3.0), GREY, SEED).numpy() - 0.5
    np.testing.assert_allclose(np.abs(moved).sum(axis=(1, 2, 3)), 3, rtol=1e-5)
    assert 5 < (moved != 0).sum(axis=(1, 2, 3)).mean() < 20
