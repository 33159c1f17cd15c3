"""Comparison with the numbers of an independent float64 implementation; see README.md."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust import losses
from keras_robust.attacks.crafting import objectives
from keras_robust.attacks.crafting.gradient_ascent import GradientAttack
from keras_robust.attacks.crafting.step_rules import FixedStep
from keras_robust.defenses.mart import Mart
from keras_robust.defenses.trades import Trades

HERE = pathlib.Path(__file__).parent
SOURCES = {"copy": HERE, "shared": HERE.parents[2] / "shared" / "golden"}


def equal(found, expected, **kwargs):
    np.testing.assert_allclose(found, expected, **{"rtol": 1e-6, "atol": 1e-8, **kwargs})


def test_the_copy_is_a_copy():
    """The numbers here are those of the whole set, to the bit."""
    if not SOURCES["shared"].is_dir():
        pytest.skip("the whole set is not beside the repository")
    for path in HERE.glob("*.npz"):
        with np.load(path) as copy, np.load(SOURCES["shared"] / path.name) as original:
            for key in copy:
                np.testing.assert_array_equal(copy[key], original[key])


# Losses on logits.


def test_cross_entropy_and_kl(load):
    d = load("trades_mart")
    equal(losses.cross_entropy(d["logits_nat"], d["labels"]), d["ce_nat"])
    equal(losses.cross_entropy(d["logits_adv"], d["labels"]), d["ce_adv"])
    equal(losses.kl_divergence(d["logits_nat"], d["logits_adv"]), d["kl_nat_adv_per_sample"])
    equal(losses.kl_divergence(d["logits_adv"], d["logits_nat"]), d["kl_adv_nat_per_sample"])


def offset(logits, labels):
    """What the published constants of MART change: log(1 - p_k) - log(1.0001 - p_k + 1e-12)."""
    p = tf.nn.softmax(logits).numpy()
    np.put_along_axis(p, labels.numpy()[:, None], 0, axis=1)
    return np.log(1 - p.max(axis=1)) - np.log(1.0001 - p.max(axis=1) + 1e-12)


@pytest.mark.parametrize("side", ["nat", "adv"])
def test_boosted_cross_entropy(load, side):
    d = load("trades_mart")
    logits, labels = d[f"logits_{side}"], d["labels"]
    equal(
        losses.boosted_cross_entropy(logits, labels),
        d[f"bce_{side}"] + offset(logits, labels),
    )


def test_losses_of_auto_attack(load):
    d = load("aa_losses")
    z, y = d["logits"], d["labels"]
    equal(losses.cross_entropy(z, y), d["ce"])
    equal(losses.dlr(z, y), d["dlr"])
    equal(losses.margin(z, y), d["cw_margin_raw"])
    equal(-losses.margin(z, y), d["square_margin"])
    for kind in ("second", "rank"):
        targets = d[f"target_{kind}"]
        equal(losses.targeted_dlr(z, y, targets), d[f"dlr_targeted_{kind}"])
        aimed = objectives.Targeted("cross_entropy")(lambda x: {"logits": x}, z, y, targets)
        equal(aimed(z), d[f"ce_targeted_{kind}"])


def gradient(function, *inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
    return tape.gradient(value, inputs)


def test_gradients_of_auto_attack(load):
    d = load("aa_losses")
    z, y = d["logits"], d["labels"]
    equal(gradient(lambda z: losses.dlr(z, y), z)[0], d["d_dlr"])
    for kind in ("second", "rank"):
        targets = d[f"target_{kind}"]
        (found,) = gradient(lambda z, t=targets: losses.targeted_dlr(z, y, t), z)
        equal(found, d[f"d_dlr_targeted_{kind}"])


# Losses of defenses.


def mean_total(loss, d, clean=None, adversarial=None):
    outputs = [{"logits": z} for z in (adversarial, clean)]
    return tf.reduce_mean(kr.losses.total(loss(d["labels"], *outputs)))


@pytest.mark.parametrize("beta", [1, 6])
def test_trades(load, beta):
    d = load("trades_mart")
    found = mean_total(Trades(float(beta)), d, d["logits_nat"], d["logits_adv"])
    equal(found, d[f"trades_total_beta{beta}"])


@pytest.mark.parametrize("beta", [1, 5, 6])
def test_mart(load, beta):
    d = load("trades_mart")
    found = mean_total(Mart(float(beta)), d, d["logits_nat"], d["logits_adv"])
    equal(found, d[f"mart_official_beta{beta}"])


def test_mart_on_clean_images(load):
    """The thesis's reading, but for the offsets of the published logarithm."""
    d = load("trades_mart")
    found = mean_total(Mart(5.0, "clean"), d, d["logits_nat"], d["logits_adv"])
    correction = offset(d["logits_nat"], d["labels"]).mean()
    equal(found, d["mart_text_beta5"] + correction)


@pytest.mark.parametrize(
    ("loss", "name"), [(Trades(6.0), "trades6"), (Mart(5.0), "mart_official5")]
)
def test_gradients_through_both_predictions(load, loss, name):
    d = load("trades_mart")
    clean, adversarial = gradient(
        lambda clean, adversarial: mean_total(loss, d, clean, adversarial),
        d["logits_nat"],
        d["logits_adv"],
    )
    equal(clean, d[f"d_{name}_d_logits_nat"])
    equal(adversarial, d[f"d_{name}_d_logits_adv"])


def test_per_example_losses(load):
    d = load("trades_mart")
    clean, adversarial = {"logits": d["logits_nat"]}, {"logits": d["logits_adv"]}
    for loss, name in (
        (kr.losses.Adversarial(clean_weight=1.0), "pgd_beta1"),
        (kr.losses.Adversarial(), "pgd_nonat_beta1"),
        (Trades(6.0), "trades_beta6"),
    ):
        terms = loss(d["labels"], adversarial, clean)
        equal(kr.losses.total(terms), d[f"g_udr_{name}"])


# Attacks on a small network.


@dataclasses.dataclass(frozen=True)
class Given:
    """Starts at `x + noise`, wherever that is."""

    noise: Any

    def __call__(self, ball, x, seed):
        return x + self.noise


def network(d):
    def forward(x):
        return {"logits": tf.tanh(x @ d["W1"] + d["b1"]) @ d["W2"] + d["b2"]}

    return forward


@pytest.mark.parametrize(
    ("objective", "noise", "scale", "expected"),
    [
        (objectives.LabelLoss(), "noise_uniform", 1.0, "xadv_pgd_ce_unclipped_start"),
        (objectives.LabelLoss(), "delta0_clipped_start", 1.0, "xadv_pgd_ce_clipped_start"),
        (objectives.Divergence(), "noise_randn", 0.001, "xadv_trades_kl"),
    ],
)
@pytest.mark.parametrize("graph", [False, True])
def test_attacks(load, objective, noise, scale, expected, graph):
    d = load("pgd_attacks")
    attack = GradientAttack(
        kr.LinfBall(float(d["eps"])),
        objective,
        FixedStep(float(d["eta"])),
        int(d["steps"]),
        Given(scale * d[noise]),
    )
    run = attack.compiled(network(d)) if graph else lambda x, y: attack(network(d), x, y)
    equal(run(d["x"], d["y"]), d[expected])
