"""FGSM, R+FGSM, BIM, MIM and PGD: their settings, and their results where those are formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import bim, fgsm, mim, pgd, r_fgsm
from keras_robust.attacks.crafting import initialization, objectives
from keras_robust.attacks.crafting.step_rules import FixedStep, MomentumStep

BALL = kr.LinfBall(0.2)
FACTORIES = {"fgsm": fgsm, "r_fgsm": r_fgsm, "bim": bim, "mim": mim, "pgd": pgd}
every_factory = pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES.keys())

W = np.array([[2.0, -1.0, 0.0], [0.5, 1.0, -1.0], [-1.0, 0.0, 3.0], [0.25, 0.0, -0.5]])
B = np.array([0.1, 0.0, -0.2])


def linear(x):
    return {"logits": x @ tf.constant(W, x.dtype) + tf.constant(B, x.dtype)}


def two_classes(x, bias=0.0):
    """The first two logits alone."""
    return {"logits": x @ tf.constant(W[:, :2]) + bias}


def images(count, low=0.4, high=0.6):
    """Images so gray that no bound is met within a radius of 0.4, and the model's predictions."""
    x = np.random.default_rng(0).uniform(low, high, (count, 4))
    return x, (x @ W + B).argmax(axis=1)


# Settings.


def test_default_step_sizes():
    """2.5 radii in all for PGD, BIM and MIM; the radius for FGSM; its rest for R+FGSM."""
    assert pgd(kr.LinfBall(8 / 255), 10).step_rule.size == 2 / 255
    assert bim(BALL, 5).step_rule.size == 0.1
    assert mim(BALL, 20).step_rule.size == 0.025
    assert fgsm(BALL).step_rule.size == 0.2
    assert r_fgsm(BALL, 0.25).step_rule.size == 0.75 * 0.2
    assert pgd(kr.L2Ball(0.5), 10).step_rule.size == 0.125
    assert pgd(BALL, 0).steps == 0


def test_parts():
    assert pgd(BALL).initialization == initialization.Uniform()
    assert pgd(BALL, initialization="gaussian").initialization == initialization.Gaussian(0.001)
    assert (
        pgd(BALL, initialization="none").initialization
        == bim(BALL).initialization
        == initialization.AtInput()
    )
    assert pgd(
        BALL, initialization=initialization.Gaussian(0.1)
    ).initialization == initialization.Gaussian(0.1)
    assert r_fgsm(BALL, 0.3).initialization == initialization.RandomStep(0.3)
    assert fgsm(BALL).initialization == mim(BALL).initialization == initialization.AtInput()
    assert pgd(BALL, step_size=0.01).step_rule == FixedStep(0.01)
    assert mim(BALL, step_size=0.01, decay=0.9).step_rule == MomentumStep(0.01, 0.9)
    assert fgsm(BALL).steps == r_fgsm(BALL).steps == 1


@every_factory
def test_losses(factory):
    assert factory(BALL).objective == objectives.LabelLoss("cross_entropy")
    assert factory(BALL, loss="dlr").objective == objectives.LabelLoss("dlr")
    assert factory(BALL, loss="margin", targeted=True).objective == objectives.Targeted("margin")
    own = objectives.LabelLoss(labels="predicted")
    assert factory(BALL, loss=own).objective is own
    aimed = objectives.Targeted("dlr")
    assert factory(BALL, loss=aimed, targeted=True).objective is aimed


def test_names():
    """As in reports."""
    attacks = fgsm(BALL), r_fgsm(BALL), bim(BALL), mim(BALL, 5), pgd(BALL, 40)
    assert [a.name for a in attacks] == ["FGSM", "R+FGSM", "BIM-10", "MIM-5", "PGD-40"]


# Results on a linear classifier.


def test_fgsm_crosses_a_boundary_exactly_where_it_is_near():
    """Between two classes the distance to the boundary is the gap over the dual norm of w_o - w_y.

    L-inf: sum |.|; L2: Euclidean; L1, one pixel a step: max |.|.
    """
    x, _ = images(200)
    across = W[:, 0] - W[:, 1]
    bias = 0.5 * np.array([0.0, across.sum()])  # the boundary goes through the grey image
    y = two_classes(x, bias)["logits"].numpy().argmax(axis=1)
    gap = np.abs((x - 0.5) @ across)
    dual = {
        kr.LinfBall: np.abs(across).sum(),
        kr.L2Ball: math.sqrt((across**2).sum()),
        kr.L1Ball: np.abs(across).max(),
    }
    for kind, norm in dual.items():
        distance = gap / norm
        radius = float(np.median(distance))
        x_adv = fgsm(kind(radius))(lambda x: two_classes(x, bias), x, y)
        fooled = two_classes(x_adv, bias)["logits"].numpy().argmax(axis=1) != y
        np.testing.assert_array_equal(fooled, distance < radius)


def test_fgsm_moves_by_the_sign_of_the_gradient():
    """The gradient of the cross-entropy is W (p - e_y)."""
    x, y = images(20)
    logits = x @ W + B
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = x + 0.2 * np.sign((p - np.eye(3)[y]) @ W.T)
    np.testing.assert_allclose(fgsm(BALL)(linear, x, y), expected)


def test_targeted_fgsm_moves_towards_the_target():
    x, y = images(20)
    targets = (y + 1) % 3
    logits = x @ W + B
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = x - 0.2 * np.sign((p - np.eye(3)[targets]) @ W.T)
    np.testing.assert_allclose(fgsm(BALL, targeted=True)(linear, x, y, targets=targets), expected)


def test_r_fgsm_takes_a_random_step_and_then_the_rest():
    """Every pixel is moved by +- fraction r, then by (1 - fraction) r along the gradient."""
    x, y = images(50)
    attack = r_fgsm(BALL, fraction=0.25)
    moved = attack(two_classes, x, np.zeros_like(y), seed=1).numpy() - x
    uphill = np.sign(W[:, 1] - W[:, 0])
    along = (moved * uphill)[:, uphill != 0]
    far, back = np.isclose(along, 0.2), np.isclose(along, 0.1)
    assert (far | back).all() and 0.3 < far.mean() < 0.7


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
def test_a_short_step_raises_every_loss(loss):
    x, y = images(20)
    value = getattr(kr.losses, loss)
    before = value(linear(tf.constant(x))["logits"], y)
    after = value(linear(bim(BALL, 1, 0.001, loss=loss)(linear, x, y))["logits"], y)
    assert (after > before).numpy().all()


def test_kl_raises_the_divergence_and_uses_no_labels():
    x, y = images(20)
    attack = pgd(BALL, 10, loss="kl", initialization="gaussian")
    x_adv = attack(linear, x, y)
    np.testing.assert_array_equal(x_adv, attack(linear, x, (y + 1) % 3))
    clean, moved = linear(tf.constant(x))["logits"], linear(x_adv)["logits"]
    assert (kr.losses.kl_divergence(clean, moved) > 0.01).numpy().all()


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
def test_targeted_losses_raise_the_target(loss):
    four = np.concatenate([W, -W[:, :1]], axis=1)

    def model(x):
        return {"logits": x @ tf.constant(four, x.dtype)}

    x, y = images(20)
    targets = tf.constant((y + 1) % 4)
    x_adv = pgd(BALL, 10, loss=loss, targeted=True)(model, x, y, targets=targets)
    before = kr.losses.cross_entropy(model(tf.constant(x))["logits"], targets)
    assert (kr.losses.cross_entropy(model(x_adv)["logits"], targets) < before).numpy().all()


# Errors.


@every_factory
@pytest.mark.parametrize("loss", ["hinge", "CE", ""])
def test_unknown_losses(factory, loss):
    with pytest.raises(ValueError, match=r"loss is .*'cross_entropy', 'margin', 'dlr'"):
        factory(BALL, loss=loss)


@every_factory
@pytest.mark.parametrize("ball", [8 / 255, None, kr.LinfBall], ids=repr)
def test_a_radius_instead_of_a_ball(factory, ball):
    with pytest.raises(TypeError, match=r"ball is .*expected a threat model.*LinfBall\(8 / 255\)"):
        factory(ball)


@pytest.mark.parametrize("factory", [fgsm, bim, mim])
@pytest.mark.parametrize("loss", ["kl", objectives.Divergence()])
def test_kl_from_the_clean_image(factory, loss):
    with pytest.raises(ValueError, match=r"starts at the clean image.*no gradient"):
        factory(BALL, loss=loss)


@pytest.mark.parametrize("start", ["none", initialization.AtInput()])
@pytest.mark.parametrize("loss", ["kl", objectives.Divergence()])
def test_kl_without_a_random_start(loss, start):
    with pytest.raises(ValueError, match=r"starts at the clean image.*no gradient"):
        pgd(BALL, loss=loss, initialization=start)


@every_factory
def test_targeted_belongs_to_names_of_losses(factory):
    """With an objective it would be ignored, and the attack would not be targeted."""
    with pytest.raises(
        ValueError, match=r"targeted=True was received with the objective .*expected the name"
    ):
        factory(BALL, loss=objectives.LabelLoss("margin"), targeted=True)
    with pytest.raises(ValueError, match=r"'kl'.*has no targets|no gradient"):
        factory(BALL, loss="kl", targeted=True)


@pytest.mark.parametrize("factory", [pgd, bim, mim])
@pytest.mark.parametrize("step_size", [0, -0.1, math.nan, math.inf])
def test_step_sizes(factory, step_size):
    with pytest.raises(ValueError, match=r"step.size is "):
        factory(BALL, 10, step_size)


@pytest.mark.parametrize("factory", [pgd, bim, mim])
@pytest.mark.parametrize("steps", [-1, 2.5, True])
def test_steps(factory, steps):
    with pytest.raises(ValueError, match=r"steps is .*an integer"):
        factory(BALL, steps)


def test_other_arguments():
    with pytest.raises(
        ValueError, match=r"initialization is 'corner'; expected one of 'uniform', 'g"
    ):
        pgd(BALL, initialization="corner")
    with pytest.raises(ValueError, match=r"decay is -1"):
        mim(BALL, decay=-1)
    for fraction in (0, 1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"fraction is .*\(0, 1\)"):
            r_fgsm(BALL, fraction)
    with pytest.raises(TypeError, match="positional"):
        pgd(BALL, 10, 0.1, "margin")
