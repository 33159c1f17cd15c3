"""Divergences of latents whose angles are known."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation import Divergence, class_divergence, divergence

BALL = kr.LinfBall(0.1)
FGSM = kr.attacks.fgsm(BALL)


def at(*degrees, length=1.0):
    """Vectors of the plane at given angles."""
    angles = np.radians(degrees)
    return tf.constant(length * np.stack([np.cos(angles), np.sin(angles)], axis=1))


def apart(degrees):
    return 1 - np.cos(np.radians(degrees))


def identity(x):
    return {"logits": x, "features": x}


def test_means_are_over_partners_and_then_over_anchors():
    """Angles 0 and 60 in one class, 90 in the other.

    Own class: 60 for both anchors that have one; the third has none and is left out. Other class:
    90; 30; and for the third the mean of both.
    """
    intra, inter = class_divergence(at(0, 60, 90), tf.constant([0, 0, 1]))
    assert float(intra) == pytest.approx(apart(60))
    both = (apart(90) + apart(30)) / 2
    assert float(inter) == pytest.approx((apart(90) + apart(30) + both) / 3)


def test_attacked_latents_of_others_count_and_ones_own_does_not():
    """With attacked angles 180, 120 and 30, the own class of angle 0 lies at 60 and 120."""
    intra, inter = class_divergence(at(0, 60, 90), tf.constant([0, 0, 1]), at(180, 120, 30))
    own_class = [(apart(60) + apart(120)) / 2, (apart(60) + apart(120)) / 2]  # 0 and 180 from 60
    assert float(intra) == pytest.approx(np.mean(own_class))
    others = [
        (apart(90) + apart(30)) / 2,
        (apart(30) + apart(30)) / 2,
        (apart(90) + apart(30) + apart(90) + apart(30)) / 4,
    ]
    assert float(inter) == pytest.approx(np.mean(others))


def test_lengths_do_not_matter():
    labels = tf.constant([0, 0, 1, 1])
    short = class_divergence(at(0, 10, 80, 95), labels)
    long = class_divergence(at(0, 10, 80, 95, length=1e4), labels)
    np.testing.assert_allclose(short, long, rtol=1e-9)


def test_nothing_to_compare_with_is_no_number():
    intra, inter = class_divergence(at(0, 60), tf.constant([0, 1]))
    assert np.isnan(intra) and float(inter) == pytest.approx(apart(60))
    intra, inter = class_divergence(at(0, 60), tf.constant([0, 0]))
    assert np.isnan(inter) and float(intra) == pytest.approx(apart(60))


def test_latents_that_are_one_are_at_distance_zero_and_zeros_at_one():
    same = tf.ones([4, 3])
    intra, inter = class_divergence(same, tf.constant([0, 0, 1, 1]), same)
    assert float(intra) == pytest.approx(0.0, abs=1e-6) and intra >= 0
    assert float(inter) == pytest.approx(0.0, abs=1e-6) and inter >= 0
    intra, inter = class_divergence(0 * same, tf.constant([0, 0, 1, 1]))
    assert float(intra) == float(inter) == 1.0


def test_half_precision_is_computed_in_float32():
    z = tf.cast(at(0, 1, 90, 91, length=300.0), tf.float16)  # squares beyond float16
    intra, _ = class_divergence(z, tf.constant([0, 0, 1, 1]))
    assert intra.dtype == tf.float32 and float(intra) == pytest.approx(apart(1), rel=0.05)


def batches_of(x, y, size):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(0).uniform(0.2, 0.8, (11, 2)).astype("float32")
    return x, np.arange(11) % 2


def test_batches_are_streamed_and_anchors_count_the_same(data):
    """Batches of 4, 4 and 3: each sums over its own anchors, all of which have partners but one.

    The last batch has the labels 0, 1, 0: the anchor of class 1 is the only one of its class.
    """
    x, y = data
    # FGSM on the logits x lowers the pixel of the label and raises the other one.
    x_adv = x + np.where(np.eye(2)[y] > 0, -0.1, 0.1).astype("float32")
    found = divergence(identity, batches_of(x, y, 4), FGSM)
    parts = [slice(0, 4), slice(4, 8), slice(8, 11)]
    for names, kind in ((("intra", "inter"), x_adv), (("clean_intra", "clean_inter"), None)):
        means = [class_divergence(x[p], y[p], None if kind is None else kind[p]) for p in parts]
        intra, inter = np.array(means).T
        assert getattr(found, names[0]) == pytest.approx(np.average(intra, weights=[4, 4, 2]))
        assert getattr(found, names[1]) == pytest.approx(np.average(inter, weights=[4, 4, 3]))
    unit, unit_adv = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, x_adv))
    assert found.own == pytest.approx(np.mean(1 - (unit * unit_adv).sum(1)), rel=1e-4)
    assert found.samples == 11
    assert found.ratio == pytest.approx(found.intra / found.inter)
    assert found.clean_ratio == pytest.approx(found.clean_intra / found.clean_inter)


def test_a_pair_of_arrays_is_the_same_data(data):
    assert divergence(identity, data, FGSM) == divergence(identity, batches_of(*data, 128), FGSM)


def test_a_limit_stops_the_stream(data):
    x, y = data
    endless = batches_of(x, y, 4).repeat()
    found = divergence(identity, endless, FGSM, limit=6)
    expected = divergence(identity, batches_of(x[:6], y[:6], 4), FGSM)
    assert found == expected and found.samples == 6


def test_model_and_attack_are_traced_once_for_all_batches(data):
    x, y = (np.concatenate([part[:4]] * 6) for part in data)
    calls = []

    def model(x):
        calls.append(x)
        return identity(x)

    divergence(model, batches_of(x, y, 4), FGSM, limit=4)
    few = len(calls)
    assert few > 0 and not any(hasattr(x, "numpy") for x in calls)  # symbols, all of them
    divergence(model, batches_of(x, y, 4), FGSM)
    assert len(calls) == 2 * few


def test_the_seed_is_that_of_the_attack(data):
    attack = kr.attacks.pgd(BALL, 1, step_size=0.01)
    first, again, other = (divergence(identity, data, attack, seed=seed) for seed in (3, 3, 4))
    assert first == again != other


def test_a_robust_model_is_measured_by_its_classifier(tiny_classifier, tiny_batch):
    model = kr.defenses.pgd_at(tiny_classifier, BALL, steps=1)
    assert divergence(model, tiny_batch, FGSM) == divergence(tiny_classifier, tiny_batch, FGSM)


def test_an_attack_that_does_nothing_leaves_the_clean_divergence(tiny_classifier, tiny_batch):
    x, y = tiny_batch
    still = kr.attacks.fgsm(kr.LinfBall(1e-9))
    found = divergence(tiny_classifier, (x, y), still)
    assert found.intra == pytest.approx(found.clean_intra, abs=1e-6)
    assert found.inter == pytest.approx(found.clean_inter, abs=1e-6)
    assert found.own == pytest.approx(0.0, abs=1e-6)


def test_compact_classes_have_the_lower_ratio():
    """The thesis's reading: two tight orthogonal classes against two loose ones."""
    y = tf.constant([0, 0, 1, 1])
    ratios = []
    for spread in (5, 30):
        intra, inter = class_divergence(at(-spread, spread, 90 - spread, 90 + spread), y)
        ratios.append(float(intra / inter))
    assert ratios[0] < 0.05 < 0.3 < ratios[1]


def test_a_ratio_of_nothing_is_no_number():
    assert np.isnan(Divergence(0.0, 0.0, 0.0, 0.0, 0.0, 4).ratio)


@pytest.mark.parametrize(
    ("model", "data", "attack", "error", "text"),
    [
        (lambda x: {"logits": x}, ([[0.5, 0.5]], [0]), FGSM, TypeError, "expected 'features' too"),
        (identity, ([[0.5, 0.5]], [0]), BALL, TypeError, "attack is LinfBall.*expected an attack"),
        (
            identity,
            ([[0.5, 0.4]] * 2, [0, 1]),
            FGSM,
            ValueError,
            "2 images has another image of the same class",
        ),
        (
            identity,
            ([[0.5, 0.4]] * 2, [0, 0]),
            FGSM,
            ValueError,
            "image of a different class.*shuffle",
        ),
        (identity, ([[0.5, 0.4]] * 2, [0]), FGSM, ValueError, "2 images and 1 labels"),
        (
            lambda x: {"logits": x, "features": x * np.nan},
            ([[0.5, 0.4]] * 2, [0, 0]),
            FGSM,
            ValueError,
            "some of the images 0 to 1 are not finite",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(model, data, attack, error, text):
    x, y = data
    with pytest.raises(error, match=text):
        divergence(model, (np.array(x, "float32"), np.array(y)), attack)
