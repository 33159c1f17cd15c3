"""Carlini and Wagner's attack where its minimum is a formula, its constants, and its settings."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import carlini_wagner
from keras_robust.attacks.crafting.const_search import ConstSearch
from tests.attacks.linear_model import distances, images, linear, two

WHOLE = kr.L2Ball(2.0)  # holds all images of 4 pixels


def test_the_closest_boundary_of_a_linear_model():
    """The search for the constant ends within 3% of the distance to the closest plane."""
    x, y = images(8)
    attack = carlini_wagner(WHOLE, 150, 0.01, binary_search_steps=7, initial_const=0.01).compiled(
        linear
    )
    found = WHOLE.distance(attack(x, y), x).numpy()
    expected = distances(x, y, 2).min(axis=1)
    assert (found >= expected * (1 - 1e-6)).all()
    assert (found <= expected * 1.03 + 1e-3).all()


def test_a_target_is_reached():
    x, y = images(6)
    targets = (y + 2) % 3
    attack = carlini_wagner(
        WHOLE, 150, 0.02, initial_const=1.0, binary_search_steps=1, targeted=True
    )
    x_adv = attack.compiled(linear)(x, y, targets=targets)
    np.testing.assert_array_equal(tf.argmax(linear(x_adv)["logits"], axis=1), targets)
    aimed = distances(x, y, 2)[np.arange(6), targets]
    assert (WHOLE.distance(x_adv, x).numpy() >= aimed * (1 - 1e-6)).all()


def test_the_first_steps_of_a_fixed_constant_by_hand():
    """z = x at (0.6, 0.4): only the margin acts, with gradient (-1, 1) in the image.

    Adam's first step is the step size in the sign of the gradient: w = atanh(0.2) - 0.3 and its
    opposite, after which the image is 0.5 + 0.5 tanh(w), beyond the tie at (0.5, 0.5). With one
    step less, only the image itself has been looked at.
    """
    x, y = tf.constant([[0.6, 0.4]], tf.float64), tf.constant([0])
    inside = 0.999999
    w = np.arctanh(inside * 0.2) - 0.3
    expected = 0.5 + 0.5 * np.tanh(w)
    attack = carlini_wagner(WHOLE, 2, 0.3, initial_const=1.0, binary_search_steps=1)
    np.testing.assert_allclose(attack(two, x, y), [[expected, 1 - expected]], rtol=1e-7)
    np.testing.assert_array_equal(
        carlini_wagner(WHOLE, 1, 0.3, initial_const=1.0, binary_search_steps=1)(two, x, y), x
    )


def test_too_small_a_constant_finds_nothing():
    """c (z_2 - z_1) + |d|^2 has its minimum at d = c / 2 (-1, 1): beyond the tie, 0.1 away in each
    pixel, for c = 0.5 (0.25), and before it for c = 0.1 (0.05)."""
    x, y = tf.constant([[0.6, 0.4]]), tf.constant([0])
    for constant, fooled in ((0.1, False), (0.5, True)):
        attack = carlini_wagner(WHOLE, 150, 0.01, initial_const=constant, binary_search_steps=1)
        moved = np.abs(attack.compiled(two)(x, y).numpy() - x.numpy()).max()
        assert (moved > 0) == fooled
        if fooled:
            assert 0.1 < moved < 0.11


def test_the_constant_is_bisected():
    """Ten times as much until enough, then halfway; each image by itself."""
    search = ConstSearch(*(tf.constant(a) for a in ([1.0, 1.0], [0.0, 0.0], [3e38, 3e38])))
    for found, constant in (
        ([True, False], [0.5, 10.0]),
        ([False, False], [0.75, 100.0]),
        ([True, True], [0.625, 55.0]),
    ):
        search = search.next(tf.constant(found))
        np.testing.assert_allclose(search.const, constant)


def test_confidence_is_kept():
    """A margin of 0.1 in z = x is 0.05 per pixel beyond the tie: 0.15 away from (0.6, 0.4)."""
    x, y = tf.constant([[0.6, 0.4]]), tf.constant([0])
    attack = carlini_wagner(
        WHOLE, 150, 0.01, initial_const=1.0, binary_search_steps=1, confidence=0.1
    )
    x_adv = attack.compiled(two)(x, y).numpy()
    assert 0.1 <= x_adv[0, 1] - x_adv[0, 0] < 0.12


def test_the_ball_decides_what_counts_and_which_is_closest():
    """Its own norm, its radius and its bounds; pixels at the ends of the range move as well."""
    x, y = tf.constant([[1.0, 0.0], [0.6, 0.4], [0.3, 0.7]]), tf.constant([0, 0, 0])
    settings = {"initial_const": 1.0, "binary_search_steps": 1}
    ball = kr.L1Ball(0.4)
    x_adv = carlini_wagner(ball, 60, 0.03, **settings).compiled(two)(x, y)
    distance = ball.distance(x_adv, x).numpy()
    assert distance[0] == 0 == distance[2] and 0.2 < distance[1] < 0.24
    wide = kr.L2Ball(9.0, bounds=(-2.0, 2.0))
    x_adv = carlini_wagner(wide, 150, 0.03, initial_const=9.0, binary_search_steps=1).compiled(two)(
        x, y
    )
    assert 1.0 / 2**0.5 < wide.distance(x_adv, x)[0] < 1.2 / 2**0.5


def test_names_and_defaults():
    assert carlini_wagner(WHOLE) == carlini_wagner(
        WHOLE, 200, 0.05, initial_const=1e-3, binary_search_steps=9
    )
    assert carlini_wagner(WHOLE, 1000).name == "C&W-1000"
    assert (
        carlini_wagner(WHOLE, 1000, initial_const=0.5, binary_search_steps=1).name
        == "C&W-1000 c=0.5"
    )


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"ball": 0.5}, TypeError, "expected a threat model"),
        ({"steps": -1}, ValueError, "steps is -1"),
        ({"steps": 1.5}, ValueError, "steps is 1.5"),
        ({"binary_search_steps": 0}, ValueError, "binary_search_steps is 0"),
        ({"learning_rate": -0.1}, ValueError, "learning_rate is -0.1"),
        ({"initial_const": 0.0}, ValueError, "initial_const is 0.0"),
        ({"initial_const": "much"}, ValueError, "initial_const is 'much'"),
        ({"confidence": -1.0}, ValueError, "confidence is -1.0"),
    ],
)
def test_bad_settings(settings, error, match):
    with pytest.raises(error, match=match):
        carlini_wagner(**{"ball": WHOLE, **settings})


def test_targets_are_for_targeted_attacks():
    x, y = images(2)
    with pytest.raises(ValueError, match="called without targets"):
        carlini_wagner(WHOLE, 2, targeted=True)(linear, x, y)
    with pytest.raises(ValueError, match="called with targets"):
        carlini_wagner(WHOLE, 2)(linear, x, y, targets=y)
