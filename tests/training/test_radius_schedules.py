"""Schedules of the training radius: on paper, in a step, over replicas' parts, and saved."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.core.config import serializable
from keras_robust.experiments.recipes import defense_options
from keras_robust.training import LinearRadius, RadiusSchedule, RandomRadius

BALL = kr.LinfBall(0.2, bounds=(-10.0, 10.0))


@pytest.mark.parametrize(("start", "end"), [(8, 16), (16, 8)])
def test_growing_and_falling_radii_are_those_of_the_thesis(start, end):
    """eps_i = min(16, max(8, 8 + (i - 20) 8 / 50)) in units of 1/255, and the same mirrored, with
    a step for an epoch; here step i - 1 has eps_i."""
    schedule = LinearRadius(start / 255, end / 255, steps=50, delay=20)
    i = np.arange(1, 101)
    expected = np.clip(start + (i - 20) * (end - start) / 50, 8, 16) / 255
    found = [float(schedule.radius(step, None)) for step in range(100)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def from_recipe(text):
    return defense_options.resolved("trades", {"radius_schedule": text})["radius_schedule"]


def radius_of(model, x, y):
    """The largest distance of what is crafted: FGSM reaches the radius."""
    return float(tf.reduce_max(BALL.distance(model.craft(x, y), x)))


def build(classifier, **options):
    model = kr.defenses.pgd_at(classifier, BALL, steps=1, **options)
    model = model.rebuilt(attack=kr.attacks.fgsm(BALL))
    model.compile("sgd", run_eagerly=True)
    return model


@pytest.mark.parametrize(
    ("warmup", "expected"), [(0, [0.3, 0.2, 0.1, 0.1]), (4, [0.075, 0.1, 0.075, 0.1])]
)
def test_a_step_attacks_at_its_radius(warmup, expected, make_classifier, make_batch):
    """0.4 - (k + 1) / 10 down to 0.1, whatever the radius of the ball; a warm-up multiplies."""
    schedule = LinearRadius(0.4, 0.1, steps=3)
    model = build(make_classifier(), radius_schedule=schedule, radius_warmup=warmup)
    found = []
    for step in range(4):
        model.step.assign(step)
        found.append(radius_of(model, *make_batch(4)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_random_radii_are_drawn_anew_and_again(make_classifier, make_batch):
    """From the whole range, by the step and the seed alone: one for all parts of a batch."""
    schedule = RandomRadius(0.1, 0.5)
    model = build(make_classifier(), radius_schedule=schedule)
    other = build(make_classifier(), radius_schedule=schedule, seed=1)
    radii = np.array([float(model.attack_at(k, tf.float32).ball.radius) for k in range(200)])
    assert 0.1 <= radii.min() < 0.12 and 0.48 < radii.max() <= 0.5
    assert abs(radii.mean() - 0.3) < 3 * 0.4 / np.sqrt(12 * 200)  # three deviations of the mean
    again = [float(model.attack_at(k, tf.float32).ball.radius) for k in range(5)]
    np.testing.assert_array_equal(again, radii[:5])
    assert float(other.attack_at(0, tf.float32).ball.radius) != radii[0]
    model.step.assign(7)
    assert radius_of(model, *make_batch(4)) == pytest.approx(radii[7], rel=1e-4)


def test_the_step_size_keeps_its_ratio(make_classifier):
    model = kr.defenses.pgd_at(
        make_classifier(), BALL, step_size=0.02, radius_schedule=RandomRadius(0.1, 0.1)
    )
    attack = model.attack_at(0, tf.float32)
    assert float(attack.step_rule.size) == pytest.approx(0.01)
    assert attack.ball.radius.dtype == tf.float32


def test_validation_attacks_in_the_ball(make_classifier, make_batch):
    models = [
        build(make_classifier()),
        build(make_classifier(), radius_schedule=RandomRadius(0, 0)),
    ]
    one, two = (model.evaluate(*make_batch(4), verbose=0) for model in models)
    assert one == pytest.approx(two)


def test_the_dual_variable_compares_with_the_radius_of_the_step(make_classifier, make_batch):
    """lambda' = lambda - rate (r - mean cost), with r of the step that has just been."""
    schedule = LinearRadius(0.4, 0.0, steps=4)
    model = kr.defenses.udr(
        make_classifier(), kr.LinfBall(0.2), base="pgd_at", steps=1, radius_schedule=schedule,
        dual=kr.DualVariable(initial_value=1.0, learning_rate=0.5),
    )  # fmt: skip
    model.compile("sgd", run_eagerly=True)
    x, _ = make_batch(4)
    moved = []
    for step in (1, 3):
        model.step.assign(step)  # of the steps 0 and 2, with radii 0.3 and 0.1
        model.dual.assign(1.0)
        model.after_update(tf.constant(x), tf.constant(x))  # nothing moved: the cost is 0
        moved.append(1 - float(model.dual))
    np.testing.assert_allclose(moved, [0.5 * 0.3, 0.5 * 0.1], rtol=1e-4)


@serializable
class Half(RadiusSchedule):
    """One of a user's own."""

    whole: float

    def radius(self, step, seed):
        return tf.constant(self.whole / 2)


@pytest.mark.parametrize("schedule", [RandomRadius(0.01, 0.05), LinearRadius(0, 0.3, 9), Half(0.2)])
def test_it_is_saved(schedule, make_classifier, tmp_path):
    kr.defenses.trades(make_classifier(), BALL, radius_schedule=schedule).save(tmp_path / "m.keras")
    assert keras.saving.load_model(tmp_path / "m.keras").radius_schedule == schedule


@pytest.mark.parametrize(
    ("build_one", "message"),
    [
        (lambda: LinearRadius(-0.1, 0.3, 9), "LinearRadius: start is -0.1"),
        (lambda: LinearRadius(0.1, float("inf"), 9), "LinearRadius: end is inf"),
        (lambda: LinearRadius(0.1, 0.3, 0), "LinearRadius: steps is 0; expected an integer >= 1"),
        (lambda: LinearRadius(0.1, 0.3, 9, -1), "LinearRadius: delay is -1"),
        (lambda: RandomRadius(-0.1, 0.3), "RandomRadius: low is -0.1"),
        (
            lambda: RandomRadius(0.3, 0.1),
            "RandomRadius: high is 0.1; expected .*the value of `low`",
        ),
        (lambda: from_recipe("rand:low=1"), "no radius schedule.*expected one"),
        (lambda: from_recipe("random:low=1"), "'random:low=1': .*'high'"),
        (lambda: from_recipe("random:lo=1"), "no option 'lo'; .*'low'"),
        (lambda: from_recipe("linear:start=a"), "'a' is not a start"),
    ],
)
def test_what_is_refused(build_one, message):
    with pytest.raises(ValueError, match=message):
        build_one()


@pytest.mark.parametrize("value", [0.1, (0.1, 0.2), RandomRadius, "random"])
def test_what_is_no_schedule(value, make_classifier):
    with pytest.raises(TypeError, match="radius_schedule is .*LinearRadius"):
        kr.defenses.pgd_at(make_classifier(), BALL, radius_schedule=value)


def test_a_recipe_holds_it_as_text():
    found = defense_options.resolved("trades", {"radius_schedule": "random:low=0.01:high=8/255"})
    assert found == {"radius_schedule": RandomRadius(0.01, 8 / 255)}
    text = "linear:start=8/255:end=0:steps=100:delay=10"
    assert from_recipe(text) == LinearRadius(8 / 255, 0, 100, 10)
