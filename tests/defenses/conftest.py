"""One step of training against the step on paper, eagerly: contracts compare it with the graph."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

WEIGHTS = np.array([[2.0, -1.0, 0.0], [0.5, 1.0, -1.0], [-1.0, 0.0, 3.0], [0.25, 0.0, -0.5]])
BIAS = np.array([0.2, -0.1, 0.0])
RATE = 0.5


def slope(function, at, width=1e-5):
    """The gradient by central differences."""
    found = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[index] = width
        found[index] = (function(at + step) - function(at - step)) / (2 * width)
    return found


@pytest.fixture
def one_step(make_linear, make_batch):
    """Checks that one `fit` step of a defense is a gradient step of a loss written in NumPy.

    The loss is `(log p(x), log p(x_adv), y) -> dictionary of mean terms`; its gradient in the
    weights of a linear classifier, for fixed adversarial images, is by finite differences.
    """

    def check(defense, loss_on_paper):
        x, y = make_batch(6, (4, 1, 1))
        model = defense(make_linear(WEIGHTS, BIAS))
        model.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
        crafted = model.attack is not None
        x_adv = model.craft(tf.constant(x), tf.constant(y)).numpy() if crafted else x

        def terms(parameters):
            log_p = []
            for images in (x, x_adv):
                z = images.reshape(6, 4).astype("float64") @ parameters[:4] + parameters[4]
                log_p.append(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))
            return loss_on_paper(*log_p, y)

        parameters = np.concatenate([WEIGHTS, BIAS[None]])
        history = model.fit(x, y, batch_size=6, shuffle=False, verbose=0).history
        logs = {name: values[0] for name, values in history.items()}
        expected = terms(parameters)
        assert {name: logs[name] for name in expected} == pytest.approx(expected, rel=1e-5)
        assert logs["loss"] == pytest.approx(sum(expected.values()), rel=1e-5)
        moved = parameters - RATE * slope(lambda p: sum(terms(p).values()), parameters)
        np.testing.assert_allclose(np.vstack(model.classifier.get_weights()), moved, atol=2e-6)
        return model

    return check


@pytest.fixture
def one_step_of_two(make_linear, make_batch):
    """As `one_step`, of an ensemble of two linear members.

    The loss is `(members' log p(x), members' log p(x_adv) for each batch of x_adv, y) -> dictionary
    of mean terms`, of arrays `[members, batch, classes]` and `[sources, members, batch, classes]`.
    """

    def check(defense, loss_on_paper):
        x, y = make_batch(6, (4, 1, 1))
        parameters = np.stack([np.vstack([w, BIAS]) for w in (WEIGHTS, WEIGHTS[::-1] * 0.7)])
        members = [make_linear(p[:4], p[4]) for p in parameters]
        model = defense(kr.models.ensemble(members))
        model.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
        crafted = tf.nest.flatten(model.craft(tf.constant(x), tf.constant(y)))

        def log_p(parameters, images):
            images = np.reshape(images, [6, 4]).astype("float64")
            z = np.stack([images @ p[:4] + p[4] for p in parameters])
            return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))

        def terms(parameters):
            sources = np.stack([log_p(parameters, x_adv) for x_adv in crafted])
            return loss_on_paper(log_p(parameters, x), sources, y)

        logs = model.train_on_batch(x, y, return_dict=True)
        expected = terms(parameters)
        assert {name: logs[name] for name in expected} == pytest.approx(expected, rel=1e-5)
        assert logs["loss"] == pytest.approx(sum(expected.values()), rel=1e-5)
        moved = parameters - RATE * slope(lambda p: sum(terms(p).values()), parameters)
        found = np.stack([np.vstack(member.get_weights()) for member in members])
        np.testing.assert_allclose(found, moved, atol=2e-6)
        return model, crafted

    return check


@pytest.fixture(scope="session")
def of_label():
    """`log p` of the label of each image."""
    return lambda log_p, y: log_p[np.arange(len(y)), y]


@pytest.fixture(scope="session")
def kl():
    """`KL(p || q)` from two arrays of logarithms."""
    return lambda log_p, log_q: (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
