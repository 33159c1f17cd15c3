"""Batches come one at a time, clean and attacked."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation.running.batching import attacked, batches

X, Y = np.arange(14, dtype="float32").reshape(7, 2) / 14, np.arange(7) % 2
DATA = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [(None, [3, 3, 1]), (7, [3, 3, 1]), (6, [3, 3]), (4, [3, 1]), (99, [3, 3, 1])],
)
def test_a_data_set_and_arrays_give_the_same(limit, sizes):
    for given in (DATA, (X, Y)):
        found = list(batches(given, limit, batch_size=3))
        assert [len(y) for _, y in found] == sizes
        np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), X[:limit])
        np.testing.assert_array_equal(np.concatenate([y for _, y in found]), Y[:limit])


def test_an_endless_data_set_ends_at_the_limit():
    assert [len(y) for _, y in batches(DATA.repeat(), limit=8)] == [3, 3, 1, 1]


def test_each_batch_is_attacked_by_a_seed_of_its_own():
    """A start in the ball and no step: what is added to equal images is the seed's alone."""
    x = np.full((4, 6), 0.5, "float32")
    data = tf.data.Dataset.from_tensor_slices((x, [0, 1, 0, 1])).batch(2)
    attack = kr.attacks.pgd(kr.LinfBall(0.1), 1, step_size=1e-9)

    def noise(seed):
        return [x_adv.numpy() - 0.5 for _, x_adv, _ in attacked(model, data, attack, seed=seed)]

    model = lambda x: {"logits": x}  # noqa: E731
    first, second = noise(0)
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_array_equal(first, noise(0)[0])
    assert np.abs(first - noise(1)[0]).max() > 0.01
    assert max(np.abs(first).max(), np.abs(second).max()) <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("data", "limit", "text"),
    [
        ((X, Y[:3]), None, "7 images and 3 labels"),
        ((X[:0], Y[:0]), None, "0 images and 0 labels"),
        (DATA.take(0), None, "data set is empty"),
        (DATA, 0, "limit is 0; expected an integer >= 1"),
    ],
)
def test_bad_data_is_refused(data, limit, text):
    with pytest.raises(ValueError, match=text):
        list(batches(data, limit))
