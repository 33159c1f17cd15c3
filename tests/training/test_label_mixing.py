"""Training on mixed images: the loss of two labels, on paper and part by part."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.experiments.recipes import defense_options
from keras_robust.training.label_mixing import OtherLabels
from keras_robust.training.training_loss import TrainingLoss
from tests.contracts.defense_table import DEFENSES, ENSEMBLES

SHARE = np.array([0.9, 0.5, 0.7, 0.6], "float32")
OTHER = np.array([2, 0, 1, 1])


def shifted(x, y, seed):
    """A mixing of known shares; it darkens the images."""
    del seed
    return x / 2, y, tf.constant(OTHER, y.dtype), tf.constant(SHARE)


def test_a_step_is_the_one_on_paper(make_linear, make_batch, fit_once):
    """The attack maximizes the loss of the first label; the gradient is x_adv^T (p - ~y) / 4 with
    the soft labels ~y = s e_y + (1 - s) e_other; the accuracy is that of the first labels."""
    w = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    x, y = make_batch(4, (4, 1, 1))
    fgsm = kr.attacks.fgsm(kr.LinfBall(0.1))
    model = kr.RobustModel(make_linear(w), fgsm, kr.losses.Adversarial(), mixing=shifted)
    model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    x_adv = fgsm(model.classifier, x / 2, y).numpy().reshape(4, 4)
    p = tf.nn.softmax(x_adv @ w).numpy()
    soft = SHARE[:, None] * np.eye(3)[y] + (1 - SHARE[:, None]) * np.eye(3)[OTHER]
    logs = fit_once(model, x, y)
    assert logs["loss"][0] == pytest.approx(-(soft * np.log(p)).sum(axis=1).mean(), rel=1e-5)
    assert logs["robust_accuracy"][0] == (p.argmax(axis=1) == y).mean()
    expected = w - x_adv.T @ (p - soft) / 4
    np.testing.assert_allclose(model.classifier.get_weights()[0], expected, rtol=1e-4, atol=1e-6)


def step(model, x, y):
    model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0)
    return model.classifier.get_weights()


@pytest.mark.parametrize("options", [{"microbatches": 2}, {"weight_perturbation": kr.AWP(1e-6)}])
def test_parts_and_perturbed_weights_have_the_labels_of_their_images(
    options, make_linear, make_batch
):
    """Two microbatches of a model without batch norm give the step of the whole batch, and so do
    weights that hardly move."""
    w = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    x, y = make_batch(4, (4, 1, 1))
    fgsm = kr.attacks.fgsm(kr.LinfBall(0.1))
    whole, parts = (
        step(
            kr.RobustModel(make_linear(w), fgsm, kr.losses.Adversarial(), mixing=shifted, **o), x, y
        )
        for o in ({}, options)
    )
    for one, two in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_each_step_draws_anew_and_a_run_repeats(make_classifier, make_batch):
    x, y = make_batch(8)
    runs = []
    for _ in range(2):
        model = kr.defenses.trades(
            make_classifier(), kr.LinfBall(0.1), steps=1, mixing=kr.data.cutmix()
        )
        model.compile("sgd", run_eagerly=True)
        runs.append(
            model.fit(x, y, batch_size=4, epochs=2, verbose=0, shuffle=False).history["loss"]
        )
    assert runs[0] == runs[1] and runs[0][0] != runs[0][1]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "cce")) for n in DEFENSES]
)
def test_every_loss_of_single_images_takes_both_labels(name, make_classifier, make_batch):
    """With shares of 1/2 and the two labels of all images swapped, the loss is the same."""
    classifier = make_classifier(dropout=0)
    if set(ENSEMBLES) & set(name.split()):
        members = [make_classifier(seed=seed, dropout=0) for seed in range(2)]
        classifier = kr.models.ensemble(members)
    model = DEFENSES[name][0](classifier)
    loss = model.robust_loss
    if loss.batch_level or "bounds" in loss.required_outputs:
        pytest.skip("needs one label of an image")
    x, y = make_batch(4)
    x_adv = None if model.attack is None else model.craft(tf.constant(x), tf.constant(y))
    required = TrainingLoss(model.classifier, loss).gradients
    labels, half = (tf.constant(y), tf.constant(OTHER, y.dtype)), tf.fill([4], 0.5)
    found = []
    for first, second in (labels, labels[::-1]):
        _, _, means = required(
            (x, first, None),
            x_adv,
            tf.constant(4),
            keras.optimizers.SGD(),
            OtherLabels(second, half),
        )
        found.append({key: float(value) for key, value in means.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    alone = [
        float(required((x, one, None), x_adv, tf.constant(4), keras.optimizers.SGD())[2]["loss"])
        for one in labels
    ]
    assert found[0]["loss"] == pytest.approx(np.mean(alone), rel=1e-4)


@pytest.mark.slow
def test_xla_compiles_what_follows(make_classifier, make_batch):
    """It cannot draw gamma variates, which are drawn before."""
    model = kr.defenses.standard(make_classifier(), kr.LinfBall(0.1), mixing=kr.data.mixup())
    model.compile("sgd", jit_compile=True)
    assert np.isfinite(model.fit(*make_batch(4), verbose=0).history["loss"]).all()


def test_validation_does_not_mix(make_linear, make_batch):
    w = np.eye(4, 3)
    x, y = make_batch(4, (4, 1, 1))
    found = []
    for mixing in (None, shifted):
        model = kr.defenses.standard(make_linear(w), kr.LinfBall(0.1), mixing=mixing)
        model.compile("sgd", run_eagerly=True)
        found.append(model.evaluate(x, y, verbose=0))
    assert found[0] == found[1]


def test_sample_weights_are_refused(make_classifier, make_batch):
    model = kr.defenses.standard(make_classifier(), kr.LinfBall(0.1), mixing=kr.data.mixup())
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="sample weights .*and `mixing` makes one image of two"):
        model.fit(*make_batch(4), sample_weight=np.ones(4), verbose=0)


@pytest.mark.parametrize("value", ["cutmix", 0.5, kr.data.CutMix])
def test_what_is_no_mixing(value, make_classifier):
    with pytest.raises(
        TypeError, match="mixing is .*expected None or a function, such as .*cutmix"
    ):
        kr.defenses.standard(make_classifier(), kr.LinfBall(0.1), mixing=value)


@pytest.mark.parametrize("mixing", [kr.data.cutmix(0.5), kr.data.mixup()])
def test_it_is_saved(mixing, make_classifier, tmp_path):
    kr.defenses.trades(make_classifier(), kr.LinfBall(0.1), mixing=mixing).save(
        tmp_path / "m.keras"
    )
    assert keras.saving.load_model(tmp_path / "m.keras").mixing == mixing


def test_a_recipe_holds_it_as_text():
    found = [
        defense_options.resolved("trades", {"mixing": t}) for t in ("cutmix:alpha=1/2", "mixup")
    ]
    assert [one["mixing"] for one in found] == [kr.data.cutmix(0.5), kr.data.mixup()]
    with pytest.raises(ValueError, match="no mixing .*'cutmx'.*Did you mean 'cutmix'"):
        defense_options.resolved("trades", {"mixing": "cutmx"})
