"""CCE and ADP beside an independent float64 implementation."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import detection, losses
from keras_robust.defenses.adp import AdaptiveDiversity, log_det_diversity
from keras_robust.defenses.cce import CollaborativeCrossEntropy
from keras_robust.defenses.ensemble_at import EnsembleAdversarial
from keras_robust.evaluation.transfer import EnsembleTransfer, correct_subsets
from keras_robust.losses import uncertainty
from keras_robust.losses.robust_loss import total

MODES = {"pm1_dm1": (1.0, 1.0), "pm0_dm5": (0.0, 5.0), "pm0_dm0": (0.0, 0.0)}
members = pytest.mark.parametrize("count", [2, 3])


def equal(found, expected, **kwargs):
    np.testing.assert_allclose(found, expected, **{"rtol": 1e-6, "atol": 1e-8, **kwargs})


def with_gradients(loss, d, clean, adversarial):
    """The sum of the terms, and the gradients of its mean in both arrays as they were given.

    `clean` is `[members, batch, classes]`, `adversarial` `[members, (sources,) batch, classes]`.
    """
    with tf.GradientTape() as tape:
        tape.watch([clean, adversarial])
        order = {3: [1, 0, 2], 4: [1, 2, 0, 3]}  # to [(sources,) batch, members, classes]
        outputs = [
            {"member_logits": tf.transpose(z, order[z.shape.rank])} for z in (adversarial, clean)
        ]
        values = total(loss(d["labels"], *outputs))
        mean = tf.reduce_mean(values)
    return values, *tape.gradient(mean, [clean, adversarial])


@members
@pytest.mark.parametrize("mode", MODES)
def test_cce(load, count, mode):
    d = load(f"cce_n{count}")
    values, d_clean, d_adv = with_gradients(
        CollaborativeCrossEntropy(*MODES[mode]), d, d["clean_logits"], d["adv_logits"]
    )
    equal(values, tf.reduce_sum(d[f"text_loss_{mode}"], axis=0))
    equal(tf.reduce_mean(values), d[f"text_total_{mode}"])
    equal(d_clean, d[f"text_d_clean_{mode}"])
    equal(d_adv, d[f"text_d_adv_{mode}"])


@members
def test_the_soft_indicator_carries_no_gradient(load, count, monkeypatch):
    """With one it is another loss: the numbers of that one are met once nothing is stopped."""
    d = load(f"cce_n{count}")
    arguments = (CollaborativeCrossEntropy(1.0, 1.0), d, d["clean_logits"], d["adv_logits"])
    _, _, stopped = with_gradients(*arguments)
    monkeypatch.setattr(tf, "stop_gradient", lambda x: x)
    _, _, flowing = with_gradients(*arguments)
    equal(stopped, d["text_d_adv_pm1_dm1"])
    equal(flowing, d["text_d_adv_nostopgrad_pm1_dm1"])
    assert np.abs(stopped - flowing).max() > 1e-3


@members
def test_ensemble_at(load, count):
    d = load(f"cce_n{count}")
    values, _, _ = with_gradients(
        EnsembleAdversarial(), d, d["clean_logits"], d["adv_logits"][:, 0]
    )
    equal(values, d["adv_en_loss"])


@members
def test_adp(load, count):
    d = load(f"adp_n{count}")
    loss = AdaptiveDiversity(float(d["alpha"]), float(d["beta"]))
    values, d_clean, d_adv = with_gradients(loss, d, d["clean_logits"], d["adv_logits"])
    equal(values, d["loss_total"])
    equal(d_clean, d["d_mean_d_clean"])
    equal(d_adv, d["d_mean_d_adv"])


@members
@pytest.mark.parametrize("side", ["clean", "adv"])
def test_parts_of_adp(load, count, side):
    d = load(f"adp_n{count}")
    z = tf.transpose(d[f"{side}_logits"], [1, 0, 2])
    equal(losses.entropy(losses.log_mean_probability(z)), d[f"ens_entropy_{side}"])
    equal(log_det_diversity(z, d["labels"]), d[f"log_det_{side}"])


def test_metrics_of_transfer(load):
    d = load("cce_metrics")
    probabilities, y = d["transfer_probs"].numpy(), d["labels"].numpy()
    everybody = np.concatenate([probabilities, probabilities.mean(axis=1, keepdims=True)], axis=1)
    right = everybody.argmax(axis=-1) == y  # [sources, targets, images]
    found = EnsembleTransfer(
        ("1", "2", "ensemble"), tuple(map(tuple, right.mean(axis=-1))), (1.0,) * 3,
        attack="", radius=0.0, samples=len(y), seed=0, subsets=correct_subsets(right[-1, :-1]),
    )  # fmt: skip
    for key, (source, target) in {
        "a11": ("1", "1"),
        "a12": ("1", "2"),
        "a21": ("2", "1"),
        "a22": ("2", "2"),
        "a_en_en": ("ensemble", "ensemble"),
    }.items():
        equal(found.of(source, target), d[key])
    for pattern in ("11", "01", "10", "00"):
        equal(found.subset(pattern), d[f"S{pattern}"])
    equal(found.transferability, d["T"])
    equal(found.non_transferable, d["nT"])
    equal(found.single, d["a_single"])


def test_detection(load):
    """The entropies but for the offset of their logarithm, 1e-12; the area needs none."""
    d = load("cce_metrics")
    found = {}
    for side in ("clean", "adv"):
        members = tf.transpose(tf.math.log(d[f"probs_{side}"]), [1, 0, 2])
        found[side] = losses.entropy(losses.log_mean_probability(members))
        equal(found[side], d[f"entropy_{side}"])
        score = uncertainty.entropy({"member_logits": members})
        equal(score, d[f"entropy_{side}"], rtol=1e-5, atol=1e-6)  # in float32
    equal(detection.auc(found["clean"], found["adv"]), d["auc"])
    curve = detection.roc(d["entropy_clean"], d["entropy_adv"])
    equal(curve.auc, d["auc"])
