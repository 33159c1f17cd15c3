"""The soft ball, its dual variable and AWP, compared with a float64 implementation."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust import DualVariable
from keras_robust.attacks.crafting import initialization
from keras_robust.attacks.crafting.gradient_ascent import GradientAttack
from keras_robust.attacks.crafting.objectives import LabelLoss
from keras_robust.attacks.crafting.step_rules import Point, SoftBallStep
from keras_robust.core.config import replace
from keras_robust.losses.robust_loss import Adversarial
from keras_robust.threat_models.transport_cost import cost, smoothed, smoothed_gradient

COSTS = {"l1": "l1_mean", "l2": "l2_half_sq", "linf": "linf_max"}


def equal(found, expected, **kwargs):
    np.testing.assert_allclose(found, expected, **{"rtol": 1e-6, "atol": 1e-8, **kwargs})


@pytest.mark.parametrize("kind", COSTS)
def test_costs(load, kind):
    d, name = load("udr_cost"), COSTS[kind]
    delta, radius, tau = d["x_adv"] - d["x"], d[f"eps_{name}"], d["tau"]
    equal(cost(kind, delta), d[f"c_{name}"])
    equal(smoothed(cost(kind, delta), radius, tau), d[f"chat_{name}"])
    equal(smoothed_gradient(kind, delta, radius, tau), d[f"dchat_dxadv_{name}"])


def one_step(d, radius, gradient, bounds=(0.0, 1.0), **settings):
    x = d["x"]
    point = Point(tf.constant(0), x + d["delta_in"], None, gradient)
    rule = SoftBallStep(d["alpha"], **settings)
    return rule.update(kr.LinfBall(radius, bounds), x, point, ())[0]


@pytest.mark.parametrize("tau", ["eta", "2eta"])
@pytest.mark.parametrize("multiplier", [1, 0.5, 0.1, 0])
def test_elementwise_steps(load, tau, multiplier):
    d = load("udr_step")
    settings = {} if tau == "2eta" else {"tau": d["alpha"]}
    x = one_step(d, d["eps"], d["grad"], multiplier=float(multiplier), **settings)
    equal(x - d["x"], d[f"delta_out_tau_{tau}_lam{multiplier}"])


@pytest.mark.parametrize("kind", COSTS)
def test_steps_along_the_cost(load, kind):
    d, name = load("udr_step"), COSTS[kind]
    x = one_step(
        d,
        d[f"alg1_eps_{name}"],
        d["grad"],
        bounds=(-10.0, 10.0),
        multiplier=d["alg1_lambda"],
        tau=d["alg1_tau"],
        penalty=kind,
    )
    equal(x, d[f"alg1_x_out_unclipped_{name}"])


def network(d):
    def forward(x):
        return {"logits": tf.tanh(x @ d["W1"] + d["b1"]) @ d["W2"] + d["b2"]}

    return forward


@pytest.mark.parametrize(
    "key", ["lam1", "lam0.6", "lam0.2", "lam0", "tau2eta_lam1", "tau2eta_lam0.6"]
)
def test_whole_attacks(load, key):
    d = load("udr_attack")
    tau = None if "tau2eta" in key else float(d["alpha"])

    class Given:
        def __call__(self, ball, x, seed):
            return x + d["delta0"]

    for steps in (1, 6):
        attack = GradientAttack(
            kr.LinfBall(float(d["eps"])),
            LabelLoss("cross_entropy"),
            SoftBallStep(float(d["alpha"]), multiplier=float(key.split("lam")[1]), tau=tau),
            steps,
            initialization=Given(),
        )
        equal(attack(network(d), d["x"], d["y"]) - d["x"], d[f"delta_traj_{key}"][steps - 1])


def duals(d, start, dual, tau):
    """The dual variable after each batch, as the model does it."""
    inputs = keras.Input(d["deltas"].shape[2:])
    logits = keras.layers.Dense(2)(inputs)
    classifier = keras.Model(inputs, {"logits": logits, "features": inputs})
    model = kr.defenses.udr(
        classifier, kr.LinfBall(float(d["eps"])), base=kr.defenses.pgd_at, tau=tau,
        dual=DualVariable(start, float(d["lr"]), **dual),
    )  # fmt: skip
    found = []
    for deltas in d["deltas"]:
        model.step.assign_add(1)
        model.after_update(tf.zeros_like(deltas), deltas)
        found.append(float(model.dual))
    return found


def test_the_dual_variable_of_the_released_code(load):
    d = load("udr_lambda")
    settings = {"period": int(d["period"]), "clamp": False}
    equal(duals(d, float(d["lambda0"]), settings, None), d["lambda_code"], rtol=1e-5)


def test_the_dual_variable_of_the_thesis(load):
    d = load("udr_lambda")
    settings = {"distance": "linf", "clamp": False}
    tau = float(d["tau_eq19"])
    equal(duals(d, float(d["lambda0"]), settings, tau), d["lambda_eq19_linf_chat"], rtol=1e-5)


def test_the_dual_variable_below_zero(load):
    """Only if it is enabled: clamped, it ends at 0."""
    d = load("udr_lambda")
    start = float(d["lambda_small0"])
    free = duals(d, start, {"clamp": False}, None)
    equal(free, d["lambda_small_noclamp"], rtol=1e-4, atol=1e-7)
    assert min(free) < 0 <= min(duals(d, start, {}, None))


def test_weight_perturbation(load, keras_float64):
    d = load("udr_awp")
    inputs = keras.Input((16,))
    hidden = keras.layers.Dense(12, "tanh")(inputs)
    logits = keras.layers.Dense(10, dtype="float64")(hidden)
    classifier = keras.Model(inputs, {"logits": logits, "features": hidden})
    classifier.set_weights([d[name].numpy() for name in ("W1", "b1", "W2", "b2")])
    still = replace(
        kr.attacks.pgd(kr.LinfBall(0.1), steps=1), steps=0, initialization=initialization.AtInput()
    )
    still = replace(still, ball=kr.LinfBall(0.1, bounds=(-10.0, 10.0)))
    model = kr.RobustModel(
        classifier, still, Adversarial(), weight_perturbation=kr.AWP(float(d["gamma"]))
    )
    model.compile(keras.optimizers.SGD(float(d["model_lr"])))
    model.fit(d["x_adv"], d["y"], batch_size=8, verbose=0)
    for found, name in zip(classifier.get_weights(), ("W1", "b1", "W2", "b2"), strict=True):
        equal(found, d[f"final_{name}"])


@pytest.fixture
def keras_float64():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(before)
