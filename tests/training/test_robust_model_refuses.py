"""RobustModel: its configuration, and what it refuses."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.defenses.trades import Trades
from keras_robust.losses.robust_loss import Adversarial, Clean

BALL = kr.LinfBall(0.1)
FGSM = kr.attacks.fgsm(BALL)


# Saving.


def test_config_round_trip(make_classifier):
    model = kr.RobustModel(
        make_classifier(),
        kr.attacks.pgd(BALL, loss="kl", initialization="gaussian"),
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


@pytest.mark.parametrize("loss", ["mse", None, keras.losses.MeanSquaredError(), Adversarial])
def test_what_is_not_a_robust_loss_is_refused(tiny_classifier, loss):
    with pytest.raises(TypeError, match=r"The loss is .*expected a robust loss"):
        kr.RobustModel(tiny_classifier, FGSM, loss)


@pytest.mark.parametrize("attack", [BALL, kr.attacks.pgd, "pgd"], ids=["ball", "factory", "name"])
def test_what_is_not_an_attack_is_refused(tiny_classifier, attack):
    with pytest.raises(TypeError, match=r"attack is .*expected an attack"):
        kr.RobustModel(tiny_classifier, attack, Adversarial())
    with pytest.raises(TypeError, match=r"validation_attack is .*expected an attack"):
        kr.RobustModel(tiny_classifier, FGSM, Adversarial(), validation_attack=attack)


def test_a_loss_without_its_attack(tiny_classifier):
    with pytest.raises(ValueError, match=r"Adversarial needs adversarial images.*pgd\(ball\)"):
        kr.RobustModel(tiny_classifier, None, Adversarial())


def test_a_model_without_an_attack_cannot_craft(tiny_classifier, tiny_batch):
    model = kr.RobustModel(tiny_classifier, None, Clean())
    with pytest.raises(ValueError, match="has no training attack"):
        model.craft(*tiny_batch)


def test_other_settings(tiny_classifier):
    with pytest.raises(ValueError, match=r"crafting_mode is 'test'; expected one of 'eval'"):
        kr.RobustModel(tiny_classifier, FGSM, Adversarial(), crafting_mode="test")
    for seed in (None, 1.5, "1", (1, 2), True):
        with pytest.raises(ValueError, match=r"seed is .*an integer"):
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
        (lambda y: y + 0.5, TypeError, r"dtype float.*one-hot.*argmax"),
        (lambda y: y[:, None, None], ValueError, r"one class number per image"),
        (lambda y: y * 1.0, TypeError, r"Labels have dtype float"),
        (lambda y: None, ValueError, r"no labels"),
    ],
)
def test_labels_are_refused(make_robust, make_classifier, make_batch, labels, error, match, eager):
    x, y = make_batch(8)
    model = make_robust(make_classifier(), eager=eager)
    with pytest.raises(error, match=match):
        model.fit(x, labels(y), verbose=0)


def test_images_of_whole_numbers_are_refused(make_robust, make_classifier, make_batch):
    x, y = make_batch(8)
    with pytest.raises(TypeError, match=r"Divide uint8 images by 255"):
        make_robust(make_classifier(), eager=False).fit((x * 255).astype("uint8"), y, verbose=0)


@pytest.mark.parametrize("labels", [lambda y: y.astype("uint8"), lambda y: y[:, None]])
def test_labels_as_keras_data_sets_have_them(
    make_robust, fit_once, make_classifier, make_batch, labels
):
    """CIFAR-10 of `keras.datasets`: uint8, and a column."""
    x, y = make_batch(8)
    plain, odd = (make_robust(make_classifier(dropout=0)) for _ in range(2))
    assert fit_once(odd, x, labels(y)) == fit_once(plain, x, y)
