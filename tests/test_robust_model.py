"""RobustModel: steps on paper, what it logs, what it leaves alone, what it refuses."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.defenses.trades import Trades
from keras_robust.robust_loss import Adversarial, Clean

BALL = kr.LinfBall(0.1)
FGSM = kr.attacks.fgsm(BALL)


def compiled(classifier, attack=FGSM, loss=None, optimizer=None, eager=True, **settings):
    """A model ready to train; eager, so that a test of one step need not trace it."""
    model = kr.RobustModel(classifier, attack, loss or Adversarial(), **settings)
    model.compile(optimizer or keras.optimizers.SGD(1.0), run_eagerly=eager)
    return model


def one_step(model, x, y, **kwargs):
    return model.fit(x, y, batch_size=len(x), verbose=0, **kwargs).history


def numbers(history):
    return {name: values[-1] for name, values in history.items()}


# One step on paper.


def test_one_step_of_adversarial_training(make_linear):
    """Two pixels, two classes, W = [[1, -1], [0, 0]], x = (1/2, 1/2), y = 0, radius 1/4.

    The gradient in x is W (p - e_0) = (-2 p_1, 0): FGSM moves the first pixel to 1/4. There the
    logits are (1/4, -1/4), so p_1 = 1 / (1 + sqrt(e)), the loss is -log(1 - p_1), and a step of
    SGD with rate 1 adds x_adv (p_1, -p_1) to the rows of W and (p_1, -p_1) to the bias.
    """
    classifier = make_linear([[1.0, -1.0], [0.0, 0.0]])
    model = compiled(classifier, kr.attacks.fgsm(kr.LinfBall(0.25)))
    x = np.full([1, 2, 1, 1], 0.5, "float32")
    logs = numbers(one_step(model, x, np.array([0])))
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
def test_sample_weights_multiply_the_loss_of_their_example(make_linear, make_batch, eager):
    """The loss is sum w_i CE_i / n, and dW = sum w_i x_i (p_i - e_y)' / n; the attack, which
    sees each image alone, is that of the images without weights."""
    x, y = make_batch(6, (4, 1, 1))
    weight = np.array([0.0, 1.0, 2.0, 0.5, 3.0, 1.0], "float32")
    classifier = make_linear(WEIGHTS)
    x_adv = FGSM(classifier, x, y).numpy().reshape(6, 4)
    p = softmax(x_adv @ WEIGHTS)
    model = compiled(classifier, eager=eager)
    logs = numbers(one_step(model, x, y, sample_weight=weight))
    assert logs["loss"] == pytest.approx((weight * -np.log(p[range(6), y])).mean(), rel=1e-5)
    step = x_adv.T @ (weight[:, None] * (p - np.eye(3)[y])) / 6
    np.testing.assert_allclose(classifier.get_weights()[0], WEIGHTS - step, atol=1e-6)


def test_class_weights_are_sample_weights(make_linear, make_batch):
    x, y = make_batch(6, (4, 1, 1))
    by_class, by_sample = (compiled(make_linear(WEIGHTS)) for _ in range(2))
    one_step(by_class, x, y, class_weight={0: 1.0, 1: 3.0, 2: 0.0})
    one_step(by_sample, x, y, sample_weight=np.array([1.0, 3.0, 0.0])[y])
    for a, b in zip(by_class.get_weights(), by_sample.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# What is logged.


def test_terms_sum_to_the_loss_and_regularization_is_one(make_classifier, make_batch):
    """L2 of 0.01 on the kernel: the term is 0.01 times the sum of its squares before the step."""
    classifier = make_classifier(dropout=0, regularizer=keras.regularizers.L2(0.01))
    kernel = classifier.layers[2].kernel.numpy()
    model = compiled(classifier, loss=Trades(beta=6.0))
    logs = numbers(one_step(model, *make_batch(8)))
    assert set(logs) == {
        "loss", "clean", "divergence", "regularization", "accuracy", "robust_accuracy"
    }  # fmt: skip
    assert logs["regularization"] == pytest.approx(0.01 * (kernel**2).sum(), rel=1e-5)
    terms = logs["clean"] + logs["divergence"] + logs["regularization"]
    assert logs["loss"] == pytest.approx(terms, rel=1e-6)


def test_regularization_takes_part_in_the_step(make_classifier, make_batch):
    plain, decayed = (make_classifier(dropout=0, regularizer=r) for r in (None, "l2"))
    kernel = plain.layers[2].kernel.numpy()
    for classifier in (plain, decayed):
        one_step(compiled(classifier), *make_batch(8))
    difference = plain.layers[2].kernel.numpy() - decayed.layers[2].kernel.numpy()
    np.testing.assert_allclose(difference, 2 * 0.01 * kernel, atol=1e-6)  # "l2" is 0.01


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_losses_added_by_layers_of_any_precision(policy, make_batch):
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Dense(2, kernel_regularizer="l2", activity_regularizer="l1")(inputs)
    x = keras.layers.Flatten()(x)
    logits = keras.layers.Dense(3, dtype="float32")(x)
    model = compiled(keras.Model(inputs, {"logits": logits, "features": x}))
    logs = numbers(one_step(model, *make_batch(8)))
    assert 0 < logs["regularization"] < math.inf
    assert logs["loss"] == pytest.approx(logs["adversarial"] + logs["regularization"], rel=1e-5)


@pytest.mark.parametrize("batch_size", [3, 8])
def test_evaluate_counts_every_example_once(make_classifier, make_batch, batch_size):
    """Means over eight examples, whether they come as one batch or as 3 + 3 + 2."""
    x, y = make_batch(8)
    classifier = make_classifier()
    model = compiled(classifier, loss=Trades(2.0))
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


def test_evaluate_as_a_list_is_in_the_order_of_the_names(make_classifier, make_batch):
    model = compiled(make_classifier())
    x, y = make_batch(8)
    values, logs = (model.evaluate(x, y, verbose=0, return_dict=d) for d in (False, True))
    names = [name for name in model.metrics_names if name in logs]
    assert names == ["loss", "adversarial", "accuracy", "robust_accuracy"]
    assert values == pytest.approx([logs[name] for name in names])


@pytest.mark.parametrize("loss", [Adversarial(), Adversarial(clean_weight=1.0)])
def test_training_accuracies_are_those_before_the_update(make_linear, make_batch, loss):
    """A huge step makes every prediction the same afterwards; the logs must not see it."""
    x, y = make_batch(30, (4, 1, 1))
    classifier = make_linear(WEIGHTS)
    clean = (classifier(x)["logits"].numpy().argmax(1) == y).mean()
    robust = (classifier(FGSM(classifier, x, y))["logits"].numpy().argmax(1) == y).mean()
    logs = numbers(
        one_step(compiled(classifier, loss=loss, optimizer=keras.optimizers.SGD(1e4)), x, y)
    )
    assert logs["accuracy"] == pytest.approx(clean)
    assert logs["robust_accuracy"] == pytest.approx(robust)
    assert (classifier(x)["logits"].numpy().argmax(1) == y).mean() != pytest.approx(clean)


def test_a_loss_on_clean_images_crafts_only_for_validation(make_classifier, make_batch):
    model = kr.RobustModel(make_classifier(), None, Clean(), validation_attack=FGSM)
    model.compile("sgd", run_eagerly=True)
    history = one_step(model, *make_batch(8), validation_data=make_batch(8))
    assert set(history) == {
        "loss", "clean", "accuracy",
        "val_loss", "val_clean", "val_accuracy", "val_robust_accuracy",
    }  # fmt: skip


def test_validation_attacks_with_the_validation_attack(make_classifier, make_batch):
    """In a ball of radius 0 the robust accuracy is the accuracy."""
    nowhere = kr.attacks.fgsm(kr.LinfBall(0.0))
    model = compiled(make_classifier(), validation_attack=nowhere)
    logs = model.evaluate(*make_batch(30), verbose=0, return_dict=True)
    assert logs["robust_accuracy"] == logs["accuracy"]
    assert compiled(make_classifier()).validation_attack == FGSM


def test_metrics_of_compile_see_clean_logits(make_linear, make_batch):
    x, y = make_batch(30, (4, 1, 1))
    classifier = make_linear(WEIGHTS)
    model = kr.RobustModel(classifier, FGSM, Adversarial())
    top2 = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")
    model.compile("sgd", metrics=["accuracy", top2])
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    order = classifier(x)["logits"].numpy().argsort(axis=1)
    assert logs["top2"] == pytest.approx((order[:, -2:] == y[:, None]).any(axis=1).mean())
    assert logs["accuracy"] == pytest.approx((order[:, -1] == y).mean())
    assert "top2" in one_step(model, x, y)


def test_predict_gives_the_outputs_of_the_classifier(make_classifier, make_batch):
    classifier = make_classifier()
    model = kr.RobustModel(classifier, FGSM, Adversarial())
    x, _ = make_batch(8)
    found, expected = model.predict(x, verbose=0), classifier(x, training=False)
    assert set(found) == {"logits", "features"}
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-6)


# What crafting leaves alone, and what training moves.


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("graph", [False, True])
def test_crafting_changes_nothing(make_classifier, make_batch, values_of, mode, graph):
    """No weight, no running statistic, no seed of dropout."""
    model = compiled(make_classifier(dropout=0.5), crafting_mode=mode)
    x, y = map(tf.constant, make_batch(8))
    before = values_of(model)
    craft = tf.function(model.craft) if graph else model.craft
    craft(x, y)
    for old, new in zip(before, values_of(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_crafting_in_eval_mode_is_the_attack_on_the_classifier(make_classifier, make_batch):
    x, y = make_batch(8)
    model = compiled(make_classifier(dropout=0.5))
    np.testing.assert_array_equal(model.craft(x, y), FGSM(model.classifier, x, y))


def test_crafting_in_train_mode_is_against_the_statistics_of_the_batch(make_classifier, make_batch):
    """Without dropout, that is the attack on the classifier called with training=True."""
    x, y = make_batch(8)
    model = compiled(make_classifier(dropout=0), crafting_mode="train")
    other = make_classifier(dropout=0)
    expected = FGSM(lambda x: other(x, training=True), x, y)
    np.testing.assert_array_equal(model.craft(x, y), expected)
    assert np.any(model.craft(x, y) != FGSM(model.classifier, x, y))


@pytest.mark.parametrize("clean_weight", [0.0, 1.0])
def test_statistics_move_once_per_forward_pass_clean_first(
    make_classifier, make_batch, clean_weight
):
    """As if the classifier had been called by hand on each batch it is trained on."""
    x, y = make_batch(8)
    model = compiled(make_classifier(dropout=0), loss=Adversarial(clean_weight))
    x_adv = model.craft(x, y)
    one_step(model, x, y)
    by_hand = make_classifier(dropout=0)
    for batch in (x, x_adv) if clean_weight else (x_adv,):
        by_hand(batch, training=True)
    for found, expected in zip(
        model.classifier.layers[3].non_trainable_variables,
        by_hand.layers[3].non_trainable_variables,
        strict=True,
    ):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-6)


def test_evaluation_changes_nothing(make_classifier, make_batch, values_of):
    model = compiled(make_classifier(dropout=0.5))
    before = values_of(model.classifier)
    model.evaluate(*make_batch(8), verbose=0)
    for old, new in zip(before, values_of(model.classifier), strict=True):
        np.testing.assert_array_equal(old, new)


# Seeds.

PGD = kr.attacks.pgd(BALL, steps=0)  # the start alone: nothing but the seed decides


def test_every_step_has_noise_of_its_own(make_classifier, make_batch):
    x, y = make_batch(8)
    model, same, other = (compiled(make_classifier(), PGD, seed=seed) for seed in (1, 1, 2))
    first = model.craft(x, y)
    np.testing.assert_array_equal(first, same.craft(x, y))
    assert np.any(first != other.craft(x, y))
    one_step(model, x, y)
    assert np.any(first != model.craft(x, y))


def test_evaluation_repeats_itself(make_classifier, make_batch):
    model = compiled(make_classifier(), kr.attacks.pgd(kr.LinfBall(0.5), steps=0))
    first, second = (model.evaluate(*make_batch(40), verbose=0, return_dict=True) for _ in range(2))
    assert first == second


# Hooks.


class Hooked(kr.RobustModel):
    """Writes down what the hooks are given."""

    def craft(self, x, y):
        self.seen = [float(self.classifier.layers[-1].bias[0])]
        return tf.zeros_like(x)

    def after_update(self, x, x_adv):
        self.seen += [float(self.classifier.layers[-1].bias[0]), float(tf.reduce_max(x_adv))]


def test_hooks_run_before_and_after_the_update(make_linear, make_batch):
    model = Hooked(make_linear(WEIGHTS), FGSM, Adversarial())
    model.compile("sgd", run_eagerly=True)
    one_step(model, *make_batch(6, (4, 1, 1)))
    before, after, moved = model.seen
    assert before == 0 != after and moved == 0


# Precision.


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_images_are_not_rounded_before_the_attack(make_classifier, make_batch, policy):
    """A radius of 1e-4 is less than half precision can tell apart near 1."""
    keras.config.set_dtype_policy(policy)
    x, y = make_batch(8)
    model = compiled(make_classifier(), kr.attacks.fgsm(kr.LinfBall(1e-4)))
    x_adv = model.craft(tf.constant(x), tf.constant(y))
    assert x_adv.dtype == tf.float32
    distance = np.abs(x_adv.numpy() - x).max()
    assert 0.99e-4 < distance < 1.01e-4
    outputs = model(tf.constant(x))
    assert outputs["features"].dtype == keras.config.dtype_policy().compute_dtype
    assert outputs["logits"].dtype == tf.float32


# Saving.


def test_config_round_trip(make_classifier):
    model = kr.RobustModel(
        make_classifier(),
        kr.attacks.pgd(BALL, loss="kl", start="gaussian"),
        Trades(3.0),
        validation_attack=kr.attacks.mim(kr.L1Ball(2.0)),
        crafting_mode="train",
        seed=5,
        name="hardened",
    )
    again = kr.RobustModel.from_config(model.get_config())
    for field in ("attack", "robust_loss", "validation_attack", "crafting_mode", "seed", "name"):
        assert getattr(again, field) == getattr(model, field), field
    assert again.classifier.get_config() == model.classifier.get_config()


def test_config_without_attacks(make_classifier):
    again = kr.RobustModel.from_config(
        kr.RobustModel(make_classifier(), None, Clean()).get_config()
    )
    assert again.attack is None and again.validation_attack is None


def test_the_classifier_alone_is_a_keras_model(make_classifier, make_batch, tmp_path):
    classifier = make_classifier()
    kr.RobustModel(classifier, FGSM, Adversarial()).classifier.save(tmp_path / "c.keras")
    again = keras.saving.load_model(tmp_path / "c.keras")
    x, _ = make_batch(4)
    np.testing.assert_array_equal(again(x)["logits"], classifier(x)["logits"])


# What is refused.


def test_a_classifier_without_the_contract():
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    inputs = keras.Input((4,))
    partial = keras.Model(inputs, {"logits": keras.layers.Dense(3)(inputs)})
    for classifier in (plain, None, lambda x: x):
        with pytest.raises(TypeError, match=r"expected a built functional model.*adapt"):
            kr.RobustModel(classifier, FGSM, Adversarial())
    with pytest.raises(TypeError, match=r"outputs \['logits'\].*features"):
        kr.RobustModel(partial, FGSM, Adversarial())


def test_a_loss_without_its_attack(tiny_classifier):
    with pytest.raises(ValueError, match=r"Adversarial needs adversarial images.*pgd\(ball\)"):
        kr.RobustModel(tiny_classifier, None, Adversarial())


def test_other_settings(tiny_classifier):
    with pytest.raises(ValueError, match=r"crafting_mode is 'test'; expected 'eval' or 'train'"):
        kr.RobustModel(tiny_classifier, FGSM, Adversarial(), crafting_mode="test")
    for seed in (None, 1.5, "1", (1, 2), True):
        with pytest.raises(ValueError, match=r"seed is .*whole number"):
            kr.RobustModel(tiny_classifier, FGSM, Adversarial(), seed=seed)


def test_compile_refuses_a_loss(tiny_classifier):
    model = kr.RobustModel(tiny_classifier, FGSM, Adversarial())
    for arguments in ({"loss": "mse"}, {"loss": keras.losses.MeanSquaredError()}):
        with pytest.raises(ValueError, match=r"compile\(\) received loss=.*part of it"):
            model.compile("sgd", **arguments)
    with pytest.raises(ValueError, match=r"compile\(\) received loss='mse'"):
        model.compile("sgd", "mse")
    model.compile("sgd", loss=None)


def test_xla_is_off_unless_asked_for(tiny_classifier):
    model = kr.RobustModel(tiny_classifier, FGSM, Adversarial())
    model.compile("sgd")
    assert model.jit_compile is False
    model.compile("sgd", jit_compile=True)
    assert model.jit_compile is True


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(
    ("labels", "error", "match"),
    [
        (lambda y: np.eye(3, dtype="float32")[y], TypeError, r"dtype float32.*one-hot.*argmax"),
        (lambda y: np.eye(3, dtype="int32")[y], ValueError, r"one class number per image"),
        (lambda y: y * 1.0, TypeError, r"Labels have dtype float"),
        (lambda y: None, ValueError, r"no labels"),
    ],
)
def test_labels_are_refused(make_classifier, make_batch, labels, error, match, eager):
    x, y = make_batch(8)
    model = compiled(make_classifier(), eager=eager)
    with pytest.raises(error, match=match):
        model.fit(x, labels(y), verbose=0)


def test_images_of_whole_numbers_are_refused(make_classifier, make_batch):
    x, y = make_batch(8)
    with pytest.raises(TypeError, match=r"Divide uint8 images by 255"):
        compiled(make_classifier(), eager=False).fit((x * 255).astype("uint8"), y, verbose=0)


@pytest.mark.parametrize("labels", [lambda y: y.astype("uint8"), lambda y: y[:, None]])
def test_labels_as_keras_data_sets_have_them(make_classifier, make_batch, labels):
    """CIFAR-10 of `keras.datasets`: uint8, and a column."""
    x, y = make_batch(8)
    plain, odd = (compiled(make_classifier(dropout=0)) for _ in range(2))
    assert one_step(odd, x, labels(y)) == one_step(plain, x, y)
