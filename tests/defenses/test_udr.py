"""UDR: what it takes of its base, and how its dual variable is learned."""

from __future__ import annotations

import contextlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust import DualVariable
from keras_robust.attacks.crafting.initialization import AtInput, Uniform
from keras_robust.attacks.crafting.step_rules import SoftBallStep
from keras_robust.core.config import replace

BALL = kr.LinfBall(0.1)
BASES = ["pgd_at", "trades", "mart"]


def udr(classifier, base="pgd_at", **settings):
    settings = {"steps": 3, "step_size": 0.05, **settings}
    return kr.defenses.udr(classifier, BALL, base=base, **settings)


@pytest.mark.parametrize("base", BASES)
def test_loss_objective_and_validation_are_those_of_the_base(make_classifier, base):
    hard = getattr(kr.defenses, base)(make_classifier(), BALL, steps=3, step_size=0.05)
    soft = udr(make_classifier(), base)
    assert soft.robust_loss == hard.robust_loss
    assert soft.validation_attack == hard.validation_attack
    assert (soft.attack.objective, soft.attack.steps) == (hard.attack.objective, 3)
    assert soft.attack.step_rule == SoftBallStep(0.05)
    assert soft.attack.initialization == Uniform()


def test_options_reach_the_base(make_classifier):
    model = udr(
        make_classifier(),
        "mart",
        boosted_on="clean",
        beta=2.0,
        tau=0.3,
        penalty="linf",
        push="gradient",
        seed=5,
        microbatches=2,
        weight_perturbation=kr.AWP(0.02),
    )
    assert model.robust_loss.beta == 2.0 and model.robust_loss.boosted_on == "clean"
    assert model.attack.step_rule == SoftBallStep(0.05, tau=0.3, penalty="linf", push="gradient")
    assert (model.seed, model.microbatches, model.weight_perturbation.gamma) == (5, 2, 0.02)


def test_images_may_leave_the_ball_but_not_the_range(make_classifier, make_batch):
    x, y = map(tf.constant, make_batch(8))
    x_adv = udr(make_classifier(), dual=DualVariable(initial_value=0.0)).craft(x, y)
    assert np.abs(x_adv - x).max() > 0.11
    assert x_adv.numpy().min() >= 0 and x_adv.numpy().max() <= 1


def test_a_multiplier_that_projects_trains_as_the_base(make_classifier, make_batch, fit_once):
    """With tau of one step and lambda kept at 1, UDR over PGD-AT is PGD-AT."""
    x, y = make_batch(8)
    soft = udr(make_classifier(dropout=0), tau=0.05, dual=DualVariable(learning_rate=0.0))
    hard = kr.defenses.pgd_at(make_classifier(dropout=0), BALL, steps=3, step_size=0.05)
    for model in (soft, hard):
        model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
        fit_once(model, x, y)
    pairs = zip(soft.classifier.get_weights(), hard.classifier.get_weights(), strict=True)
    for found, value in pairs:
        np.testing.assert_allclose(found, value, atol=1e-6)


@pytest.mark.parametrize(("period", "steps"), [(1, [0, 1, 2, 3]), (2, [0, 2])])
def test_the_dual_variable_descends(make_classifier, period, steps):
    """lambda - 0.5 (0.1 - mean |delta|), the mean over the batches since the last step."""
    model = udr(make_classifier(), dual=DualVariable(0.3, 0.5, period))
    x = tf.zeros([2, 6, 6, 1])
    sizes, expected, collected = [0.3, 0.05, 0.0, 0.2], 0.3, []
    for step, size in enumerate(sizes):
        model.step.assign_add(1)
        model.after_update(x, x + size)
        collected.append(size)
        if step in steps:
            expected = max(expected - 0.5 * (0.1 - np.mean(collected)), 0)
            collected = []
        assert float(model.dual) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("distance", ["l1", "linf"])
def test_the_cost_is_that_of_the_pixels_that_may_change(make_classifier, distance):
    """A third of the pixels, which change by half of their fraction 0.5 of the radius: 0.05."""
    mask = np.zeros([6, 6, 1])
    mask[:2] = 0.5
    model = kr.defenses.udr(
        make_classifier(), kr.replace(BALL, mask=mask), base="pgd_at", steps=1,
        dual=DualVariable(0.3, 0.5, distance=distance),
    )  # fmt: skip
    x = tf.zeros([2, 6, 6, 1])
    model.step.assign_add(1)
    model.after_update(x, x + 0.05 * mask)
    assert float(model.dual) == pytest.approx(0.3 - 0.5 * (0.1 - 0.05), rel=1e-5)


def test_the_radius_of_a_warm_up_is_the_steps_own(make_classifier):
    """With 4 steps of warm-up, the first perturbations lie in a quarter of the radius."""
    model = udr(make_classifier(), dual=DualVariable(0.3, 0.5), radius_warmup=4)
    x, expected = tf.zeros([2, 6, 6, 1]), 0.3
    for share in (0.25, 0.5, 0.75, 1.0, 1.0):
        crafted = model.training_attack(tf.float32).ball.radius
        assert float(crafted) == pytest.approx(0.1 * share)
        model.step.assign_add(1)
        model.after_update(x, x + 0.06)
        expected -= 0.5 * (0.1 * share - 0.06)
        assert float(model.dual) == pytest.approx(expected, rel=1e-5)


def test_a_penalty_that_does_not_hold_warns(make_classifier):
    """Lambda / 2 is the step back at the default temperature; the diameter is 0.2."""
    with pytest.warns(UserWarning, match=r"moves the largest pixel back by .* = 0.5 .*is 0.2: "):
        udr(make_classifier(), penalty="linf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        udr(make_classifier(), penalty="linf", tau=0.3)
        udr(make_classifier(), penalty="l2")
        udr(make_classifier())


def test_it_is_never_negative(make_classifier, make_batch):
    model = udr(make_classifier(), dual=DualVariable(initial_value=0.01, learning_rate=10.0))
    model.compile(keras.optimizers.SGD(0.01))
    logs = model.fit(*make_batch(8), batch_size=2, epochs=2, verbose=0).history
    assert float(model.dual) >= 0 and min(logs["dual"]) >= 0


def test_it_is_saved_and_resumes(make_classifier, make_batch, tmp_path):
    x, y = make_batch(8)
    model = udr(make_classifier(dropout=0), dual=DualVariable(period=3))
    model.compile(keras.optimizers.Adam(0.01))
    fit = {"batch_size": 2, "shuffle": False, "verbose": 0}
    model.fit(x, y, **fit)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.dual_rule == DualVariable(period=3)
    for each in (model, loaded):
        each.fit(x, y, **fit)
    assert float(model.dual) != 1.0
    for found, value in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, value)


@pytest.mark.slow
def test_replicas_agree_with_one_device(two_replicas, make_classifier, make_batch):
    """The dual variable, weights, and AWP, on batches that divide in unequal parts."""
    x, y = make_batch(13)
    ends = []
    for scope in (contextlib.nullcontext(), two_replicas.scope()):
        with scope:
            model = udr(
                make_classifier(dropout=0),
                dual=DualVariable(learning_rate=0.5, distance="linf"),
                weight_perturbation=kr.AWP(0.01),
            )
            model.attack = replace(model.attack, initialization=AtInput())
            model.compile(keras.optimizers.SGD(0.1))
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
        model.fit(data, epochs=2, verbose=0)
        ends.append([*model.get_weights(), float(tf.convert_to_tensor(model.dual))])
    duals = two_replicas.experimental_local_results(model.dual.value)
    assert len({float(value) for value in duals}) == 1
    for found, value in zip(*ends, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"initial_value": -1.0}, "initial_value is -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"period": 0}, "period is 0; expected an integer >= 1"),
        ({"distance": "l2"}, "distance is 'l2'; expected one of 'l1', 'linf'"),
    ],
)
def test_what_the_dual_refuses(settings, says):
    with pytest.raises(ValueError, match=says):
        DualVariable(**settings)


def test_what_is_refused(make_classifier):
    with pytest.raises(ValueError, match="tau is 0"):
        udr(make_classifier(), tau=0.0)
    for base in (kr.defenses.standard, kr.defenses.wrm):
        with pytest.raises(ValueError, match="does not take fixed steps in a ball"):
            kr.defenses.udr(make_classifier(), BALL, base=base)
    with pytest.raises(TypeError, match="base is None; expected a defense"):
        kr.defenses.udr(make_classifier(), BALL, base=None)
    with pytest.raises(TypeError, match="udr is defined in Linf; ball is L2Ball"):
        kr.defenses.udr(make_classifier(), kr.L2Ball(0.1), base=kr.defenses.trades)
