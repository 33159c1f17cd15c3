"""Beside adv-lib, where it is installed: minimum-norm attacks are as close to the best distances.

pip install torch adv-lib, then pytest -m slow tests/attacks/test_adv_lib.py
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

pytest.importorskip("torch")
pytest.importorskip("adv_lib")
from benchmarks import official, optimality

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained():
    """A network trained on digits, its copy in PyTorch, and images that it gets right."""
    keras.utils.set_random_seed(0)
    train, _, test = kr.data.load("digits", batch_size=128)
    network = kr.models.mlp((8, 8, 1), 10)
    model = kr.defenses.standard(network)
    model.compile("adam")
    model.fit(train, epochs=10, verbose=0)
    x, y = next(iter(test))
    right = tf.argmax(network(x)["logits"], axis=1) == tf.cast(y, tf.int64)
    return network, official.copied(network), x[right][:50].numpy(), y[right][:50].numpy()


@pytest.mark.parametrize("norm", optimality.BALLS)
def test_the_best_attack_is_not_below_the_best_of_adv_lib(trained, norm):
    """By more than half a point of optimality, with the same number of steps."""
    network, copy, x, y = trained
    ours = optimality.run_ours(network, norm, 300, x, y)
    theirs = optimality.run_adv_lib(copy, norm, 300, x, y)
    scores = optimality.scores([*ours, *theirs])
    assert max(scores[: len(ours)]) >= max(scores[len(ours) :]) - optimality.WORSE
    best = int(np.argmax(scores[: len(ours)]))
    assert np.isfinite(ours[best].distances).all()
