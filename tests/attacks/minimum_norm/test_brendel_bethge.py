"""Brendel and Bethge's attack where the closest boundary is a formula, and its settings."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import brendel_bethge, pgd
from tests.attacks.linear_model import distances, images, in_default_run, linear

BALLS = {"linf": (kr.LinfBall(0.4), 1), "l2": (kr.L2Ball(0.8), 2), "l1": (kr.L1Ball(1.6), np.inf)}


@pytest.mark.parametrize("norm", in_default_run("linf"))
def test_the_closest_boundary_of_a_linear_model(norm):
    """Along the plane to the point closest to the image: less than 1% beyond the formula, from a
    start that is much farther. An image that begins beyond another class's plane may stay there,
    so two in eight may end farther away."""
    (ball, dual), (x, y) = BALLS[norm], images(8)
    # A trust region of a pixel's range per step instead of a thousandth, as there are 4 pixels.
    attack = brendel_bethge(ball, 40, trust_radius=0.05)
    found = ball.distance(attack.compiled(linear)(x, y), x).numpy()
    begun = ball.distance(attack._start_attack()(linear, x, y), x).numpy()
    expected = distances(x, y, dual).min(axis=1)
    assert (found >= expected * (1 - 1e-6)).all()
    assert (found <= 1.01 * expected).sum() >= 6, found / expected
    assert (begun > 2 * expected).mean() > 0.7


def test_what_counts_lies_within_the_radius():
    """Found from starts of twice the radius; images beyond it come back as they were."""
    x, y = images(12)
    radius = float(np.median(distances(x, y, 2).min(axis=1)))
    ball = kr.L2Ball(radius)
    x_adv = brendel_bethge(ball, 30, trust_radius=0.05).compiled(linear)(x, y)
    distance = ball.distance(x_adv, x).numpy()
    assert distance.max() <= radius
    wrong = kr.losses.misclassified(linear(x_adv)["logits"], y).numpy()
    np.testing.assert_array_equal(wrong, distance > 0)
    assert 5 <= wrong.sum() <= 6


def test_misclassified_images_stay_and_a_failed_start_is_continued():
    x, y = images(4)
    ball = kr.L2Ball(2.0)
    np.testing.assert_array_equal(brendel_bethge(ball, 0)(linear, x, (y + 1) % 3), x)
    # A start of no steps and no radius leaves every image where it is.
    still = pgd(kr.L2Ball(0.0), 0, 0.1)
    found = brendel_bethge(ball, 20, start=still, trust_radius=0.05).compiled(linear)(x, y)
    assert kr.losses.misclassified(linear(found)["logits"], y).numpy().all()
    np.testing.assert_allclose(ball.distance(found, x), distances(x, y, 2).min(axis=1), rtol=0.05)


def test_without_steps_it_is_the_start_drawn_to_the_boundary():
    """z = (x_1, x_2): on the path from the image to the start the tie is crossed once; after 16
    bisections, one part in 65,536 beyond it."""
    x, y = tf.constant([[0.7, 0.3]], tf.float64), tf.constant([0])

    class There(kr.Attack):
        ball, name = kr.L2Ball(2.0), "there"

        def craft(self, forward, x, y, seed, targets):
            return tf.constant([[0.1, 0.55]], x.dtype)

        def at_radius(self, radius, step_size=None):
            return self

    found = brendel_bethge(kr.L2Ball(2.0), 0, start=There())(lambda x: {"logits": x}, x, y)
    # 0.7 - 0.6 s = 0.3 + 0.25 s at s = 0.4 / 0.85.
    fraction = np.ceil(0.4 / 0.85 * 2**16) / 2**16
    np.testing.assert_allclose(found, [[0.7 - 0.6 * fraction, 0.3 + 0.25 * fraction]], rtol=1e-12)


def test_the_trust_region_shrinks():
    """trust_radius * pixels * range, halved every 200 / 20 steps, one step early as in Foolbox."""
    attack = brendel_bethge(kr.L2Ball(1.0, bounds=(-1.0, 1.0)), 200, trust_radius=0.01)
    x = tf.zeros([2, 5, 4, 1])
    radii = [float(attack._trust_radius(tf.constant(step), x)) for step in (0, 7, 8, 17, 18, 199)]
    np.testing.assert_allclose(radii, [0.4, 0.4, 0.2, 0.2, 0.1, 0.4 / 2**20], rtol=1e-6)


def test_the_start():
    """PGD-20 in the ball of twice the radius, with steps of half the radius."""
    begin = brendel_bethge(kr.LinfBall(0.6))._start_attack()
    assert begin.steps == 20 and float(begin.step_rule.size) == 0.3
    assert float(begin.ball.radius) == 1.2
    start = pgd(kr.LinfBall(0.2), 5)
    assert brendel_bethge(kr.LinfBall(0.1), start=start)._start_attack() is start
    assert brendel_bethge(kr.LinfBall(0.1), 50).name == "B&B-50"


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"ball": 0.5}, TypeError, "expected a threat model"),
        ({"steps": -1}, ValueError, "steps is -1"),
        ({"start": kr.LinfBall(0.1)}, TypeError, "expected an attack"),
        ({"trust_radius": -1.0}, ValueError, "trust_radius is -1.0"),
        ({"overshoot": 2.0}, ValueError, "overshoot is 2.0"),
        ({"momentum": 1.0}, ValueError, "momentum is 1.0"),
        ({"momentum": None}, ValueError, "momentum is None"),
    ],
)
def test_bad_settings(settings, error, match):
    with pytest.raises(error, match=match):
        brendel_bethge(**{"ball": kr.L2Ball(0.5), **settings})


def test_targets_are_refused():
    x, y = images(2)
    with pytest.raises(ValueError, match="called with targets"):
        brendel_bethge(kr.L2Ball(0.5), 2)(linear, x, y, targets=y)
