"""A ball with a mask goes through every attack: the pixels that may not change do not change.

An attack in a masked ball is the attack on the pixels that may change alone; where nothing is drawn
at random, the results are equal.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.threat_models.masks import mask_of
from tests.contracts.attack_table import CLASSES, ROWS

SHAPE = (6, 6, 1)
BOX = (slice(1, 5), slice(2, 6))  # the pixels that may change
INSIDE = (slice(None), *BOX)
MASK = np.zeros(SHAPE)
MASK[BOX] = 1
FRACTIONS = MASK * np.linspace(0.2, 1, 6)[:, None, None]
BALLS = {
    "linf": kr.LinfBall(0.3 * FRACTIONS),
    "l2": kr.L2Ball(1.0, mask=MASK),
    "l1": kr.L1Ball(3.0, mask=MASK, density=0.2),
    "l0": kr.L0Ball(4.0, mask=MASK),
}
NORMS = list(BALLS)


def logits(x, seed):
    """A smooth model whose classes depend on all pixels."""
    x = tf.reshape(x, [tf.shape(x)[0], SHAPE[0] * SHAPE[1]])
    weights = np.random.default_rng(seed).normal(size=(2, SHAPE[0] * SHAPE[1], CLASSES))
    first, second = (tf.constant(part, x.dtype) for part in weights)
    return (x - 0.5) @ first + tf.square(x - 0.5) @ second


def model(x):
    return {"logits": logits(x, 0)}


def ensemble(x):
    members = tf.stack([logits(x, seed) for seed in (1, 2)], axis=1)
    return {"logits": tf.reduce_mean(members, axis=1), "member_logits": members}


def rest(x):
    """The pixels that may not change; 0 elsewhere."""
    return np.where(MASK, 0, x)


def on_the_box(forward, x):
    """A model of the pixels that may change, in the images `x`."""

    def inner(part):
        whole = tf.pad(part, [[0, 0], [1, 1], [2, 0], [0, 0]])
        return forward(tf.where(MASK > 0, whole, tf.cast(x, part.dtype)))

    return inner


def images(count=6):
    """Images with pixels on both ends of the range."""
    values = np.random.default_rng(3).uniform(-0.2, 1.2, (count, *SHAPE))
    return np.clip(values, 0, 1).astype("float32")


def in_default_run(row, norm):
    """Each attack in one norm, with the options that the table begins with."""
    names = list(ROWS)
    first = {name.split()[0]: name for name in reversed(names)}
    number = list(first).index(row.split()[0])
    norms = [name for name in ROWS[row].norms if name != "l0"] or ["l0"]
    chosen = first[row.split()[0]] == row and norms[number % len(norms)] == norm
    return chosen and not ROWS[row].slow


PAIRS = [
    pytest.param(row, norm, marks=() if in_default_run(row, norm) else pytest.mark.slow)
    for row in ROWS
    for norm in ROWS[row].norms
]


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_other_pixels_do_not_change(name, norm):
    row, ball, x = ROWS[name], BALLS[norm], images()
    attacked = ensemble if row.members else model
    y = row.labels(attacked, (x, np.arange(len(x)) % CLASSES))
    targets = {"targets": (y + 1) % CLASSES} if row.targeted else {}
    attack = row.build(ball)
    changed = []
    for x_adv in tf.nest.flatten(attack(attacked, x, y, seed=1, **targets)):
        assert np.isfinite(x_adv).all() and x_adv.dtype == tf.float32
        np.testing.assert_array_equal(rest(x_adv), rest(x))
        assert ball.distance(x_adv, x).numpy().max() <= ball.radius * (1 + 1e-5)
        assert x_adv.numpy().min() >= 0 and x_adv.numpy().max() <= 1
        changed.append(bool(np.any(x_adv != x)))
    assert all(changed) or row.minimum_norm
    assert mask_of(attack.at_radius(0.01, step_size=0.01).ball) == ball.mask


@pytest.mark.parametrize(
    "rule",
    [
        kr.step_rules.SoftBallStep(0.2),
        kr.step_rules.SoftBallStep(0.2, penalty="l2"),
        kr.step_rules.PenalizedStep(0.2, 0.5),
    ],
    ids=["soft ball", "soft ball, l2", "penalized"],
)
def test_a_soft_ball_leaves_them_alone_too(rule):
    x = images()
    loss = kr.objectives.LabelLoss("cross_entropy")
    x_adv = kr.GradientAttack(BALLS["linf"], loss, rule, 3)(model, x, np.zeros(len(x), int))
    np.testing.assert_array_equal(rest(x_adv), rest(x))
    assert np.all(np.any(x_adv != x, axis=(1, 2, 3)))


@pytest.mark.parametrize("penalty", ["l1", "l2", "linf"])
def test_a_penalty_is_that_of_the_other_pixels_alone(penalty):
    x = images()
    y = np.zeros(len(x), int)

    def attack(ball):
        rule = kr.step_rules.SoftBallStep(0.2, penalty=penalty, tau=0.1)
        loss = kr.objectives.LabelLoss("cross_entropy")
        start = kr.initialization.AtInput()
        return kr.GradientAttack(ball, loss, rule, 3, initialization=start)

    found = attack(kr.LinfBall(0.1, mask=MASK))(model, x, y).numpy()
    expected = attack(kr.LinfBall(0.1))(on_the_box(model, x), x[INSIDE], y)
    np.testing.assert_allclose(found[INSIDE], expected, atol=1e-5)


def test_a_soft_ball_has_the_radius_of_each_pixel():
    """With `tau` equal to the size, a step back is the projection."""
    x, ball = tf.constant(images()), BALLS["linf"]
    loss, rule = kr.objectives.LabelLoss("cross_entropy"), kr.step_rules.SoftBallStep(0.2, tau=0.2)
    x_adv = kr.GradientAttack(ball, loss, rule, 3)(model, x, np.zeros(len(x), int))
    np.testing.assert_allclose(ball.project(x_adv, x), x_adv, atol=1e-6)


# An attack in a masked ball on `model`, and in the plain ball on the pixels of the box.

ATTACKS = {
    "fgsm": kr.attacks.fgsm,
    "bim": lambda ball: kr.attacks.bim(ball, 4),
    "mim": lambda ball: kr.attacks.mim(ball, 4),
    "apgd": lambda ball: kr.replace(
        kr.attacks.apgd(ball, 6), initialization=kr.initialization.AtInput()
    ),
    "multi_task": lambda ball: kr.replace(
        kr.attacks.multi_task(ball, 4, solver="min_norm"),
        initialization=kr.initialization.AtInput(),
    ),
    "square": lambda ball: kr.attacks.square(ball, 20),
    "fab": lambda ball: kr.attacks.fab(ball, 4),
    "carlini_wagner": lambda ball: kr.attacks.carlini_wagner(
        ball, 12, 0.05, initial_const=10.0, binary_search_steps=1
    ),
    "brendel_bethge": lambda ball: kr.attacks.brendel_bethge(
        ball, 4, start=kr.attacks.bim(ball.replace(radius=0.6), 8)
    ),
    "sigma_zero": lambda ball: kr.attacks.sigma_zero(ball, 6),
    "pgd_l0": lambda ball: kr.replace(
        kr.attacks.pgd_l0(ball, 4), initialization=kr.initialization.AtInput()
    ),
}
PLAIN = {
    "linf": kr.LinfBall(0.3),
    "l2": kr.L2Ball(1.0),
    "l1": kr.L1Ball(3.0, density=0.2),
    "l0": kr.L0Ball(4.0),
}
NOT_IN_L0 = ("square", "fab", "carlini_wagner", "brendel_bethge")
IN_L0_ALONE = ("sigma_zero", "pgd_l0")
CHEAP = ("fgsm", "mim", "pgd_l0")


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        pytest.param(
            name,
            norm,
            marks=[pytest.mark.slow] * (name not in CHEAP and (name, norm) != ("square", "linf")),
        )
        for name in ATTACKS
        for norm in NORMS
        if name not in (NOT_IN_L0 if norm == "l0" else IN_L0_ALONE)
    ],
)
def test_it_is_the_attack_on_the_other_pixels_alone(name, norm):
    x = images().astype("float64")  # where sums of other zeros round alike
    if name == "square":  # its batch shrinks, so that all images have the same surroundings
        x = np.where(MASK > 0, x, x[:1])
    around = x[:1] if name == "square" else x
    y = tf.argmax(logits(x, 0), axis=1).numpy()
    attacked = ensemble if name == "multi_task" else model
    plain = PLAIN[norm]
    masked = kr.replace(plain, mask=MASK)

    found = ATTACKS[name](masked)(attacked, x, y).numpy()
    expected = ATTACKS[name](plain)(on_the_box(attacked, around), x[INSIDE], y).numpy()
    # Brendel and Bethge's trust region ends a step within 1 % of the way.
    atol = 2e-3 if name == "brendel_bethge" else 2e-5
    np.testing.assert_allclose(found[INSIDE], expected, atol=atol)
    assert np.any(expected != x[INSIDE])


def patch_model(x):
    """Class 1 if the three by three pixels in a corner are bright."""
    score = tf.reduce_sum(x[:, :3, :3, 0], axis=[1, 2]) - 7.0
    return {"logits": tf.stack([tf.zeros_like(score), score], axis=1)}


@pytest.mark.parametrize(
    "attack", [lambda b: kr.attacks.pgd(b, 10), lambda b: kr.attacks.square(b, 30)]
)
def test_a_patch_is_found(attack):
    """The patch must be bright to nearly everywhere, which no smaller change achieves."""
    patch = np.zeros((12, 12, 1))
    patch[:3, :3] = 1
    x, y = np.full([4, 12, 12, 1], 0.2, "float32"), np.zeros(4, int)
    x_adv = attack(kr.LinfBall(1.0, mask=patch))(patch_model, x, y).numpy()
    assert kr.losses.misclassified(patch_model(x_adv)["logits"], y).numpy().all()
    np.testing.assert_array_equal(np.where(patch, 0, x_adv), np.where(patch, 0, x))
    elsewhere = kr.LinfBall(1.0, mask=1 - patch)
    x_adv = attack(elsewhere)(patch_model, x, y)
    assert not kr.losses.misclassified(patch_model(x_adv)["logits"], y).numpy().any()


@pytest.mark.parametrize(
    "norm", ["linf", *(pytest.param(norm, marks=pytest.mark.slow) for norm in ("l2", "l1"))]
)
def test_a_report_and_a_card_load(norm):
    data = images(8), np.arange(8) % CLASSES
    attacks = [kr.attacks.fgsm(BALLS[norm])]
    report = kr.evaluation.evaluate(model, data, attacks, radii=[BALLS[norm].radius / 2])
    assert report.radius == BALLS[norm].radius
    assert repr(BALLS[norm].mask) in report.threat_model and len(report.threat_model) < 120
    assert kr.evaluation.Report.from_json(report.to_json()) == report
    card = kr.evaluation.make_card(model, data, attacks, report)
    loaded = kr.evaluation.Card.from_json(card.to_json())
    assert loaded == card
    assert not loaded.differences(loaded.reevaluate(model, data))


@pytest.mark.slow
def test_checks_run_within_it():
    data = images(8), np.argmax(logits(images(8), 0), axis=1)
    ball = BALLS["linf"]
    found = kr.evaluation.sanity_checks(model, data, ball, steps=4, only=["gradients", "radius"])
    assert [check.passed for check in found] == [True, True]


def test_a_trained_model_keeps_it(tmp_path):
    classifier = kr.models.mlp(SHAPE, CLASSES)
    robust = kr.defenses.pgd_at(classifier, BALLS["linf"], steps=1)
    robust.compile("sgd", run_eagerly=True)
    robust.fit(images(8), np.arange(8) % CLASSES, batch_size=8, verbose=0)
    robust.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.attack.ball == BALLS["linf"] == robust.attack.ball


def test_a_mask_of_another_shape_is_refused_before_anything_runs():
    ball = kr.LinfBall(0.3, mask=MASK[..., 0])
    x, y = images(2), np.zeros(2, int)
    message = (
        r"mask of the ball has shape \(6, 6\), but an image has \(6, 6, 1\).*mask\[..., None\]"
    )

    def never(x):
        raise AssertionError("the model was called")

    attack = kr.attacks.fgsm(ball)
    for call in (
        lambda: attack(never, x, y),
        lambda: attack.compiled(never)(x, y),
        lambda: kr.evaluation.evaluate(never, (x, y), attack),
        lambda: kr.attacks.square(ball)(never, x, y),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    robust = kr.defenses.pgd_at(kr.models.mlp(SHAPE, CLASSES), ball, steps=1)
    robust.compile("sgd")
    with pytest.raises(ValueError, match=message):
        robust.fit(x, y, verbose=0)
