"""AWP: where the gradient is taken, and that nothing else is touched."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.losses.robust_loss import Adversarial

FGSM = kr.attacks.fgsm(kr.LinfBall(0.1))


def test_kernels_move_by_their_length_and_the_rest_stays():
    weights = [tf.constant([[3.0, 4.0]]), tf.constant([1.0]), tf.constant([[1.0]])]
    gradients = [tf.constant([[0.0, -2e-30]]), tf.constant([5.0]), None]
    moved = kr.AWP(0.1).perturbed(weights, gradients)
    np.testing.assert_allclose(moved[0], [[3.0, 3.5]])
    assert moved[1] is weights[1] and moved[2] is weights[2]


def test_without_a_gradient_nothing_moves():
    weights = [tf.constant([[3.0, 4.0]])]
    np.testing.assert_array_equal(kr.AWP(0.1).perturbed(weights, [tf.zeros([1, 2])])[0], weights[0])


def test_a_tiny_gamma_changes_nothing(make_robust, make_classifier, make_batch, fit_once):
    """Weights, running statistics that moved once, seeds of dropout, logs: as without it."""
    x, y = make_batch(8)
    ends = []
    for rule in (None, kr.AWP(1e-12)):
        model = make_robust(
            make_classifier(), loss=Adversarial(1.0), eager=False, weight_perturbation=rule
        )
        logs = fit_once(model, x, y)
        ends.append([*[v.numpy() for v in model.variables], *logs.values()])
    for found, value in zip(*ends, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)


def test_the_step_starts_at_the_weights_as_they_were(make_classifier, make_batch, fit_once):
    """Decoupled decay shrinks them, not the perturbed ones: without a rate nothing moves."""
    model = kr.RobustModel(make_classifier(), FGSM, Adversarial(), weight_perturbation=kr.AWP(0.5))
    model.compile(keras.optimizers.SGD(0.0, weight_decay=0.5), run_eagerly=True)
    before = [w.numpy() for w in model.trainable_variables]
    fit_once(model, *make_batch(8))
    for found, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(found.numpy(), value)


@pytest.mark.parametrize("gamma", [0, -0.1, float("inf"), float("nan"), True, "0.1"])
def test_an_invalid_gamma_is_refused(gamma):
    with pytest.raises(ValueError, match="AWP: gamma is"):
        kr.AWP(gamma)


def test_a_number_instead_of_awp_is_refused(make_classifier):
    with pytest.raises(TypeError, match="expected None or `keras_robust.AWP"):
        kr.RobustModel(make_classifier(), FGSM, Adversarial(), weight_perturbation=0.01)
