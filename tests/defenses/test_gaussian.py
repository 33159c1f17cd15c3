"""Training under Gaussian noise, and on SmoothAdv's images."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.inputs import as_seed

BALL = kr.L2Ball(0.3)


def test_one_step(one_step, of_label):
    """CE(x + sigma n) + 1/2 CE(x)."""
    one_step(
        lambda classifier: kr.defenses.gaussian(classifier, sigma=0.5, clean_weight=0.5),
        lambda clean, noisy, y: {
            "adversarial": -of_label(noisy, y).mean(),
            "clean": -0.5 * of_label(clean, y).mean(),
        },
    )


def test_one_step_on_images_of_smooth_adv(one_step, of_label):
    one_step(
        lambda classifier: kr.defenses.gaussian(classifier, BALL, sigma=0.5, samples=3, steps=2),
        lambda _, noisy, y: {"adversarial": -of_label(noisy, y).mean()},
    )


def test_noise_is_gaussian_and_not_clipped(make_linear):
    model = kr.defenses.gaussian(make_linear(np.eye(4)), sigma=0.7)
    x = tf.ones([20_000, 4, 1, 1])
    noise = (model.craft(x, tf.zeros([20_000], tf.int32)) - x).numpy().reshape(-1, 4)
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(noise.T), 0.49 * np.eye(4), atol=0.02)
    later = model.craft(x, tf.zeros([20_000], tf.int32), seed=[1, 2]) - x
    assert abs(np.corrcoef(noise.ravel(), later.numpy().ravel())[0, 1]) < 0.02


def test_it_trains_under_noise_that_the_attack_saw(tiny_classifier, tiny_batch):
    x, y = map(tf.constant, tiny_batch)
    model = kr.defenses.gaussian(
        tiny_classifier, BALL, sigma=0.2, samples=3, steps=2, step_size=0.1
    )
    attack = kr.attacks.smooth_adv(kr.attacks.pgd(BALL, 2, 0.1), 0.2, 3)
    assert model.attack.attack == attack
    seed = as_seed(9)
    expected = attack(tiny_classifier, x, y, seed=seed) + attack.noise(x, seed)[:, 0]
    np.testing.assert_allclose(model.craft(x, y, seed), expected, atol=1e-6)


def test_a_warm_up_is_of_the_radius_and_not_of_the_noise(tiny_classifier, tiny_batch):
    model = kr.defenses.gaussian(
        tiny_classifier, BALL, sigma=0.2, samples=2, steps=1, radius_warmup=4
    )
    assert float(model.attack_at(1, tf.float32).attack.ball.radius) == pytest.approx(0.15)
    assert model.attack_at(1, tf.float32).sigma == 0.2
    x, y = map(tf.constant, tiny_batch)
    model = kr.defenses.gaussian(tiny_classifier, sigma=0.2, radius_warmup=4)
    plain = kr.defenses.gaussian(tiny_classifier, sigma=0.2)
    np.testing.assert_array_equal(model.craft(x, y), plain.craft(x, y))


def test_validation(tiny_classifier):
    model = kr.defenses.gaussian(tiny_classifier, BALL, samples=2, steps=4)
    assert model.validation_attack == kr.attacks.pgd(BALL, 4)
    assert kr.defenses.gaussian(tiny_classifier).validation_attack.name == "Gaussian noise"
    own = kr.attacks.fgsm(BALL)
    assert kr.defenses.gaussian(tiny_classifier, validation_attack=own).validation_attack == own


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"sigma": 0}, "gaussian: sigma is 0; expected a finite number > 0"),
        ({"samples": 1.5}, "gaussian: samples is 1.5"),
        ({"samples": 2}, "there is no ball to attack in"),
        ({"clean_weight": -1}, "clean_weight is -1"),
    ],
)
def test_refused(tiny_classifier, settings, match):
    with pytest.raises(ValueError, match=match):
        kr.defenses.gaussian(tiny_classifier, **settings)


@pytest.mark.slow
def test_it_certifies_more_digits_than_standard_training():
    train, _, test = kr.data.load("digits", batch_size=64)
    x, y = (np.concatenate(part) for part in zip(*test.as_numpy_iterator(), strict=True))
    accuracies = []
    for defense in (kr.defenses.standard, lambda c: kr.defenses.gaussian(c, sigma=0.5)):
        keras.utils.set_random_seed(0)
        model = defense(kr.models.mlp((8, 8, 1), 10, hidden=(128,)))
        model.compile(keras.optimizers.Adam(2e-3))
        model.fit(train, epochs=20, verbose=0)
        found = kr.models.smoothed(model, 0.5).certify(x, 1000, batch_size=5000)
        accuracies.append(found.accuracy(y, 0.5))
    assert accuracies[1] > accuracies[0] + 0.05
