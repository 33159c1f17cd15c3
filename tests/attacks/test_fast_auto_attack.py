"""The fast ensemble: known verdicts, early leave, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import fast_auto_attack
from keras_robust.attacks.crafting.inputs import craft_seed

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(6, 4)).astype("float32")
X = RNG.uniform(0.3, 0.7, (24, 3, 2, 1)).astype("float32")


class Counting:
    """A linear model in eager mode; counts the images that pass through it."""

    def __init__(self, weights=WEIGHTS):
        self.weights, self.images = weights, 0

    def __call__(self, x):
        self.images += x.shape[0] or 0
        return {"logits": (tf.reshape(x, [-1, 6]) - 0.5) @ self.weights}


def logits_of(x, weights=WEIGHTS):
    return (x.reshape(len(x), 6) - 0.5) @ weights


def labels(x=X, weights=WEIGHTS):
    return np.argmax(logits_of(x, weights), axis=1)


def robust(radius, norm):
    """The exact verdicts of the linear model where no pixel leaves its range."""
    y, logits = labels(), logits_of(X)
    rows = np.arange(len(X))[:, None]
    gaps = logits[rows, y[:, None]] - logits
    slopes = np.linalg.norm(WEIGHTS[:, y].T[:, :, None] - WEIGHTS[None], norm, axis=1)
    return np.all((gaps > radius * slopes) | (np.arange(4) == y[:, None]), axis=1)


@pytest.mark.parametrize(
    ("ball", "dual"),
    [
        (kr.LinfBall(0.05), 1),
        pytest.param(kr.L2Ball(0.12), 2, marks=pytest.mark.slow),
        pytest.param(kr.L1Ball(0.12), np.inf, marks=pytest.mark.slow),
    ],
)
def test_verdicts_of_a_linear_model(ball, dual):
    attack = fast_auto_attack(ball, stage_steps=(4, 4, 12), queries=10)
    x_adv = attack.compiled(Counting())(X, labels()).numpy()
    left = labels(x_adv) == labels()
    assert 0 < left.sum() < len(X)
    np.testing.assert_array_equal(left, robust(ball.radius, dual))
    assert np.all(ball.distance(x_adv, X) <= ball.radius * (1 + 1e-5))


def passes(x, y, **options):
    model = Counting()
    fast_auto_attack(kr.LinfBall(0.05), **options)(model, x, y)
    return model.images


def test_images_leave_once_they_are_misclassified():
    """A batch costs what its images cost; one that is wrong already costs one pass."""
    short = {"stage_steps": (2, 1, 1), "queries": 3, "reach": 1.0}
    y, left = labels(), robust(0.05, 1)
    assert passes(X, (y + 1) % 4, **short) == len(X)
    easy, hard = passes(X[~left], y[~left], **short), passes(X[left], y[left], **short)
    assert passes(X, y, **short) == easy + hard
    # The clean images, 2 steps and the start, the result; three classes, twice; Square.
    assert hard == left.sum() * (1 + 4 + 3 * 3 + 3 * 3 + 5)
    assert easy < hard / left.sum() * (~left).sum() / 2


def test_far_images_are_not_searched_for_long():
    """The model is a constant: the margin does not shrink, so that only Square goes on."""
    constant = lambda x: {"logits": 1e-9 * tf.reshape(x, [-1, 6]) + tf.eye(6)[:1]}  # noqa: E731
    counts = []
    for steps in (1, 9):
        model = Counting()
        wrapped = lambda x, model=model: (model(x), constant(x))[1]  # noqa: E731
        attack = fast_auto_attack(kr.LinfBall(0.03), stage_steps=(1, 1, steps), queries=3)
        attack(wrapped, X, np.zeros(len(X), int))
        counts.append(model.images)
    assert counts[0] == counts[1]


def test_square_starts_from_given_points():
    """In a part of a batch the search is the same as in the whole."""
    y, ball = labels(), kr.L2Ball(0.02)
    start = ball.sample(tf.constant(X), craft_seed(3))
    search = kr.attacks.square(ball, queries=6, p_init=0.5).search
    whole = search(Counting(), tf.constant(X), tf.constant(y), craft_seed(1), start)
    rows = np.arange(3, 20, 2)
    part = (tf.constant(rows), tf.constant(len(X)))
    given = (tf.gather(values, rows) for values in (X, y))
    found = search(Counting(), *given, craft_seed(1), tf.gather(start, rows), part)
    np.testing.assert_allclose(found, whole.numpy()[rows], atol=1e-6)


def test_two_classes():
    weights = WEIGHTS[:, :2]
    y = labels(weights=weights)
    attack = fast_auto_attack(kr.LinfBall(0.2), stage_steps=(2, 2, 2), queries=2)
    x_adv = attack(Counting(weights), X, y).numpy()
    assert np.mean(labels(x_adv, weights) != y) > 0.9


def test_its_name_is_its_own():
    assert "AutoAttack" not in repr(fast_auto_attack(kr.LinfBall(0.1)))
    assert "Auto" not in fast_auto_attack(kr.LinfBall(0.1)).name


@pytest.mark.parametrize(
    "options", [{"stage_steps": (1, 0, 1)}, {"queries": 0}, {"reach": 0.0}, {"reach": 1.5}]
)
def test_invalid_settings(options):
    with pytest.raises(ValueError, match="fast_auto_attack"):
        fast_auto_attack(kr.LinfBall(0.1), **options)


def test_targets_are_refused():
    with pytest.raises(ValueError, match="fast_auto_attack was called with targets"):
        fast_auto_attack(kr.LinfBall(0.1))(Counting(), X, labels(), targets=labels())
