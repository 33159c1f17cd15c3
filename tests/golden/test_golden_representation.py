"""ADR's terms and supervised contrast beside an independent float64 implementation."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.defenses.adr import Compactness, Confidence
from keras_robust.losses.contrastive import SIMILARITIES, Contrastive, Views, contrast, select
from keras_robust.losses.pairwise_distance import unit
from keras_robust.losses.robust_loss import Adversarial, KLConsistency

CLOSE = {"rtol": 1e-6, "atol": 1e-8}


def equal(found, expected, **kwargs):
    np.testing.assert_allclose(found, expected, **{**CLOSE, **kwargs})


def mean_and_gradients(loss, name, inputs, d):
    """The mean of a term, and its gradient in each of `{kind: {output: tensor}}`."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = tf.reduce_mean(loss(d["labels"], inputs["adversarial"], inputs["clean"])[name])
    return value, tape.gradient(value, inputs, unconnected_gradients="zero")


def latents(d):
    return {
        "clean": {"features": d["z_nat"], "logits": d["logits_nat"]},
        "adversarial": {"features": d["z_adv"], "logits": d["logits_adv"]},
    }


@pytest.mark.parametrize(("name", "key"), [("local", "lc_com"), ("global", "gb_com")])
def test_compactness(load, name, key):
    d = load("adr_terms")
    loss = Compactness(alpha=float(d["alpha"]))
    value, gradients = mean_and_gradients(loss, name, latents(d), d)
    equal(value, d[key])
    for kind, latent in (("clean", "z_nat"), ("adversarial", "z_adv")):
        equal(gradients[kind]["features"], d[f"d_{key}_d_{latent}"])
    assert np.any(gradients["adversarial"]["features"])


@pytest.mark.parametrize(("p", "scale"), [(1, 16.0), (2, 4.0), ("inf", 1.0)])
def test_norms_are_those_of_the_text_but_for_their_scale(load, p, scale):
    """Which sums over the 16 dimensions, where a mean is taken here."""
    d = load("adr_terms")
    loss, outputs = Compactness(p=p, alpha=float(d["alpha"])), latents(d)
    local = loss(d["labels"], outputs["adversarial"], outputs["clean"])["local"]
    equal(scale * tf.reduce_mean(local), d[f"text_lc_com_p{p}"])
    pairs = loss(d["labels"], outputs["clean"], outputs["clean"])["global"]  # clean ones, as there
    equal(scale * tf.reduce_mean(pairs), d[f"text_gb_com_natnat_p{p}"])


def test_smoothness_and_confidence(load):
    d = load("adr_terms")
    value, gradients = mean_and_gradients(
        KLConsistency(through_clean=False), "smoothness", latents(d), d
    )
    equal(value, d["smooth_kl_mean"])
    equal(gradients["clean"]["logits"], d["d_lc_smt_d_logits_nat"])
    equal(gradients["adversarial"]["logits"], d["d_lc_smt_d_logits_adv"])
    value, gradients = mean_and_gradients(Confidence(), "confidence", latents(d), d)
    equal(value, d["conf_adv"] + d["conf_nat"])
    equal(gradients["adversarial"]["logits"], d["d_conf_adv_d_logits_adv"])


def test_the_supervision_of_adr(load):
    d = load("adr_terms")
    terms = Adversarial(clean_weight=1.0)(
        d["labels"], {"logits": d["logits_adv"]}, {"logits": d["logits_nat"]}
    )
    equal(tf.reduce_mean(terms["clean"]), d["ce_nat"])
    equal(tf.reduce_mean(terms["adversarial"]), d["ce_adv"])


def of(d, z=None, z_adv=None):
    """Outputs whose logits predict what the reference predicts."""
    z, z_adv = d["z"] if z is None else z, d["z_adv"] if z_adv is None else z_adv
    predicted = [tf.one_hot(d[name], 10, dtype=tf.float64) for name in ("pred_nat", "pred_adv")]
    clean, adversarial = (
        {"features": latent, "logits": logits}
        for latent, logits in zip((z, z_adv), predicted, strict=True)
    )
    return adversarial, clean


@pytest.mark.parametrize("selection", ["global", "hard", "soft", "leaked"])
def test_contrast_of_the_text(load, selection):
    d = load("ascl_scl")
    terms = Contrastive(selection)(d["labels"], *of(d))
    equal(tf.reduce_mean(terms["contrastive"]), d[f"text_{selection}_cosine_tau0.07_sum"])
    positives, negatives = (
        tf.cast(d[f"n_{kind}_{selection}"], tf.float64) for kind in ("pos", "neg")
    )
    if selection == "leaked":  # the reference counts no counterpart that is predicted otherwise
        lost = tf.cast(d["pred_nat"] != d["pred_adv"], positives.dtype)
        positives += tf.concat([lost, lost], axis=0)
    equal(terms["positives"], tf.reduce_mean(tf.reshape(positives, [2, 8]), axis=0))
    equal(terms["negatives"], tf.reduce_mean(tf.reshape(negatives, [2, 8]), axis=0))


def test_each_anchor_of_the_leaked_text(load):
    d = load("ascl_scl")
    adversarial, clean = of(d)
    views = Contrastive("leaked")._views(d["labels"], adversarial, clean)
    masks = select("leaked", *views)
    similarity = SIMILARITIES["cosine"](views[0].latents, views[1].latents)
    equal(contrast(similarity, *masks, 0.2), d["text_per_anchor_leaked_cosine_tau0.2"])


@pytest.mark.parametrize("selection", ["global", "hard", "soft"])
def test_gradients_of_the_contrast(load, selection):
    """The reference averages over all 2B anchors, which is half of the text's sum."""
    d = load("ascl_scl")
    with tf.GradientTape() as tape:
        tape.watch((d["z"], d["z_adv"]))
        terms = Contrastive(selection)(d["labels"], *of(d))
        value = tf.reduce_mean(terms["contrastive"]) / 2
    for found, latent in zip(
        tape.gradient(value, (d["z"], d["z_adv"])), ("z", "z_adv"), strict=True
    ):
        equal(found, d[f"d_{selection}_cosine_tau0.07_d_{latent}"])


@pytest.mark.parametrize("selection", ["global", "hard", "soft"])
@pytest.mark.parametrize("similarity", ["l1", "l2", "linf"])
def test_similarities(load, selection, similarity):
    d = load("ascl_scl")
    with tf.GradientTape() as tape:
        tape.watch((d["z"], d["z_adv"]))
        terms = Contrastive(selection, similarity, 0.2)(d["labels"], *of(d))
        value = tf.reduce_mean(terms["contrastive"]) / 2
    equal(value, d[f"loss_{selection}_{similarity}_tau0.2"])
    if (selection, similarity) == ("global", "linf"):
        found = tape.gradient(value, (d["z"], d["z_adv"]))
        equal(found[0], d["d_global_linf_tau0.2_d_z"])
        equal(found[1], d["d_global_linf_tau0.2_d_z_adv"])


def test_the_dot_product_of_normalised_latents(load):
    d = load("ascl_scl")
    terms = Contrastive("global", "dot", 0.2)(d["labels"], *of(d, unit(d["z"]), unit(d["z_adv"])))
    equal(tf.reduce_mean(terms["contrastive"]) / 2, d["loss_global_matmul_tau0.2"])


def test_vat(load):
    """The gradients of the reference are those of a mean over classes, too; there are 10."""
    d = load("ascl_scl")
    inputs = {
        "clean": {"logits": d["vat_logits_nat"]},
        "adversarial": {"logits": d["vat_logits_adv"]},
    }
    value, gradients = mean_and_gradients(KLConsistency(), "smoothness", inputs, d)
    equal(value, d["vat_text_samplemean"])
    classes = d["vat_logits_nat"].shape[1]
    equal(gradients["clean"]["logits"], classes * d["d_vat_code_d_logits_nat"])
    equal(gradients["adversarial"]["logits"], classes * d["d_vat_code_d_logits_adv"])


def test_views_know_their_image_and_their_side():
    y = tf.constant([3, 4])
    outputs = {"features": tf.ones([2, 1]), "logits": tf.eye(2)}
    anchors, others = Contrastive()._views(y, outputs, outputs)
    assert isinstance(anchors, Views)
    for views in (anchors, others):
        assert views.images.numpy().tolist() == [0, 1, 0, 1]
        assert views.sides.numpy().tolist() == [0, 0, 1, 1]
        assert views.labels.numpy().tolist() == [3, 4, 3, 4]
        assert views.predictions.numpy().tolist() == [0, 1, 0, 1]
