"""ADR."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.defenses.adr import Compactness

NOTHING = {"local_weight": 0.0, "global_weight": 0.0, "smoothness_weight": 0.0}
BALL = kr.LinfBall(0.1)
BASE = kr.defenses.pgd_at


def test_terms_on_paper():
    """Two images of two classes, latents of two numbers; alpha 0.8, so w is 1 or -0.25.

    Local: mean(|1 - 0|, |2 - 0|) = 1.5 and mean(|3 - 1|, |1 - 1|) = 1. Global, for the first
    adversarial latent (1, 2): (1.5 - 0.25 * mean(0, 1)) / 2, and for (3, 1):
    (1 - 0.25 * mean(3, 1)) / 2.
    """
    clean = {"features": tf.constant([[0.0, 0.0], [1.0, 1.0]])}
    moved = {"features": tf.constant([[1.0, 2.0], [3.0, 1.0]])}
    terms = Compactness(local_weight=2.0, alpha=0.8)(tf.constant([0, 1]), moved, clean)
    np.testing.assert_allclose(terms["local"], [3.0, 2.0])
    np.testing.assert_allclose(terms["global"], [(1.5 - 0.125) / 2, (1.0 - 0.5) / 2], rtol=1e-6)


@pytest.mark.parametrize(("p", "expected"), [(1, 2.0), (2, math.sqrt(5)), ("inf", 3.0)])
def test_norms_on_paper(p, expected):
    """Of the difference (3, -1): mean 2, root mean square sqrt(5), largest 3."""
    clean, moved = {"features": tf.zeros([1, 2])}, {"features": tf.constant([[3.0, -1.0]])}
    terms = Compactness(p=p)(tf.constant([0]), moved, clean)
    for name in ("local", "global"):
        np.testing.assert_allclose(terms[name], [expected], rtol=1e-6)
    assert Compactness(p=math.inf)(tf.constant([0]), moved, clean).keys() == terms.keys()


@pytest.mark.parametrize("p", [1, 2, "inf"])
def test_identical_latents_have_a_finite_gradient(p):
    z = tf.ones([3, 4])
    with tf.GradientTape() as tape:
        tape.watch(z)
        terms = Compactness(p=p)(tf.constant([0, 0, 1]), {"features": z}, {"features": z})
        value = tf.add_n(list(terms.values()))
    assert np.isfinite(tape.gradient(value, z)).all()


@pytest.mark.parametrize("through", [False, True])
def test_the_clean_side_is_constant_unless_asked(through):
    """The local gradient is a sign over the size: +1/2 and -1/2 for the two sides of a pair."""
    z, z_adv = tf.constant([[0.0, 0.0]]), tf.constant([[1.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch((z, z_adv))
        terms = Compactness(global_weight=0.0, through_clean=through)(
            tf.constant([0]), {"features": z_adv}, {"features": z}
        )
    clean, moved = tape.gradient(terms["local"], (z, z_adv), unconnected_gradients="zero")
    np.testing.assert_allclose(moved, [[0.5, 0.5]])
    np.testing.assert_allclose(clean, [[-0.5, -0.5]] if through else [[0.0, 0.0]])


def test_a_batch_of_one_class_is_finite():
    z = tf.constant([[0.0], [1.0]])
    terms = Compactness()(tf.constant([1, 1]), {"features": z}, {"features": z})
    np.testing.assert_allclose(terms["global"], [0.5, 0.5])


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ({"global_weight": 0.0, "smoothness_weight": 0.0}, ("local",)),
        ({"local_weight": 0.0, "smoothness_weight": 0.0}, ("global",)),
        ({"local_weight": 0.0, "global_weight": 0.0}, ("smoothness",)),
        ({**NOTHING, "confidence_weight": 1.0}, ("confidence",)),
    ],
)
def test_each_term_by_itself(tiny_classifier, weights, names):
    model = kr.defenses.adr(tiny_classifier, BALL, base=BASE, **weights)
    assert model.robust_loss.term_names == ("adversarial", *names)


def test_the_base_keeps_its_attack_and_its_settings(tiny_classifier):
    model = kr.defenses.adr(
        tiny_classifier, BALL, base=kr.defenses.trades, beta=1.0, steps=3, seed=4, microbatches=2
    )
    base = kr.defenses.trades(tiny_classifier, BALL, beta=1.0, steps=3, seed=4, microbatches=2)
    assert (model.attack, model.validation_attack) == (base.attack, base.validation_attack)
    assert (model.seed, model.microbatches) == (4, 2)
    assert model.robust_loss.term_names == ("clean", "divergence", "local", "global", "smoothness")


def test_over_udr_the_dual_variable_is_learned_too(tiny_classifier, tiny_batch):
    base = functools.partial(
        kr.defenses.udr, base=kr.defenses.trades, dual=kr.DualVariable(initial_value=0.5)
    )
    model = kr.defenses.adr(tiny_classifier, BALL, base=base, steps=1)
    model.compile("sgd", run_eagerly=True)
    history = model.fit(*tiny_batch, verbose=0).history
    assert history["dual"][0] == pytest.approx(0.5, abs=0.01) and "local" in history


@pytest.mark.parametrize("layer", ["conv1_2", "conv2_1", "conv2_2", "fc1", "fc2"])
def test_the_latent_of_any_layer(layer):
    """The ablation of the paper's supplement: which layer is made compact."""
    net = kr.models.small_cnn((8, 8, 1), 3, variant="mnist")
    latent = kr.models.adapt(net, features=layer)
    model = kr.defenses.adr(latent, BALL, base=BASE, steps=1)
    size = math.prod(net.get_layer(layer).output.shape[1:])
    assert model.classifier.output["features"].shape == (None, size)


def test_a_layer_that_is_not_there_is_refused_with_those_that_are():
    net = kr.models.small_cnn((8, 8, 1), 3, variant="mnist")
    with pytest.raises(ValueError, match="names no layer; expected one of conv1_1, conv1_2, .*fc2"):
        kr.models.adapt(net, features="conv5")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"local_weight": -1.0}, "Compactness: local_weight is -1.0"),
        ({"global_weight": math.nan}, "Compactness: global_weight is nan"),
        ({"smoothness_weight": -1}, "adr: smoothness_weight is -1"),
        ({"confidence_weight": "1"}, "adr: confidence_weight is '1'"),
        ({"p": 3}, "Compactness: p is 3; expected one of 1, 2, inf"),
        ({"p": [1]}, "Compactness: p is"),
        ({"alpha": 0.0}, r"Compactness: alpha is 0.0; expected a number in \(0, 1\]"),
        (NOTHING, "all weights are 0"),
    ],
)
def test_bad_settings_are_refused(tiny_classifier, settings, text):
    with pytest.raises(ValueError, match=text):
        kr.defenses.adr(tiny_classifier, BALL, base=BASE, **settings)


def test_invalid_bases_are_refused(tiny_classifier):
    with pytest.raises(ValueError, match="no defense 'tradse'.* Did you mean 'trades'"):
        kr.defenses.adr(tiny_classifier, BALL, base="tradse")
    with pytest.raises(TypeError, match="base is 5; expected a defense, .*or its name"):
        kr.defenses.adr(tiny_classifier, BALL, base=5)
    with pytest.raises(ValueError, match="needs adversarial images"):
        kr.defenses.adr(tiny_classifier, BALL, base=kr.defenses.standard)
