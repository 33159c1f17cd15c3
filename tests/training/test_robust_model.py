"""RobustModel: steps on paper, and what it logs."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.defenses.trades import Trades
from keras_robust.losses.robust_loss import Adversarial, Clean

BALL = kr.LinfBall(0.1)
FGSM = kr.attacks.fgsm(BALL)


def numbers(history):
    return {name: values[-1] for name, values in history.items()}


# One step on paper.


def test_one_step_of_adversarial_training(make_robust, fit_once, make_linear):
    """Two pixels, two classes, W = [[1, -1], [0, 0]], x = (1/2, 1/2), y = 0, radius 1/4.

    The gradient in x is W (p - e_0) = (-2 p_1, 0): FGSM moves the first pixel to 1/4. There the
    logits are (1/4, -1/4), so p_1 = 1 / (1 + sqrt(e)), the loss is -log(1 - p_1), and a step of
    SGD with rate 1 adds x_adv (p_1, -p_1) to the rows of W and (p_1, -p_1) to the bias.
    """
    classifier = make_linear([[1.0, -1.0], [0.0, 0.0]])
    model = make_robust(classifier, kr.attacks.fgsm(kr.LinfBall(0.25)))
    x = np.full([1, 2, 1, 1], 0.5, "float32")
    logs = numbers(fit_once(model, x, np.array([0])))
    p = 1 / (1 + math.exp(0.5))
    assert logs["loss"] == pytest.approx(-math.log(1 - p), rel=1e-6)
    weights, bias = classifier.get_weights()
    expected = [[1 + p / 4, -1 - p / 4], [p / 2, -p / 2]]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    np.testing.assert_allclose(bias, [p, -p], rtol=1e-6)
    assert (logs["accuracy"], logs["robust_accuracy"]) == (1, 1)


WEIGHTS = np.array([[2.0, -1.0, 0.0], [0.5, 1.0, -1.0], [-1.0, 0.0, 3.0], [0.25, 0.0, -0.5]])


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("eager", [True, False])
def test_sample_weights_multiply_the_loss_of_their_example(
    make_robust, fit_once, make_linear, make_batch, eager
):
    """The loss is sum w_i CE_i / n, and dW = sum w_i x_i (p_i - e_y)' / n; the attack, which
    sees each image alone, is that of the images without weights."""
    x, y = make_batch(6, (4, 1, 1))
    weight = np.array([0.0, 1.0, 2.0, 0.5, 3.0, 1.0], "float32")
    classifier = make_linear(WEIGHTS)
    x_adv = FGSM(classifier, x, y).numpy().reshape(6, 4)
    p = softmax(x_adv @ WEIGHTS)
    model = make_robust(classifier, eager=eager)
    logs = numbers(fit_once(model, x, y, sample_weight=weight))
    assert logs["loss"] == pytest.approx((weight * -np.log(p[range(6), y])).mean(), rel=1e-5)
    step = x_adv.T @ (weight[:, None] * (p - np.eye(3)[y])) / 6
    np.testing.assert_allclose(classifier.get_weights()[0], WEIGHTS - step, atol=1e-6)


def test_class_weights_are_sample_weights(make_robust, fit_once, make_linear, make_batch):
    x, y = make_batch(6, (4, 1, 1))
    by_class, by_sample = (make_robust(make_linear(WEIGHTS)) for _ in range(2))
    fit_once(by_class, x, y, class_weight={0: 1.0, 1: 3.0, 2: 0.0})
    fit_once(by_sample, x, y, sample_weight=np.array([1.0, 3.0, 0.0])[y])
    for a, b in zip(by_class.get_weights(), by_sample.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# What is logged.


def test_terms_sum_to_the_loss_and_regularization_is_one(
    make_robust, fit_once, make_classifier, make_batch
):
    """L2 of 0.01 on the kernel: the term is 0.01 times the sum of its squares before the step."""
    classifier = make_classifier(dropout=0, regularizer=keras.regularizers.L2(0.01))
    kernel = classifier.layers[2].kernel.numpy()
    model = make_robust(classifier, loss=Trades(beta=6.0))
    logs = numbers(fit_once(model, *make_batch(8)))
    assert set(logs) == {
        "loss", "clean", "divergence", "regularization", "accuracy", "robust_accuracy"
    }  # fmt: skip
    assert logs["regularization"] == pytest.approx(0.01 * (kernel**2).sum(), rel=1e-5)
    terms = logs["clean"] + logs["divergence"] + logs["regularization"]
    assert logs["loss"] == pytest.approx(terms, rel=1e-6)


def test_regularization_takes_part_in_the_step(make_robust, fit_once, make_classifier, make_batch):
    plain, decayed = (make_classifier(dropout=0, regularizer=r) for r in (None, "l2"))
    kernel = plain.layers[2].kernel.numpy()
    for classifier in (plain, decayed):
        fit_once(make_robust(classifier), *make_batch(8))
    difference = plain.layers[2].kernel.numpy() - decayed.layers[2].kernel.numpy()
    np.testing.assert_allclose(difference, 2 * 0.01 * kernel, atol=1e-6)  # "l2" is 0.01


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_losses_added_by_layers_of_any_precision(make_robust, fit_once, policy, make_batch):
    if policy != "float32" and keras.__version__ < "3.13":
        pytest.skip("Keras 3.12 cannot call such a layer itself")
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Dense(2, kernel_regularizer="l2", activity_regularizer="l1")(inputs)
    x = keras.layers.Flatten()(x)
    logits = keras.layers.Dense(3, dtype="float32")(x)
    model = make_robust(keras.Model(inputs, {"logits": logits, "features": x}))
    logs = numbers(fit_once(model, *make_batch(8)))
    assert 0 < logs["regularization"] < math.inf
    assert logs["loss"] == pytest.approx(logs["adversarial"] + logs["regularization"], rel=1e-5)


@pytest.mark.parametrize("batch_size", [3, 8])
def test_evaluate_counts_every_example_once(make_robust, make_classifier, make_batch, batch_size):
    """Means over eight examples, whether they come as one batch or as 3 + 3 + 2."""
    x, y = make_batch(8)
    classifier = make_classifier()
    model = make_robust(classifier, loss=Trades(2.0))
    logs = model.evaluate(x, y, batch_size=batch_size, verbose=0, return_dict=True)
    clean = classifier(x, training=False)["logits"]
    moved = classifier(FGSM(classifier, x, y), training=False)["logits"]
    entropy = tf.reduce_mean(kr.losses.cross_entropy(clean, y))
    divergence = 2 * tf.reduce_mean(kr.losses.kl_divergence(clean, moved))
    expected = {
        "loss": float(entropy + divergence),
        "clean": float(entropy),
        "divergence": float(divergence),
        "accuracy": (clean.numpy().argmax(1) == y).mean(),
        "robust_accuracy": (moved.numpy().argmax(1) == y).mean(),
    }
    assert logs == pytest.approx(expected, rel=1e-5)


def test_evaluate_as_a_list_is_in_the_order_of_the_names(make_robust, make_classifier, make_batch):
    model = make_robust(make_classifier())
    x, y = make_batch(8)
    values, logs = (model.evaluate(x, y, verbose=0, return_dict=d) for d in (False, True))
    names = [name for name in model.metrics_names if name in logs]
    assert names == ["loss", "adversarial", "accuracy", "robust_accuracy"]
    assert values == pytest.approx([logs[name] for name in names])


@pytest.mark.parametrize("loss", [Adversarial(), Adversarial(clean_weight=1.0)])
def test_training_accuracies_are_those_before_the_update(
    make_robust, fit_once, make_linear, make_batch, loss
):
    """A huge step makes every prediction the same afterwards; the logs must not see it."""
    x, y = make_batch(30, (4, 1, 1))
    classifier = make_linear(WEIGHTS)
    clean = (classifier(x)["logits"].numpy().argmax(1) == y).mean()
    robust = (classifier(FGSM(classifier, x, y))["logits"].numpy().argmax(1) == y).mean()
    logs = numbers(
        fit_once(make_robust(classifier, loss=loss, optimizer=keras.optimizers.SGD(1e4)), x, y)
    )
    assert logs["accuracy"] == pytest.approx(clean)
    assert logs["robust_accuracy"] == pytest.approx(robust)
    assert (classifier(x)["logits"].numpy().argmax(1) == y).mean() != pytest.approx(clean)


def test_a_loss_on_clean_images_crafts_only_for_validation(fit_once, make_classifier, make_batch):
    model = kr.RobustModel(make_classifier(), None, Clean(), validation_attack=FGSM)
    model.compile("sgd", run_eagerly=True)
    history = fit_once(model, *make_batch(8), validation_data=make_batch(8))
    assert set(history) == {
        "loss", "clean", "accuracy",
        "val_loss", "val_clean", "val_accuracy", "val_robust_accuracy",
    }  # fmt: skip


def test_validation_attacks_with_the_validation_attack(make_robust, make_classifier, make_batch):
    """In a ball of radius 0 the robust accuracy is the accuracy."""
    nowhere = kr.attacks.fgsm(kr.LinfBall(0.0))
    model = make_robust(make_classifier(), validation_attack=nowhere)
    logs = model.evaluate(*make_batch(30), verbose=0, return_dict=True)
    assert logs["robust_accuracy"] == logs["accuracy"]
    assert make_robust(make_classifier()).validation_attack == FGSM


def test_metrics_of_compile_see_clean_logits(fit_once, make_linear, make_batch):
    x, y = make_batch(30, (4, 1, 1))
    classifier = make_linear(WEIGHTS)
    model = kr.RobustModel(classifier, FGSM, Adversarial())
    top2 = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")
    model.compile("sgd", metrics=["accuracy", top2])
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    order = classifier(x)["logits"].numpy().argsort(axis=1)
    assert logs["top2"] == pytest.approx((order[:, -2:] == y[:, None]).any(axis=1).mean())
    assert logs["accuracy"] == pytest.approx((order[:, -1] == y).mean())
    assert "top2" in fit_once(model, x, y)


def test_predict_gives_the_outputs_of_the_classifier(make_classifier, make_batch):
    classifier = make_classifier()
    model = kr.RobustModel(classifier, FGSM, Adversarial())
    x, _ = make_batch(8)
    found, expected = model.predict(x, verbose=0), classifier(x, training=False)
    assert set(found) == {"logits", "features"}
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-6)
