"""The promises of every attack in every ball; a new attack is a new row in `attack_table.py`."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.core.classifier import as_forward
from tests.contracts.attack_table import BALLS, CLASSES, ONE_LOOP, ROWS, RUN_OTHERS

PAIRS = [(row, ball) for row in ROWS for ball in BALLS if ball in ROWS[row].norms]


def pairs(is_slow):
    """Every row in every ball; the pairs for which `is_slow(row, ball)` only in the slow run."""
    return [
        pytest.param(pair, marks=[pytest.mark.slow] * is_slow(*pair), id=f"{pair[0]} in {pair[1]}")
        for pair in PAIRS
    ]


def in_another_ball(row, ball):
    return ball != ROWS[row].norms[0] or ROWS[row].slow


# Their own tests know the result in every norm.
KNOWN_IN_EVERY_NORM = ("brendel_bethge", "hop_skip_jump", "boundary", "spsa", "multi_task", "fmn")


def is_repetition(row, ball):
    """Another loss of PGD, a variation in another ball, or a row that is slow to trace."""
    repeats = " " in row or row in ("auto_attack", *RUN_OTHERS, *ONE_LOOP, *KNOWN_IN_EVERY_NORM)
    return (
        ROWS[row].slow
        or row.startswith("pgd ")
        or (in_another_ball(row, ball) and (repeats or ball == "l0"))
    )


# Other losses and starts of PGD are traced in the slow run only.
in_one_ball = pytest.mark.parametrize(
    "case",
    pairs(lambda row, ball: in_another_ball(row, ball) or row.startswith("pgd ")),
    indirect=True,
)


class Case:
    """A row in a ball, compiled for one model; the tests of the row share the trace.

    An attack that returns a batch per member has them concatenated, and `origin` likewise.
    """

    def __init__(self, row, ball, model, batch):
        self.row, self.ball, self.model = row, ball, model
        self.attack = row.build(ball)
        self.x, self.y = batch[0], row.labels(model, batch)
        self.targets = (self.y + 1) % CLASSES if row.targeted else None
        self.compiled = self.attack.compiled(model)
        self.origin = self.per_member(self.x)

    def per_member(self, x):
        """The batch once for each batch of the result."""
        return np.concatenate([x] * (self.row.members if self.attack.per_member else 1))

    def run(self, seed=0, radius=None, x=None, y=None, targets=None):
        x, y = self.x if x is None else x, self.y if y is None else y
        targets = self.targets if targets is None else targets
        radius = self.ball.radius if radius is None else radius
        extra = {} if targets is None else {"targets": targets}
        return concatenated(self.compiled(x, y, seed, radius, **extra)).numpy()

    def assert_inside(self, x_adv):
        """Finite, in the ball but for rounding, and in the range."""
        assert np.isfinite(x_adv).all()
        assert self.ball.distance(x_adv, self.origin).numpy().max() <= self.ball.radius * (1 + 1e-5)
        assert x_adv.min() >= 0 and x_adv.max() <= 1


def concatenated(result):
    """The result of an attack as one tensor."""
    return tf.concat(tf.nest.flatten(result), axis=0)


class Probe(keras.layers.Layer):
    """The identity; it counts its calls, and its gradient can be poisoned without a new trace."""

    calls = 0

    def build(self, shape):
        self.poison = self.add_weight(shape=(), initializer="zeros", trainable=False, name="poison")

    def call(self, x):
        Probe.calls += 1

        @tf.custom_gradient
        def poisoned(x, poison):
            return tf.identity(x), lambda g: (g + poison, tf.zeros_like(poison))

        return poisoned(x, tf.convert_to_tensor(self.poison))


@pytest.fixture(scope="module")
def models(make_classifier):
    """A classifier, and an ensemble, by their number of members."""

    def member(seed):
        classifier = make_classifier(classes=CLASSES, seed=seed)
        inputs = keras.Input(classifier.input_shape[1:])
        return keras.Model(inputs, classifier(Probe()(inputs)), name=f"member_{seed}")

    members = [member(seed) for seed in range(3)]
    return {0: members[0], 2: kr.models.ensemble(members[1:])}


@pytest.fixture(scope="module", params=pairs(is_repetition))
def case(request, models, batch):
    row, ball = request.param
    return Case(ROWS[row], BALLS[ball], models[ROWS[row].members], batch)


def test_results_are_inside_the_ball_and_the_range(case):
    for seed in range(2):
        x_adv = case.run(seed)
        assert x_adv.shape == case.origin.shape and x_adv.dtype == case.x.dtype
        case.assert_inside(x_adv)
    assert np.any(x_adv != case.origin)


def test_results_are_inside_on_any_model(case):
    """With logits that are huge, tiny or constant, and with gradients that are not finite."""
    weights = [w for w in case.model.weights if "poison" in w.path or "logits/kernel" in w.path]
    before = [weight.numpy() for weight in weights]
    scales, poisons = (1e30, 1e-30, 0.0), (np.nan, np.inf, 1e35)
    try:
        for scale, poison in [(scale, 0.0) for scale in scales] + [(1.0, p) for p in poisons]:
            for weight, value in zip(weights, before, strict=True):
                weight.assign(poison if "poison" in weight.path else value * scale)
            case.assert_inside(case.run())
    finally:
        for weight, value in zip(weights, before, strict=True):
            weight.assign(value)


def test_an_image_does_not_depend_on_its_batch(case):
    """Images, labels and targets of every other row replaced; the others keep their bits."""
    other = np.arange(len(case.x)) % 2 == 0
    x, y = np.where(other[:, None, None, None], 1 - case.x, case.x), case.y
    if case.row.minimum_norm:  # in their own words: predictions, so that there is work to do
        y = case.row.labels(case.model, (x, y))
    else:
        y = np.where(other, (y + 2) % CLASSES, y)
    targets = (y + 1) % CLASSES if case.row.targeted else None
    mine, theirs = case.run(3), case.run(3, x=x, y=y, targets=targets)
    kept = case.per_member(~other)
    assert np.array_equal(mine[kept], theirs[kept]) == case.row.per_image


def test_radius_zero_is_identity(case):
    np.testing.assert_array_equal(case.run(radius=0.0), case.origin)


def test_the_seed_decides(case):
    first = case.run(seed=1)
    np.testing.assert_array_equal(first, case.run(seed=1))
    # Few steps, so that what the seed chose has not been forgotten at the rim of the ball.
    differs = any(np.any(first != case.run(seed=seed)) for seed in (2, 3, 4))
    assert differs == case.row.random == case.attack.is_random


def test_one_trace_serves_all_seeds_and_radii(case):
    for seed, radius in ((0, 0.0), (1, case.ball.radius / 3), ((2, 3), case.ball.radius)):
        case.run(seed, radius)
    assert case.compiled.traces() == 1


def test_a_smaller_radius_is_kept(case):
    radius = case.ball.radius / 3
    assert case.ball.distance(case.run(radius=radius), case.origin).numpy().max() <= radius * (
        1 + 1e-5
    )


@in_one_ball
def test_eager_is_the_graph_and_no_gradient_flows_out(case):
    x = tf.constant(case.x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        eager = concatenated(case.attack(case.model, x, case.y, seed=5, targets=case.targets))
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
    found = kr.losses.margin(forward(case.run(seed=7))["logits"], y)
    np.testing.assert_allclose(found, worst, atol=1e-4)


@pytest.mark.parametrize(
    "pair", [param for param in pairs(in_another_ball) if ROWS[param.values[0][0]].with_steps]
)
def test_more_steps_are_not_weaker(pair, models, batch):
    """Along one ascent the objective grows, but for the zigzag of steps of a fixed length."""
    row, ball, model, (x, y) = ROWS[pair[0]], BALLS[pair[1]], models[0], batch
    targets = (y + 1) % CLASSES if row.targeted else None
    reached = []
    for steps in (1, 4, 10):
        attack = row.with_steps(ball, steps, ball.radius / 8)
        x_adv = attack(model, x, y, seed=3, targets=targets)
        value = attack.objective(as_forward(model), tf.constant(x), tf.constant(y), targets)
        reached.append(float(tf.reduce_mean(value(x_adv))))
    assert reached[0] <= reached[1] + 1e-4 and reached[1] <= reached[2] + 1e-4, reached


@in_one_ball
def test_it_raises_its_objective(case):
    """In a large ball, on the model that it crafts on; combinations raise the margin."""
    if case.ball.p == 0 and len(case.row.norms) > 1:
        pytest.skip("a step along the steepest direction moves one pixel, and three are too few")
    objective = getattr(case.attack, "objective", kr.objectives.LabelLoss("margin"))
    forward = as_forward(case.attack.source or case.model)
    value = objective(forward, tf.constant(case.x), tf.constant(case.y), case.targets)
    for x_adv in np.split(case.run(radius=4 * case.ball.radius), len(case.origin) // len(case.x)):
        assert tf.reduce_mean(value(tf.constant(x_adv))) > tf.reduce_mean(value(case.x)) + 0.01


@pytest.mark.parametrize(
    ("name", "norm"), [(row, norm) for row in ROWS for norm in BALLS if norm not in ROWS[row].norms]
)
def test_balls_in_other_norms_are_refused_in_a_sentence(name, norm):
    with pytest.raises(TypeError, match=rf"is defined in .*; ball is {type(BALLS[norm]).__name__}"):
        ROWS[name].build(BALLS[norm])


@pytest.mark.parametrize("name", ROWS)
def test_bad_batches_are_refused_before_the_model_is_called(name, models, batch):
    model, (x, y) = models[ROWS[name].members], batch
    attack = ROWS[name].build(BALLS[ROWS[name].norms[0]])
    calls = Probe.calls
    for bad_x, bad_y, error, match in (
        ((x * 255).astype("uint8"), y, TypeError, "Divide uint8 images by 255"),
        (x * 255, y, ValueError, r"expected \[0, 1\] and no NaN"),
        (x * np.nan, y, ValueError, "no NaN"),
        (x, y + 0.9, TypeError, "argmax"),
        (x, y[:-1], ValueError, "one class number per image"),
        (x, y + CLASSES, ValueError, r"expected 0 to 3"),
    ):
        with pytest.raises(error, match=match):
            attack(model, bad_x, bad_y)
    with pytest.raises(ValueError, match="seed is None"):
        attack(model, x, y, seed=None, targets=y)
    assert Probe.calls == calls
