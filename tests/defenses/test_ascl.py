"""ASCL."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.defenses.ascl import ContrastiveLoss
from keras_robust.losses.contrastive import Contrastive
from keras_robust.losses.robust_loss import Adversarial, KLConsistency

BALL = kr.LinfBall(0.1)


def test_settings(tiny_classifier):
    """The text's defaults: cosine at temperature 0.07, weights 1 and 2, a clean term, PGD."""
    model = kr.defenses.ascl(tiny_classifier, BALL, steps=3, step_size=0.05, seed=6)
    assert model.robust_loss.parts == (
        Adversarial(clean_weight=1.0),
        Contrastive("leaked", "cosine", 0.07, 1.0, "features"),
        KLConsistency(2.0),
    )
    assert model.attack == kr.attacks.pgd(BALL, 3, 0.05) and model.seed == 6
    assert model.classifier is tiny_classifier


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"scl": 0.0}, ("adversarial", "clean", "smoothness")),
        ({"vat": 0.0}, ("adversarial", "clean", "contrastive")),
        ({"scl": 0.0, "vat": 0.0, "clean_term": False}, ("adversarial",)),
    ],
)
def test_terms_without_weight_are_left_out(tiny_classifier, settings, names):
    assert kr.defenses.ascl(tiny_classifier, BALL, **settings).robust_loss.term_names == names


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_heads_are_trained_by_the_contrast_alone(tiny_classifier, tiny_batch, head):
    """And the logits do not see them."""
    model = kr.defenses.ascl(tiny_classifier, BALL, head=head, steps=1)
    assert model.classifier.output["projection"].shape == (None, 128)
    mine = [w for w in model.trainable_variables if "projection" in w.path]
    sizes = {"linear": [(16, 128), (128,)], "mlp": [(16, 200), (200, 128)]}[head]  # no biases
    assert [tuple(w.shape) for w in mine] == sizes
    x, y = tiny_batch
    np.testing.assert_array_equal(model.classifier(x)["logits"], tiny_classifier(x)["logits"])
    before = [w.numpy() for w in mine]
    model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    model.fit(x, y, batch_size=8, verbose=0)
    assert all(np.any(w.numpy() != old) for w, old in zip(mine, before, strict=True))


def test_another_head_is_refused(tiny_classifier):
    with pytest.raises(ValueError, match="head is 'deep'; expected one of None, 'linear', 'mlp'"):
        kr.defenses.ascl(tiny_classifier, BALL, head="deep")


@pytest.mark.parametrize("name", ["scl", "vat"])
def test_weights_are_refused(tiny_classifier, name):
    with pytest.raises(ValueError, match=f"ascl: {name} is -1"):
        kr.defenses.ascl(tiny_classifier, BALL, **{name: -1})


def test_pretraining_attacks_the_contrast_that_it_trains(tiny_classifier):
    model = kr.defenses.ascl(tiny_classifier, BALL, mode="pretraining", head="linear", steps=3)
    loss = Contrastive("global", "cosine", 0.07, 1.0, "projection")
    assert model.robust_loss == loss and model.attack.objective == ContrastiveLoss(loss)
    assert model.attack == kr.attacks.pgd(BALL, 3, loss=ContrastiveLoss(loss))


def test_the_objective_is_the_loss_of_the_batch(tiny_classifier, tiny_batch):
    """Per image the same as the loss that is trained, which an attack raises."""
    x, y = tiny_batch
    loss = Contrastive("global", "cosine", 0.5)
    attack = kr.attacks.pgd(BALL, 5, loss=ContrastiveLoss(loss))
    x_adv = attack(tiny_classifier, x, y)
    value = ContrastiveLoss(loss)(tiny_classifier, x, y)
    expected = loss(y, tiny_classifier(x_adv), tiny_classifier(x))["contrastive"]
    np.testing.assert_allclose(value(x_adv), expected, rtol=1e-5)
    start = attack.initialization(BALL, tf.constant(x), tf.constant([0, 0]))
    assert np.mean(value(x_adv)) > np.mean(value(start)) + 0.01


def test_the_selection_of_pretraining_may_be_another_one(tiny_classifier):
    model = kr.defenses.ascl(tiny_classifier, BALL, mode="pretraining", selection="hard", scl=2.0)
    assert model.robust_loss == Contrastive("hard", "cosine", 0.07, 2.0)
    with pytest.raises(ValueError, match="ascl: mode is 'first'"):
        kr.defenses.ascl(tiny_classifier, BALL, mode="first")
