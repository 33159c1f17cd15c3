"""Every attack and every defense under XLA: the verdicts of the graph, from the same draws."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from tests.contracts.attack_table import BALLS, CLASSES, ROWS
from tests.contracts.defense_table import DEFENSES, ENSEMBLES

# How far a pixel may be from the graph's.
ROUNDING = 1e-5
# Rows that may be further away; their verdicts are those of the graph as well.
AMPLIFIED = {
    # Where the label has the third-largest logit, DLR is constant and its gradient exactly 0; XLA
    # orders its sums otherwise and leaves 1e-8, whose sign is a whole step.
    "pgd dlr": 0.2,
    # Adam divides by the size of the gradient, in two searches for the constant.
    "carlini_wagner": 1e-2,
    "carlini_wagner targeted": 1e-2,
}


def crafted(craft, *args, **kwargs):
    """The batches of a result, one for each member that an attack crafts on."""
    return np.stack([part.numpy() for part in tf.nest.flatten(craft(*args, **kwargs))])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "r_fgsm")) for name in ROWS]
)
def test_an_attack(name, models, batch):
    """Eagerly, as a graph and under XLA; what it is given is checked before."""
    row = ROWS[name]
    model, attack = models[row.members], row.build(BALLS[row.norms[0]])
    x, y = batch[0], row.labels(model, batch)
    extra = {"targets": (y + 1) % CLASSES} if row.targeted else {}
    eager = crafted(attack, model, x, y, seed=3, **extra)
    graph = crafted(attack.compiled(model), x, y, 3, **extra)
    craft = attack.compiled(model, jit_compile=True)
    xla = crafted(craft, x, y, 3, **extra)
    assert np.any(xla != x)
    np.testing.assert_allclose(eager, graph, atol=ROUNDING)
    np.testing.assert_allclose(xla, graph, atol=AMPLIFIED.get(name, ROUNDING))
    for one, other in zip(xla, graph, strict=True):
        verdicts = [np.argmax(model(part)["logits"], axis=1) for part in (one, other)]
        np.testing.assert_array_equal(*verdicts)
    with pytest.raises(ValueError, match="Images have values"):
        craft(x + 3, y, 3, **extra)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFENSES)
def test_a_training_step(name, make_classifier, make_batch):
    """Two steps of training: losses and weights of the graph; labels are checked before."""
    x, y = make_batch(8)

    def fitted(**settings):
        if set(ENSEMBLES) & set(name.split()):
            members = [make_classifier(seed=seed, dropout=0) for seed in range(2)]
            classifier = kr.models.ensemble(members)
        else:
            classifier = make_classifier(dropout=0)
        model = DEFENSES[name][0](classifier)
        model.compile(keras.optimizers.SGD(0.05), **settings)
        history = model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
        return model, history.history

    (graph, expected), (model, found) = fitted(), fitted(jit_compile=True)
    for term, values in expected.items():
        np.testing.assert_allclose(found[term], values, rtol=1e-3, atol=1e-4, err_msg=term)
    for weight, other in zip(model.classifier.weights, graph.classifier.weights, strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-3, atol=1e-3, err_msg=weight.path)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        model.fit(x, y + 100, batch_size=4, verbose=0)
