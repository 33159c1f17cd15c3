"""The promises of every attack in every ball; a new attack is a new row in `attack_table.py`."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.core.classifier import as_forward
from tests.contracts.attack_table import BALLS, CLASSES, ROWS

SLOW = {("auto_attack", "l2"), ("auto_attack", "l1")}  # slow to trace


class Case:
    """A row in a ball, compiled for one model; the tests of the row share the trace.

    Results are one batch; where there are several, one after the other, and `origin` likewise.
    """

    def __init__(self, row, ball, model, batch):
        self.row, self.ball, self.model = row, ball, model
        self.attack = row.build(ball)
        self.x, self.y = batch[0], row.labels(model, batch)
        self.extra = {"targets": (self.y + 1) % CLASSES} if row.targeted else {}
        self.compiled = self.attack.compiled(model)
        several = row.members if self.attack.per_member else 1
        self.origin = np.concatenate([self.x] * several)

    def run(self, seed=0, radius=None):
        radius = self.ball.radius if radius is None else radius
        return whole(self.compiled(self.x, self.y, seed, radius, **self.extra)).numpy()


def whole(result):
    """What an attack gave as one tensor."""
    return tf.concat(tf.nest.flatten(result), axis=0)


@pytest.fixture(scope="module")
def models(make_classifier):
    """A classifier, and an ensemble, by their number of members."""
    members = [make_classifier(classes=CLASSES, seed=seed) for seed in range(3)]
    return {0: members[0], 2: kr.models.ensemble(members[1:])}


@pytest.fixture(scope="module")
def batch(make_batch):
    """Images with pixels on both ends of the range."""
    x, y = make_batch(6, classes=CLASSES)
    return np.clip(1.4 * x - 0.2, 0, 1), y


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((row, ball), marks=[pytest.mark.slow] * ((row, ball) in SLOW))
        for row in ROWS
        for ball in BALLS
    ],
    ids=lambda pair: f"{pair[0]} in {pair[1]}",
)
def case(request, models, batch):
    row, ball = request.param
    return Case(ROWS[row], BALLS[ball], models[ROWS[row].members], batch)


def test_results_are_inside_the_ball_and_the_range(case):
    for seed in range(2):
        x_adv = case.run(seed)
        assert x_adv.shape == case.origin.shape and x_adv.dtype == case.x.dtype
        assert np.isfinite(x_adv).all()
        assert case.ball.distance(x_adv, case.origin).numpy().max() <= case.ball.radius * (1 + 1e-5)
        assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert np.any(x_adv != case.origin)


def test_radius_zero_is_identity(case):
    np.testing.assert_array_equal(case.run(radius=0.0), case.origin)


def test_the_seed_decides(case):
    first = case.run(seed=1)
    np.testing.assert_array_equal(first, case.run(seed=1))
    # Few steps, so that what the seed chose has not been forgotten at the rim of the ball.
    differs = any(np.any(first != case.run(seed=seed)) for seed in (2, 3, 4))
    assert differs == case.row.random


def test_one_trace_serves_all_seeds_and_radii(case):
    for seed, radius in ((0, 0.0), (1, case.ball.radius / 3), ((2, 3), case.ball.radius)):
        case.run(seed, radius)
    assert case.compiled.traces() == 1


def test_a_smaller_radius_is_kept(case):
    radius = case.ball.radius / 3
    assert case.ball.distance(case.run(radius=radius), case.origin).numpy().max() <= radius * (
        1 + 1e-5
    )


def test_eager_is_the_graph_and_no_gradient_flows_out(case):
    x = tf.constant(case.x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        eager = whole(case.attack(case.model, x, case.y, seed=5, **case.extra))
    assert tape.gradient(eager, x) is None
    np.testing.assert_allclose(eager, case.run(seed=5), atol=2e-5)


def test_the_model_is_left_alone(case, values_of):
    before = values_of(case.model)
    case.run(seed=6)
    for old, new in zip(before, values_of(case.model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_config_round_trip(case):
    text = json.dumps(keras.saving.serialize_keras_object(case.attack))
    again = keras.saving.deserialize_keras_object(json.loads(text))
    assert again == case.attack and again.name == case.attack.name
    assert type(again).from_config(again.get_config()) == case.attack


def test_rounds_are_the_attack(case):
    """An evaluation runs rounds one by one; together they are what the attack itself runs."""
    parts = case.attack.rounds(CLASSES)
    if len(parts) == 1:
        assert parts[0].attack == case.attack
        return
    forward, x, y = as_forward(case.model), tf.constant(case.x), tf.constant(case.y)
    clean = forward(x)["logits"]
    worst = kr.losses.margin(clean, y)
    for part in parts:
        x_adv = part.attack(forward, x, y, seed=part.seed(7), targets=part.targets(y, clean))
        worst = tf.maximum(worst, kr.losses.margin(forward(x_adv)["logits"], y))
    whole = kr.losses.margin(forward(case.run(seed=7))["logits"], y)
    np.testing.assert_allclose(whole, worst, atol=1e-4)


@pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS.keys())
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.with_steps])
def test_more_steps_are_no_weaker(name, ball, models, batch):
    """Along one ascent the objective grows, but for the zigzag of steps of a fixed length."""
    row, model, (x, y) = ROWS[name], models[0], batch
    targets = (y + 1) % CLASSES if row.targeted else None
    reached = []
    for steps in (1, 4, 10):
        attack = row.with_steps(ball, steps, ball.radius / 8)
        x_adv = attack(model, x, y, seed=3, targets=targets)
        value = attack.objective(as_forward(model), tf.constant(x), tf.constant(y), targets)
        reached.append(float(tf.reduce_mean(value(x_adv))))
    assert reached[0] <= reached[1] + 1e-4 and reached[1] <= reached[2] + 1e-4, reached


@pytest.mark.parametrize("name", ROWS)
def test_it_climbs(name, models, batch):
    """In a large ball the attack raises what it climbs, where it climbs it; combinations climb the
    margin."""
    row = ROWS[name]
    model = models[row.members]
    x, y = map(tf.constant, (batch[0], row.labels(model, batch)))
    targets = (y + 1) % CLASSES if row.targeted else None
    attack = row.build(kr.LinfBall(0.3))
    climbed = getattr(attack, "objective", kr.objectives.LabelLoss("margin"))
    value = climbed(as_forward(attack.source or model), x, y, targets)
    for x_adv in tf.nest.flatten(attack(model, x, y, targets=targets)):
        assert tf.reduce_mean(value(x_adv)) > tf.reduce_mean(value(x)) + 0.01


@pytest.mark.parametrize("name", ROWS)
def test_bad_batches_are_refused(name, models, batch):
    model, (x, y) = models[ROWS[name].members], batch
    attack = ROWS[name].build(BALLS["linf"])
    for bad_x, bad_y, error, match in (
        ((x * 255).astype("uint8"), y, TypeError, "Divide uint8 images by 255"),
        (x * 255, y, ValueError, r"expected \[0, 1\] and no NaN"),
        (x * np.nan, y, ValueError, "no NaN"),
        (x, np.eye(CLASSES)[y], TypeError, "argmax"),
        (x, y[:-1], ValueError, "one class number per image"),
        (x, y + CLASSES, ValueError, r"expected 0 to 3"),
    ):
        with pytest.raises(error, match=match):
            attack(model, bad_x, bad_y)
    with pytest.raises(ValueError, match="seed is None"):
        attack(model, x, y, seed=None, targets=y)
