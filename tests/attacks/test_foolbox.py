"""Beside Foolbox, where it is installed: the same perturbations from the same start.

pip install foolbox numba, then pytest -m slow tests/attacks/test_foolbox.py
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import brendel_bethge, carlini_wagner, pgd

foolbox = pytest.importorskip("foolbox")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained():
    """A network trained on digits, Foolbox's view of it, and images that it gets right."""
    train, _, test = kr.data.load("digits", batch_size=128)
    network = kr.models.mlp((8, 8, 1), 10)
    model = kr.defenses.standard(network)
    model.compile("adam")
    model.fit(train, epochs=10, verbose=0)
    x, y = next(iter(test))
    right = tf.argmax(network(x)["logits"], axis=1) == tf.cast(y, tf.int64)
    x, y = x[right][:8], tf.cast(y[right][:8], tf.int64)
    view = foolbox.TensorFlowModel(
        lambda x: network(x, training=False)["logits"], bounds=(0, 1), device="CPU:0"
    )
    return network, view, x, y


def lengths(ball, trained, attack, **start):
    _, view, x, y = trained
    x_adv = attack.run(view, x, foolbox.criteria.Misclassification(y), **start)
    return ball.distance(x_adv, x).numpy()


def test_carlini_wagner(trained):
    """Within 1% of Foolbox, whose distance is that to an image drawn in from the bounds."""
    network, _, x, y = trained
    ball = kr.L2Ball(8.0)
    attack = carlini_wagner(ball, 300, 0.01, initial_const=0.7, binary_search_steps=1).compiled(
        network
    )
    theirs = foolbox.attacks.L2CarliniWagnerAttack(1, 300, 0.01, 0, 0.7, False)
    expected = lengths(ball, trained, theirs)
    np.testing.assert_allclose(ball.distance(attack(x, y), x), expected, rtol=0.01)


@pytest.mark.parametrize(
    ("ball", "name"),
    [
        (kr.L2Ball(8.0), "L2BrendelBethgeAttack"),
        (kr.LinfBall(1.0), "LinfinityBrendelBethgeAttack"),
    ],
    ids=["l2", "linf"],
)
def test_brendel_bethge(trained, ball, name):
    """The same start and trust region: the mean distance is no more than 3% above Foolbox's."""
    pytest.importorskip("numba")
    network, _, x, y = trained
    start = pgd(type(ball)(0.3 * ball.radius), 20)
    begin = start.compiled(network)(x, y)
    assert kr.losses.misclassified(network(begin)["logits"], y).numpy().all()
    attack = brendel_bethge(ball, 30, start=start, trust_radius=1e-3 * len(x)).compiled(network)
    theirs = getattr(foolbox.attacks, name)(steps=30)
    expected = lengths(ball, trained, theirs, starting_points=begin)
    assert ball.distance(attack(x, y), x).numpy().mean() <= 1.03 * expected.mean()
