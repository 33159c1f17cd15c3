"""Single-step training: N-FGSM, R-FGSM, FGSM and gradient alignment."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.initialization import AtInput, Uniform
from keras_robust.attacks.crafting.step_rules import FixedStep, UnprojectedStep
from keras_robust.defenses.n_fgsm import AlignedModel, GradientAlignment, cosine
from tests.defenses.conftest import BIAS, RATE, WEIGHTS, slope

BALL = kr.LinfBall(0.1)


@pytest.mark.slow
def test_one_step(one_step, of_label):
    """CE(x_adv) + 1/2 CE(x)."""
    one_step(
        lambda classifier: kr.defenses.n_fgsm(classifier, BALL, clean_weight=0.5),
        lambda clean, moved, y: {
            "adversarial": -of_label(moved, y).mean(),
            "clean": -0.5 * of_label(clean, y).mean(),
        },
    )


@pytest.mark.parametrize(("noise", "alpha"), [(2.0, 0.1), (0.5, 0.15)])
def test_the_step_is_taken_at_the_noise_and_only_clipped_into_the_range(
    make_linear, make_batch, noise, alpha
):
    """clip(clip(x + eta) + alpha sign(grad)); on a linear model the gradient is W (p - y)."""
    x, y = make_batch(40, (4, 1, 1))
    model = kr.defenses.n_fgsm(make_linear(WEIGHTS, BIAS), BALL, noise=noise, step_size=alpha)
    seed = tf.constant([3, 4])
    x_adv = model.craft(tf.constant(x), tf.constant(y), seed).numpy()
    start = kr.LinfBall(0.1 * noise).sample(tf.constant(x), seed).numpy()
    z = start.reshape(40, 4) @ WEIGHTS + BIAS
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    sign = np.sign((p - np.eye(3)[y]) @ WEIGHTS.T).reshape(x.shape)
    np.testing.assert_allclose(x_adv, np.clip(start + alpha * sign, 0, 1), atol=1e-6)
    away = np.abs(x_adv - x).max()
    assert max(0.11, 0.1 * noise) < away <= 0.1 * noise + alpha + 1e-6


def test_settings(tiny_classifier):
    model = kr.defenses.n_fgsm(tiny_classifier, BALL, steps=7, seed=5)
    assert model.attack.step_rule == UnprojectedStep(0.1) and model.attack.steps == 1
    assert model.attack.initialization == Uniform(scale=2.0)
    assert model.validation_attack == kr.attacks.pgd(BALL, 7)
    assert model.robust_loss == kr.losses.Adversarial() and model.seed == 5


def test_r_fgsm_is_pgd_of_one_long_step(tiny_classifier):
    """Wong et al.: a uniform start, a step of 1.25 radii, and a projection."""
    model = kr.defenses.n_fgsm(tiny_classifier, BALL, noise=1.0, project=True)
    wanted = kr.attacks.pgd(BALL, 1, 1.25 * BALL.radius)
    assert kr.replace(model.attack, name=wanted.name) == wanted


def test_fgsm_is_fgsm(tiny_classifier):
    model = kr.defenses.n_fgsm(tiny_classifier, BALL, noise=0.0, project=True, step_size=0.1)
    wanted = kr.attacks.fgsm(BALL)
    assert kr.replace(model.attack, name=wanted.name) == wanted
    assert model.attack.initialization == AtInput() and model.attack.step_rule == FixedStep(0.1)


def test_a_warm_up_scales_noise_and_step(tiny_classifier, tiny_batch):
    """Of 4 steps, the first has a quarter of the radius: at most three quarters of it away."""
    model = kr.defenses.n_fgsm(tiny_classifier, BALL, radius_warmup=4)
    x, y = map(tf.constant, tiny_batch)
    away = float(tf.reduce_max(tf.abs(model.craft(x, y) - x)))
    assert 0.05 < away <= 0.075 + 1e-6


def test_noise_may_be_wider_than_the_range_of_a_pixel(tiny_classifier, tiny_batch):
    x, y = map(tf.constant, tiny_batch)
    x_adv = kr.defenses.n_fgsm(tiny_classifier, kr.LinfBall(0.9), noise=3.0).craft(x, y)
    assert float(tf.reduce_min(x_adv)) >= 0 and float(tf.reduce_max(x_adv)) <= 1


def test_masked_pixels_stay(tiny_classifier, tiny_batch):
    mask = np.zeros([6, 6, 1])
    mask[:2] = 1
    ball = kr.LinfBall(0.1, mask=mask)
    x, y = map(tf.constant, tiny_batch)
    moved = (kr.defenses.n_fgsm(tiny_classifier, ball).craft(x, y) - x).numpy()
    assert np.abs(moved[:, :2]).max() > 0.11 and not moved[:, 2:].any()


def test_alignment_is_a_term_with_a_gradient(make_linear, make_batch):
    """CE(x_adv) + 1/2 (1 - cos) against finite differences: gradients flow through both sides."""
    x, y = make_batch(6, (4, 1, 1))
    model = kr.defenses.n_fgsm(make_linear(WEIGHTS, BIAS), kr.LinfBall(0.4), grad_align=0.5)
    assert isinstance(model, AlignedModel)
    model.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
    x_adv = model.craft(tf.constant(x), tf.constant(y)).numpy()
    seed = tf.random.experimental.stateless_fold_in(model._fold(model.step), 2**31 - 5)
    nearby = kr.LinfBall(0.4).sample(tf.constant(x), seed).numpy()

    def probabilities(parameters, images):
        z = images.reshape(6, 4).astype("float64") @ parameters[:4] + parameters[4]
        return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)

    def terms(parameters):
        a, b = ((probabilities(parameters, images) - np.eye(3)[y]) @ parameters[:4].T
                for images in (x, nearby))  # fmt: skip
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        moved = probabilities(parameters, x_adv)[np.arange(6), y]
        return {
            "adversarial": -np.log(moved).mean(),
            "alignment": 0.5 * (1 - (a * b).sum(axis=1) / norms).mean(),
        }

    parameters = np.concatenate([WEIGHTS, BIAS[None]])
    logs = model.train_on_batch(x, y, return_dict=True)
    expected = terms(parameters)
    assert {name: logs[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert expected["alignment"] > 1e-3
    moved = parameters - RATE * slope(lambda p: sum(terms(p).values()), parameters)
    np.testing.assert_allclose(np.vstack(model.classifier.get_weights()), moved, atol=5e-6)


@pytest.mark.slow
def test_alignment_trains_a_network_with_pools_in_a_graph(make_batch):
    """Second derivatives of convolution, batch norm, ReLU and max pooling; the cosine grows."""
    keras.utils.set_random_seed(1)
    L = keras.layers
    parts = [L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU(), L.MaxPooling2D(), L.Flatten()]
    classifier = kr.models.adapt(keras.Sequential([keras.Input((6, 6, 1)), *parts, L.Dense(3)]))
    model = kr.defenses.n_fgsm(classifier, kr.LinfBall(0.2), grad_align=30.0, steps=1)
    model.compile(keras.optimizers.Adam(0.01))
    history = model.fit(*make_batch(64), batch_size=16, epochs=20, verbose=0).history["alignment"]
    assert np.isfinite(history).all() and history[-1] < 0.7 * history[0]


@pytest.mark.slow
def test_alignment_on_replicas(two_replicas, make_classifier, make_batch):
    with two_replicas.scope():
        model = kr.defenses.n_fgsm(make_classifier(), BALL, grad_align=0.2, steps=1)
        model.compile(keras.optimizers.SGD(0.1))
    logs = model.fit(*make_batch(8), batch_size=8, verbose=0).history
    assert 0 < logs["alignment"][0] <= 0.4 and np.isfinite(logs["loss"]).all()


def test_the_cosine_of_zero_has_a_gradient():
    value = tf.Variable([[0.0, 0.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        found = cosine(value, tf.constant([[1.0, 2.0], [4.0, 3.0]]))
    np.testing.assert_allclose(found, [1.0, 0.96], rtol=1e-6)
    # (b / |b| - cos a / |a|) / |a| of the second, 0 of the first.
    expected = [[0, 0], (np.array([0.8, 0.6]) - 0.96 * np.array([0.6, 0.8])) / 5]
    np.testing.assert_allclose(tape.gradient(found, value), expected, atol=1e-6)


def test_a_model_without_the_gradients_refuses_the_loss(tiny_classifier):
    with pytest.raises(ValueError, match=r"requires the outputs \['alignment'\]"):
        kr.RobustModel(tiny_classifier, kr.attacks.fgsm(BALL), GradientAlignment())


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"noise": -1}, "n_fgsm: noise is -1"),
        ({"grad_align": math.nan}, "n_fgsm: grad_align is nan"),
        ({"step_size": 0}, "n_fgsm: step_size is 0"),
        ({"clean_weight": -1}, "clean_weight is -1"),
    ],
)
def test_refused(tiny_classifier, settings, match):
    with pytest.raises(ValueError, match=match):
        kr.defenses.n_fgsm(tiny_classifier, BALL, **settings)


def test_udr_takes_no_unprojected_base(tiny_classifier):
    with pytest.raises(ValueError, match="does not take fixed steps in a ball"):
        kr.defenses.udr(tiny_classifier, BALL, base="n_fgsm")
