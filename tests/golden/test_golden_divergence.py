"""Intra-class and inter-class divergence beside an independent float64 implementation."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation import class_divergence, divergence


def equal(found, expected, **kwargs):
    np.testing.assert_allclose(found, expected, **{"rtol": 1e-6, "atol": 1e-8, **kwargs})


def test_divergence_of_a_batch(load):
    d = load("ascl_scl")
    intra, inter = class_divergence(d["z"], d["labels"], d["z_adv"])
    equal(intra, d["rdiv_intra"])
    equal(inter, d["rdiv_inter"])
    equal(intra / inter, d["rdiv"])


def test_divergence_of_a_model(load):
    """The images are numbers of rows, which the model looks up; the attack adds the row count."""
    d = load("ascl_scl")
    table = tf.concat([d["z"], d["z_adv"]], axis=0)
    count = d["z"].shape[0]

    def model(x):
        rows = tf.cast(tf.round(x[:, 0]), tf.int32)
        # The gradient that FGSM needs: the loss of every label grows with the image.
        slope = tf.constant([[-1.0] * 10], tf.float64) * (x - tf.stop_gradient(x))
        return {"logits": slope * tf.one_hot(tf.gather(tf.tile(d["labels"], [2]), rows), 10,
                                             dtype=tf.float64),
                "features": tf.gather(table, rows)}  # fmt: skip

    images = tf.range(count, dtype=tf.float64)[:, None].numpy()
    ball = kr.LinfBall(float(count), bounds=(0.0, 2.0 * count))
    found = divergence(model, (images, d["labels"].numpy()), kr.attacks.fgsm(ball))
    equal(found.intra, d["rdiv_intra"])
    equal(found.inter, d["rdiv_inter"])
    equal(found.ratio, d["rdiv"])
