"""Objectives: the work on clean images is done once; values on paper."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust import losses
from keras_robust.attacks.crafting import objectives

LOGITS = tf.constant([[1.0, 3.0, 0.0, -1.0], [4.0, 0.0, 2.0, 1.0]], tf.float64)
Y = tf.constant([0, 0])
TARGETS = tf.constant([2, 3])


class Counting:
    """The identity as a model, counting its calls."""

    calls = 0

    def __call__(self, x):
        self.calls += 1
        return {"logits": x}


def identity(x):
    return {"logits": x}


@pytest.mark.parametrize("name", ["cross_entropy", "margin", "dlr"])
def test_label_loss_is_the_loss_of_the_true_label(name):
    value = objectives.LabelLoss(name)(identity, tf.zeros_like(LOGITS), Y)
    np.testing.assert_array_equal(value(LOGITS), getattr(losses, name)(LOGITS, Y))


def test_label_loss_of_the_prediction():
    """The clean predictions are 1 and 0; the labels, 0 and 2, do not matter."""
    objective = objectives.LabelLoss("margin", labels="predicted")
    value = objective(identity, LOGITS, tf.constant([0, 2]))
    moved = tf.constant([[5.0, 0.0, 0.0, 0.0], [0.0, 0.0, 7.0, 0.0]], tf.float64)
    np.testing.assert_allclose(value(moved), [5, 7])


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_predicted_labels_keep_the_type_of_labels(dtype):
    value = objectives.LabelLoss(labels="predicted")(identity, LOGITS, tf.cast(Y, dtype))
    assert np.isfinite(value(LOGITS)).all()


def test_targeted_by_hand():
    """Minus the cross-entropy of the target; target less best other; (z_t - z_y) / spread.

    First row: target 2, z = (1, 3, 0, -1): margin 0 - 3; DLR (0 - 1) / (3 - (0 - 1) / 2) = -2/7.
    Second: target 3, z = (4, 0, 2, 1): margin 1 - 4; DLR (1 - 4) / (4 - (1 + 0) / 2) = -6/7.
    """
    build = {name: objectives.Targeted(name) for name in ("cross_entropy", "margin", "dlr")}
    values = {name: part(identity, LOGITS, Y, TARGETS)(LOGITS) for name, part in build.items()}
    np.testing.assert_allclose(values["margin"], [-3, -3])
    np.testing.assert_allclose(values["dlr"], [-2 / 7, -6 / 7])
    log_sum = math.log(math.exp(1) + math.exp(3) + 1 + math.exp(-1))
    np.testing.assert_allclose(values["cross_entropy"][0], 0 - log_sum)


def test_targeted_needs_targets():
    with pytest.raises(ValueError, match=r"without targets.*multi_targeted"):
        objectives.Targeted()(identity, LOGITS, Y)


@pytest.mark.parametrize(
    "objective",
    [objectives.LabelLoss(), objectives.LabelLoss(labels="predicted"), objectives.Divergence()],
    ids=repr,
)
def test_the_others_refuse_targets(objective):
    """They would be ignored."""
    with pytest.raises(ValueError, match=r"with targets, which it does not use.*targeted=True"):
        objective(identity, LOGITS, Y, TARGETS)


def test_divergence_is_kl_from_the_clean_prediction():
    value = objectives.Divergence()(identity, LOGITS, Y)
    np.testing.assert_array_equal(value(LOGITS), [0, 0])
    np.testing.assert_array_equal(value(-LOGITS), losses.kl_divergence(LOGITS, -LOGITS))


def test_divergence_holds_the_clean_prediction_fixed():
    """No gradient reaches the clean side: at x_adv it is q - p alone, at x none at all."""
    moved = tf.reverse(LOGITS, [1])
    with tf.GradientTape() as tape:
        tape.watch([LOGITS, moved])
        value = objectives.Divergence()(identity, LOGITS, Y)(moved)
    clean, adversarial = tape.gradient(value, [LOGITS, moved])
    assert clean is None
    np.testing.assert_allclose(adversarial, tf.nn.softmax(moved) - tf.nn.softmax(LOGITS))


@pytest.mark.parametrize(
    ("objective", "clean_calls"),
    [
        (objectives.LabelLoss(), 0),
        (objectives.LabelLoss("margin", labels="predicted"), 1),
        (objectives.Targeted(), 0),
        (objectives.Divergence(), 1),
    ],
    ids=repr,
)
def test_clean_images_are_seen_once_and_outside_the_loop(objective, clean_calls):
    model = Counting()
    targets = TARGETS if isinstance(objective, objectives.Targeted) else None
    value = objective(model, LOGITS, Y, targets)
    assert model.calls == clean_calls
    for _ in range(3):
        value(LOGITS)
    assert model.calls == clean_calls + 3


@pytest.mark.parametrize("kind", [objectives.LabelLoss, objectives.Targeted])
@pytest.mark.parametrize("loss", ["kl", "Margin", "", None])
def test_unknown_loss(kind, loss):
    with pytest.raises(
        ValueError, match=rf"{kind.__name__}: loss is .*'cross_entropy', 'margin', 'dlr'"
    ):
        kind(loss)


@pytest.mark.parametrize("labels", ["clean", None, "True"])
def test_unknown_labels(labels):
    with pytest.raises(ValueError, match=r"labels is .*expected one of 'true', 'predicted'"):
        objectives.LabelLoss(labels=labels)


def test_adaptive_objective_fools_first_and_hides_then():
    """Margins 2 and -2: the first is ahead by 1.9 more than needed, and may hide."""
    value = objectives.AdaptiveObjective()(identity, tf.zeros_like(LOGITS), Y)
    entropy = losses.entropy(LOGITS).numpy()
    np.testing.assert_allclose(
        value(LOGITS), [0.1 + math.log(4) - entropy[0] + 0.2 * 1.9, -2], rtol=1e-6
    )


def test_adaptive_objective_has_one_gradient_at_a_time():
    """With `keep` at 0; it adds a share of the margin's gradient."""
    value = objectives.AdaptiveObjective(keep=0)(identity, tf.zeros_like(LOGITS), Y)
    with tf.GradientTape() as tape:
        tape.watch(LOGITS)
        total = tf.reduce_sum(value(LOGITS))
    fooled, not_yet = tape.gradient(total, LOGITS)
    np.testing.assert_array_equal(not_yet, [-1, 0, 1, 0])  # the margin's own gradient
    with tf.GradientTape() as tape:
        tape.watch(LOGITS)
        entropy = tf.reduce_sum(losses.entropy(LOGITS))
    np.testing.assert_allclose(fooled, -tape.gradient(entropy, LOGITS)[0], atol=1e-6)


@pytest.mark.parametrize("score", kr.detection.scores.SCORES)
def test_an_image_that_fools_is_worth_more_than_one_that_does_not(score):
    """Whatever its score: none is above log(classes)."""
    random = np.random.default_rng(0)
    scale = random.choice([0.01, 1, 30], [500, 1, 1])
    members = tf.constant(scale * random.normal(size=[500, 2, 3]))
    outputs = {"logits": losses.log_mean_probability(members), "member_logits": members}
    y = tf.constant(random.integers(0, 3, 500))
    value = objectives.AdaptiveObjective(score, 0.0)(lambda x: outputs, members, y)(members).numpy()
    fooled = losses.margin(outputs["logits"], y).numpy() >= 0
    assert value[fooled].min() >= 0 > value[~fooled].max()


@pytest.fixture(scope="module")
def trained():
    """An ensemble that has seen digits, and a batch of others that it gets right."""
    keras.utils.set_random_seed(0)
    train, _, test = kr.data.load("digits", 128)
    classifier = kr.models.ensemble([kr.models.mlp((8, 8, 1), 10, hidden=(32,)) for _ in range(2)])
    model = kr.defenses.ensemble_at(classifier, kr.LinfBall(0.1), steps=2)
    model.compile(keras.optimizers.Adam(5e-3))
    model.fit(train, epochs=6, verbose=0)
    x, y = (part.numpy() for part in next(iter(test)))
    right = classifier(x)["logits"].numpy().argmax(axis=1) == y
    assert right.mean() > 0.8
    return classifier, x[right], y[right]


@pytest.mark.parametrize("name", ["entropy", pytest.param("disagreement", marks=pytest.mark.slow)])
def test_the_adaptive_attack_evades_the_detector(trained, name):
    """It fools as many images as PGD, with lower scores."""
    classifier, x, y = trained
    score = kr.detection.scores.get(name).of
    success, hidden, threshold = {}, {}, None
    for kind, loss in (
        ("plain", "cross_entropy"),
        ("adaptive", objectives.AdaptiveObjective(name)),
    ):
        attack = kr.attacks.pgd(kr.LinfBall(0.2), steps=20, loss=loss)
        outputs = classifier(attack.compiled(classifier)(x, y))
        fooled = outputs["logits"].numpy().argmax(axis=1) != y
        scores = score(outputs).numpy()
        threshold = np.median(scores[fooled]) if threshold is None else threshold
        success[kind] = fooled.mean(), (fooled & (scores <= threshold)).mean()
        hidden[kind] = scores[fooled].mean()
    assert success["plain"][0] > 0.5
    assert success["adaptive"][0] > success["plain"][0] - 0.02
    assert hidden["adaptive"] < 0.85 * hidden["plain"]
    assert success["adaptive"][1] > 1.5 * success["plain"][1]  # fooled and undetected


def test_adaptive_objective_refuses():
    with pytest.raises(ValueError, match="no score 'max'"):
        objectives.AdaptiveObjective("max")
    for name in ("confidence", "keep"):
        for value in (-1, "1", True, math.nan):
            with pytest.raises(ValueError, match=f"{name} is"):
                objectives.AdaptiveObjective(**{name: value})
    with pytest.raises(ValueError, match="AdaptiveObjective was called with targets"):
        objectives.AdaptiveObjective()(identity, LOGITS, Y, TARGETS)
