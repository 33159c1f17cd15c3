"""Supervised contrast: numbers worked out by hand, and batches that have no pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.losses.contrastive import SELECTIONS, SIMILARITIES, Contrastive, Views, select

# Four images of classes 0, 0, 1, 1; the second clean and the last two adversarial ones are wrong.
Y = tf.constant([0, 0, 1, 1])
CLEAN, MOVED = [0, 1, 1, 1], [0, 0, 0, 2]


def outputs(latents, predictions):
    return {
        "features": tf.constant(latents, tf.float32),
        "logits": tf.one_hot(predictions, 3),
    }


def both(latents=None, moved=None):
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(4, 5)) if latents is None else latents
    moved = rng.normal(size=(4, 5)) if moved is None else moved
    return outputs(moved, MOVED), outputs(latents, CLEAN)


def test_selections_on_paper():
    """Of anchor 1, clean, of class 0, taken for 1; views are 0 to 3 clean, 4 to 7 adversarial."""
    views = Contrastive()._views(Y, *both())
    positives = {name: select(name, *views)[0][1].numpy() for name in SELECTIONS}
    negatives = {name: select(name, *views)[1][1].numpy() for name in SELECTIONS}
    found = {name: np.flatnonzero(mask).tolist() for name, mask in positives.items()}
    # Of the class: 0, 4, and its counterpart 5; none but the counterpart is "leaked", as 0 and 4
    # are taken for 0.
    alike = {key: [0, 4, 5] for key in ("global", "hard", "soft")}
    assert found == {**alike, "leaked": [5], "instance": [5]}
    found = {name: np.flatnonzero(mask).tolist() for name, mask in negatives.items()}
    # Of class 1: 2, 3, 6, 7. Taken for class 0: 6. Taken for class 1, as the anchor is: 2, 3.
    # Without labels all other images are negatives.
    alike = {"hard": [6], "soft": [2, 3], "leaked": [2, 3]}
    assert found == {"global": [2, 3, 6, 7], **alike, "instance": [0, 2, 3, 4, 6, 7]}


def test_a_batch_on_paper():
    """Two images of two classes, cosines 1 and 0: all latents of a class are one direction.

    Each anchor has its counterpart as only positive, with cosine 1, and two negatives with cosine
    0: its loss is log(1 + 2 exp(-1 / tau)); an image has two anchors.
    """
    clean, moved = outputs([[1, 0], [0, 2]], [0, 1]), outputs([[3, 0], [0, 4]], [0, 1])
    terms = Contrastive("global", temperature=0.5, weight=3.0)(tf.constant([0, 1]), moved, clean)
    expected = 3 * 2 * math.log(1 + 2 * math.exp(-2))
    np.testing.assert_allclose(terms["contrastive"], [expected] * 2, rtol=1e-6)
    assert terms["positives"].numpy().tolist() == [1, 1]
    assert terms["negatives"].numpy().tolist() == [2, 2]
    # The counterpart of a clean anchor is adversarial, that of an adversarial one is clean; of the
    # two views of the other image one is adversarial.
    assert terms["adversarial_positives"].numpy().tolist() == [0.5, 0.5]
    assert terms["adversarial_negatives"].numpy().tolist() == [1, 1]


def value_and_gradient(loss, y, z, z_adv):
    moved, clean = both(z, z_adv)
    inputs = [clean["features"], moved["features"]]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = tf.reduce_mean(
            loss(y, {**moved, "features": inputs[1]}, {**clean, "features": inputs[0]})[
                "contrastive"
            ]
        )
    return value.numpy(), [g.numpy() for g in tape.gradient(value, inputs)]


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize(
    ("y", "latents"),
    [
        ([0, 0, 1, 1], np.ones([4, 5])),  # identical
        ([0, 0, 1, 1], np.zeros([4, 5])),  # without a direction
        ([1, 1, 1, 1], None),  # one class, so no negatives
        ([0, 1, 2, 3], None),  # no positives but the own counterpart
        ([0, 0, 1, 1], 1e4 * np.eye(4, 5)),
    ],
    ids=["identical", "zero", "one class", "no two alike", "large"],
)
def test_it_is_finite_with_a_finite_gradient(similarity, selection, y, latents):
    loss = Contrastive(selection, similarity)
    value, gradients = value_and_gradient(loss, tf.constant(y), latents, latents)
    assert np.isfinite(value) and value >= -1e-6
    assert all(np.isfinite(g).all() for g in gradients)


def test_no_pairs_are_no_loss():
    views = Contrastive()._views(Y, *both())
    nothing = tf.zeros([8, 8], bool)
    similarity = SIMILARITIES["cosine"](views[0].latents, views[1].latents)
    np.testing.assert_array_equal(kr.losses.contrast(similarity, nothing, nothing, 0.07), 0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    moved, clean = both()
    halves = [{**o, "features": tf.cast(o["features"], dtype)} for o in (moved, clean)]
    found = Contrastive("global")(Y, *halves)["contrastive"]
    assert found.dtype == tf.float32
    rounded = [{**o, "features": tf.cast(o["features"], tf.float32)} for o in halves]
    expected = Contrastive("global")(Y, *rounded)["contrastive"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_masks_carry_no_gradient_to_predictions():
    moved, clean = both()
    with tf.GradientTape() as tape:
        tape.watch((moved["logits"], clean["logits"]))
        value = Contrastive("leaked")(Y, moved, clean)["contrastive"]
    assert tape.gradient(value, (moved["logits"], clean["logits"])) == (None, None)


def test_the_projection_is_compared_if_asked_for():
    moved, clean = both()
    projected = [{**o, "projection": o["features"][:, :2]} for o in (moved, clean)]
    found = Contrastive("global", latent="projection")(Y, *projected)["contrastive"]
    cut = [{**o, "features": o["features"][:, :2]} for o in (moved, clean)]
    np.testing.assert_array_equal(found, Contrastive("global")(Y, *cut)["contrastive"])


def test_bad_settings_are_refused():
    for settings, text in [
        (
            {"selection": "all"},
            "selection is 'all'; expected one of 'global', 'hard', 'soft', 'leaked'",
        ),
        (
            {"similarity": "l3"},
            "similarity is 'l3'; expected one of 'cosine', 'dot', 'l1', 'l2', 'linf'",
        ),
        ({"temperature": 0}, "temperature is 0; expected a finite number > 0"),
        ({"weight": -1}, "weight is -1; expected a finite number >= 0"),
    ]:
        with pytest.raises(ValueError, match=text):
            Contrastive(**settings)
    with pytest.raises(ValueError, match="selection is 'all'"):
        select("all", *[Views(*[tf.zeros([1])] * 5)] * 2)
