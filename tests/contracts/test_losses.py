"""What every loss promises; a new one is a new row."""

from __future__ import annotations

import inspect
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.defenses.adr import Confidence
from keras_robust.defenses.mart import Mart
from keras_robust.defenses.trades import Trades
from keras_robust.losses import classification as losses
from keras_robust.losses.robust_loss import Adversarial, Clean, KLConsistency, SumOfLosses

RANDOM = np.random.default_rng(0)
LOGITS = tf.constant(RANDOM.normal(size=(6, 5)) * 3)
OTHER = tf.constant(RANDOM.normal(size=(6, 5)) * 3)
Y = tf.constant(np.arange(6) % 5)
TARGETS = (Y + 2) % 5

# Losses on logits: the further arguments of each.
ON_LOGITS = {
    "cross_entropy": (Y,),
    "negative_log_likelihood": (Y,),
    "kl_divergence": (OTHER,),
    "entropy": (),
    "margin": (Y,),
    "targeted_margin": (Y, TARGETS),
    "dlr": (Y,),
    "targeted_dlr": (Y, TARGETS),
    "boosted_cross_entropy": (Y,),
}
every_loss = pytest.mark.parametrize("name", ON_LOGITS)


def value(name, logits, rows=slice(None)):
    return getattr(losses, name)(logits, *(part[rows] for part in ON_LOGITS[name]))


def test_every_loss_has_a_row():
    public = {
        name
        for name, member in inspect.getmembers(losses, inspect.isfunction)
        if not name.startswith("_") and member.__module__ == losses.__name__
    }
    # Functions of logits that are not losses.
    assert public - {"log_mean_probability", "member_cross_entropies", "misclassified"} == set(
        ON_LOGITS
    )


@every_loss
def test_one_value_per_example(name):
    assert value(name, LOGITS).shape == [6]


@every_loss
def test_examples_do_not_mix(name):
    """Row by row, and in its gradient: that of the sum in a row is that of the row."""
    alone = [value(name, LOGITS[i : i + 1], slice(i, i + 1))[0] for i in range(6)]
    np.testing.assert_allclose(value(name, LOGITS), alone, rtol=1e-12)
    with tf.GradientTape() as tape:
        tape.watch(LOGITS)
        first = value(name, LOGITS)[0]
    assert not tape.gradient(first, LOGITS).numpy()[1:].any()


@every_loss
def test_graph_and_eager_agree(name):
    signature = tf.TensorSpec([None, 5], tf.float64)
    graph = tf.function(lambda logits: value(name, logits), input_signature=[signature])
    np.testing.assert_allclose(graph(LOGITS), value(name, LOGITS), rtol=1e-12)


@every_loss
def test_single_precision_is_close_to_double(name):
    parts = [tf.cast(p, tf.float32) if p.dtype == tf.float64 else p for p in ON_LOGITS[name]]
    single = getattr(losses, name)(tf.cast(LOGITS, tf.float32), *parts)
    np.testing.assert_allclose(single, value(name, LOGITS), rtol=1e-4, atol=1e-5)


@every_loss
def test_gradients_are_those_of_finite_differences(name):
    with tf.GradientTape() as tape:
        tape.watch(LOGITS)
        total = tf.reduce_sum(value(name, LOGITS))
    width = 1e-6 * np.eye(5)
    differences = [(value(name, LOGITS + w) - value(name, LOGITS - w)) / 2e-6 for w in width]
    expected = np.stack(differences, axis=1)
    np.testing.assert_allclose(tape.gradient(total, LOGITS), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "margin", "dlr", "boosted_cross_entropy"])
def test_worse_is_larger(name):
    """Taking from the label's logit, in a row that gets it right, makes every loss larger."""
    right = 4 * tf.one_hot(Y, 5, dtype=tf.float64) + tf.constant(RANDOM.normal(size=(6, 5)) / 10)
    assert (
        (value(name, right - tf.one_hot(Y, 5, dtype=tf.float64)) > value(name, right)).numpy().all()
    )


# Losses on outputs.

ON_OUTPUTS = {
    "clean": Clean(),
    "adversarial": Adversarial(),
    "adversarial and clean": Adversarial(clean_weight=0.5),
    "smoothness": KLConsistency(),
    "confidence": Confidence(),
    "sum": SumOfLosses((Adversarial(), Clean())),
    "trades": Trades(),
    "mart": Mart(),
    "mart on clean images": Mart(boosted_on="clean"),
}
every_robust_loss = pytest.mark.parametrize("loss", ON_OUTPUTS.values(), ids=ON_OUTPUTS.keys())


def outputs(loss, rows=slice(None)):
    """The outputs that a loss needs, and None for the others."""
    given = {"adversarial": OTHER[rows], "clean": LOGITS[rows]}
    return [{"logits": z} if name in loss.required_outputs else None for name, z in given.items()]


@every_robust_loss
def test_it_is_a_robust_loss(loss):
    assert isinstance(loss, kr.types.RobustLoss)
    assert loss.required_outputs and loss.required_outputs <= {"clean", "adversarial"}


@every_robust_loss
def test_the_terms_are_the_names(loss):
    terms = loss(Y, *outputs(loss))
    assert tuple(terms) == loss.term_names
    assert not {"loss", "accuracy", "robust_accuracy", "regularization"} & set(terms)


@every_robust_loss
def test_terms_are_one_value_per_example_and_do_not_mix(loss):
    terms = loss(Y, *outputs(loss))
    for index in range(6):
        row = slice(index, index + 1)
        for name, alone in loss(Y[row], *outputs(loss, row)).items():
            assert terms[name].shape == [6] and alone.shape == [1]
            np.testing.assert_allclose(terms[name][row], alone, rtol=1e-12)


@every_robust_loss
def test_all_that_is_needed_has_a_gradient(loss):
    adversarial, clean = tf.Variable(OTHER), tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        total = kr.losses.total(loss(Y, {"logits": adversarial}, {"logits": clean}))
    gradients = tape.gradient(total, {"adversarial": adversarial, "clean": clean})
    assert {
        name for name, gradient in gradients.items() if gradient is not None
    } == loss.required_outputs


@every_robust_loss
def test_config_round_trip(loss):
    text = json.dumps(keras.saving.serialize_keras_object(loss))
    assert keras.saving.deserialize_keras_object(json.loads(text)) == loss
