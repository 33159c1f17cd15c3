"""A linear classifier of four pixels, of which the closest boundary is a formula in every norm."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

W = np.array([[2.0, -1.0, 0.0], [0.5, 1.0, -1.0], [-1.0, 0.0, 3.0], [0.25, 0.0, -0.5]])
# They hold all images of four pixels in [0, 1]; with the order of the dual norm.
WHOLE = {
    "linf": (kr.LinfBall(1.0), 1),
    "l2": (kr.L2Ball(2.0), 2),
    "l1": (kr.L1Ball(4.0), np.inf),
}


def in_default_run(chosen):
    """The norms as parameters, of which the others run slowly."""
    others = [pytest.param(norm, marks=pytest.mark.slow) for norm in WHOLE if norm != chosen]
    return [chosen, *others]


def linear(x):
    """Three logits."""
    return {"logits": x @ tf.constant(W, x.dtype)}


def two(x):
    """Logits that are the two pixels."""
    return {"logits": x}


def images(count):
    """So grey that the closest boundaries lie inside the range; labels are the predictions."""
    x = np.random.default_rng(0).uniform(0.4, 0.6, (count, 4))
    return tf.constant(x), tf.constant((x @ W).argmax(axis=1))


def distances(x, y, dual):
    """`(z_y - z_k) / |w_y - w_k|` for every class, infinite for the label."""
    x, y = x.numpy(), y.numpy()
    slopes = np.linalg.norm(W[:, y].T[:, :, None] - W[None], dual, axis=1)
    gaps = (x @ W)[np.arange(len(y)), y][:, None] - x @ W
    return np.where(np.arange(3) == y[:, None], np.inf, gaps / np.maximum(slopes, 1e-9))


def ratios(attack, dual, count=6, **extra):
    """The distance of what the attack finds over that to the closest boundary, per image."""
    x, y = images(count)
    found = attack.ball.distance(attack.compiled(linear)(x, y, **extra), x).numpy()
    return found / distances(x, y, dual).min(axis=1)


def assert_targets_are_reached(attack):
    """A targeted attack ends in the class of its target."""
    x, y = images(4)
    targets = (y + 2) % 3
    x_adv = attack.compiled(linear)(x, y, targets=targets)
    np.testing.assert_array_equal(tf.argmax(linear(x_adv)["logits"], axis=1), targets)


SPARSE_IMAGES = tf.constant([[0, 1, 0, 0], [0, 0, 0, 0], [0, -1, -1, -1]], tf.float64)
FEWEST = [1, 2, 3]  # pixels that must change in [-1, 1], by the largest gains first


def sparse(x):
    """Class 1 where 0.9 x_1 + 0.5 x_2 + 0.3 x_3 + 0.2 x_4 exceeds 1."""
    score = tf.reduce_sum(x * tf.constant([0.9, 0.5, 0.3, 0.2], x.dtype), axis=1)
    return {"logits": tf.stack([tf.ones_like(score), score], axis=1)}
