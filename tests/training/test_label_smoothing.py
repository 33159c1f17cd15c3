"""Label smoothing: what it adds to the loss, on paper, and what it leaves alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.core.types import RobustLoss
from keras_robust.losses import cross_entropy, negative_log_likelihood, smoothed_labels
from tests.contracts.defense_table import DEFENSES, ENSEMBLES

ALPHA = 0.3
# The terms that are cross-entropies with the label; the boosted one and the promoting one in part.
SMOOTHED = {"clean", "adversarial", "boosted", "promoting"}
RANDOM = np.random.default_rng(0)
LOGITS = tf.constant(RANDOM.normal(size=(6, 3)) * 4)
Y = tf.constant([0, 1, 2, 0, 1, 2])


def soft(y=Y, alpha=ALPHA, classes=3):
    """Eq. 2.4 of the thesis: (1 - alpha) y_i + alpha / k."""
    return (1 - alpha) * np.eye(classes)[y] + alpha / classes


def test_the_cross_entropy_of_soft_labels():
    """-sum_i ~y_i log p_i; the likelihood of the label is not smoothed, nor what comes later."""
    log_p = tf.nn.log_softmax(LOGITS).numpy()
    with smoothed_labels(ALPHA):
        found, exact = cross_entropy(LOGITS, Y), negative_log_likelihood(LOGITS, Y)
    np.testing.assert_allclose(found, -(soft() * log_p).sum(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(exact, cross_entropy(LOGITS, Y))
    np.testing.assert_allclose(exact, -log_p[np.arange(6), Y], rtol=1e-12)


def test_the_smallest_loss_predicts_the_soft_label():
    """Where the softmax is ~y, the gradient is 0 and the loss is the entropy of ~y."""
    logits = tf.math.log(tf.constant(soft()))
    with tf.GradientTape() as tape, smoothed_labels(ALPHA):
        tape.watch(logits)
        loss = cross_entropy(logits, Y)
    np.testing.assert_allclose(tape.gradient(loss, logits), np.zeros([6, 3]), atol=1e-12)
    np.testing.assert_allclose(loss, -(soft() * np.log(soft())).sum(axis=1))


def test_contexts_nest_and_end():
    with smoothed_labels(0.5):
        with smoothed_labels(ALPHA):
            inner = cross_entropy(LOGITS, Y)
        outer = cross_entropy(LOGITS, Y)
    with pytest.raises(RuntimeError, match="stop"), smoothed_labels(0.5):
        raise RuntimeError("stop")
    plain = cross_entropy(LOGITS, Y)
    np.testing.assert_allclose((inner - plain) / ALPHA, (outer - plain) / 0.5, rtol=1e-9)
    assert np.all(inner != plain)


@pytest.mark.parametrize("training", [True, False])
def test_a_step_is_the_one_on_paper(training, make_linear, fit_once):
    """PGD-AT of a linear classifier: the attack maximizes the loss of the label itself, so x_adv =
    x + r sign(W (p - y)); the gradient is that of soft labels, x_adv^T (p(x_adv) - ~y) / batch."""
    w = np.array([[0.7, -0.2, 0.1], [-0.4, 0.3, 0.2]])
    x = np.array([[0.3, 0.6], [0.5, 0.4], [0.7, 0.2]], "float32")
    y = np.array([2, 0, 1])
    model = kr.defenses.pgd_at(
        make_linear(w), kr.LinfBall(0.1), steps=0, label_smoothing=ALPHA,
        validation_attack=kr.attacks.fgsm(kr.LinfBall(0.1)),
    ).rebuilt(attack=kr.attacks.fgsm(kr.LinfBall(0.1)))  # fmt: skip
    model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    x_adv = x + 0.1 * np.sign((tf.nn.softmax(x @ w).numpy() - np.eye(3)[y]) @ w.T)
    p = tf.nn.softmax(x_adv @ w).numpy()
    loss = -(soft(y) * np.log(p)).sum(axis=1).mean()
    if training:
        history = fit_once(model, x[:, :, None, None], y)
        assert history["loss"][0] == pytest.approx(loss, rel=1e-5)
        expected = w - x_adv.T @ (p - soft(y)) / 3
        np.testing.assert_allclose(model.classifier.get_weights()[0], expected, rtol=1e-5)
    else:
        logs = model.evaluate(x[:, :, None, None], y, verbose=0, return_dict=True)
        assert logs["loss"] == pytest.approx(loss, rel=1e-5)


def outputs_of(name, seed):
    random = np.random.default_rng(seed)

    def draw(*shape):
        return tf.constant(random.normal(size=shape) * 2)

    outputs = {"logits": draw(6, 3), "features": draw(6, 4), "projection": draw(6, 4)}
    # What the models of gradient alignment and of IKL measure besides.
    outputs |= {"alignment": draw(6), "class_probabilities": tf.nn.softmax(draw(6, 3))}
    if name.split()[-1] in ENSEMBLES or name.split()[0] in ENSEMBLES:
        outputs["member_logits"] = draw(6, 2, 3)
    return outputs


@pytest.mark.parametrize("name", DEFENSES)
def test_it_reaches_the_cross_entropies_of_every_loss_and_nothing_else(name, make_classifier):
    classifier = make_classifier()
    clean, adversarial = outputs_of(name, 1), outputs_of(name, 2)
    if "member_logits" in clean:
        classifier = kr.models.ensemble([make_classifier(seed=seed) for seed in range(2)])
    loss = DEFENSES[name][0](classifier).robust_loss
    plain = loss(Y, adversarial, clean)
    with smoothed_labels(ALPHA):
        smooth = loss(Y, adversarial, clean)
    changed = {key for key, value in plain.items() if np.any(value != smooth[key])}
    assert changed == SMOOTHED & set(loss.term_names)


def test_weights_of_mart_and_cce_are_probabilities_of_the_label():
    """1 - p_y and p_y lie in [0, 1]; from a smoothed loss they would not."""
    clean, adversarial = outputs_of("cce", 1), outputs_of("cce", 2)
    hard = kr.losses.member_cross_entropies(adversarial["member_logits"], Y)
    loss = kr.defenses.cce(
        kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(2)]), kr.LinfBall(0.1)
    ).robust_loss
    with smoothed_labels(ALPHA):
        smooth = kr.losses.member_cross_entropies(adversarial["member_logits"], Y)
        found = loss(Y, adversarial, clean)["promoting"]
    expected = tf.reduce_sum(tf.exp(-hard) * smooth, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


class Squares(RobustLoss):
    """A loss of one's own, without a cross-entropy."""

    term_names = ("squares",)
    required_outputs = frozenset({"clean"})

    def __call__(self, y, adversarial, clean):
        return {"squares": tf.reduce_sum(clean["logits"] ** 2, axis=1)}


def test_a_loss_without_cross_entropy_is_refused(make_classifier, make_batch):
    model = kr.RobustModel(make_classifier(), None, Squares(), label_smoothing=0.1)
    model.compile("sgd")
    message = "label_smoothing is 0.1, but the loss computes no `keras_robust.losses.cross_entropy`"
    with pytest.raises(ValueError, match=message):
        model.fit(*make_batch(4), verbose=0)


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, True, "0.1", None, float("nan")])
def test_what_it_cannot_be(value, make_classifier):
    with pytest.raises(ValueError, match="label_smoothing is .*the weight of the uniform"):
        kr.defenses.trades(make_classifier(), kr.LinfBall(0.1), label_smoothing=value)


def test_it_is_saved(make_classifier, tmp_path):
    kr.defenses.trades(make_classifier(), kr.LinfBall(0.1), label_smoothing=np.float32(0.25)).save(
        tmp_path / "m.keras"
    )
    assert keras.saving.load_model(tmp_path / "m.keras").label_smoothing == 0.25
