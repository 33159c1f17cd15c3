"""Transformations of images, and goals achieved, beside an independent float64 implementation."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust import losses
from keras_robust.attacks.multi_task import transforms
from keras_robust.evaluation import TaskSuccess


def equal(found, expected, **kwargs):
    np.testing.assert_allclose(found, expected, **{"rtol": 1e-6, "atol": 1e-8, **kwargs})


def test_an_attack_on_transformations_with_the_weights_as_given(load):
    """Each step is the sign of the weighed sum of the gradients through the transformations.

    The weights of a step are those after the one before, at first all alike. The released code
    flips along the width and multiplies by 1.3.
    """
    d = load("tamoo_eot_attack")
    seen = (transforms.Identity(), transforms.HorizontalFlip(), transforms.Brightness(1.3))
    square = [-1, int(d["H"]), int(d["W"]), 1]
    count = d["x"].shape[0]

    def task_losses(x_adv):
        flat = [tf.reshape(t(tf.reshape(x_adv, square), 1.0), [count, -1]) for t in seen]
        logits = [tf.tanh(x @ d["W1"] + d["b1"]) @ d["W2"] + d["b2"] for x in flat]
        return tf.stack([losses.cross_entropy(z, d["y"]) for z in logits], axis=1)

    ball = kr.LinfBall(float(d["eps"]))
    x_adv = d["x"] + d["delta0"]
    weights = tf.fill([count, len(seen)], tf.constant(1 / len(seen), tf.float64))
    for step in range(int(d["steps"])):
        with tf.GradientTape() as tape:
            tape.watch(x_adv)
            total = tf.reduce_sum(weights * task_losses(x_adv))
        moved = x_adv + d["eta"] * tf.sign(tape.gradient(total, x_adv))
        x_adv = ball.project(moved, d["x"])
        equal(x_adv, d["xadv_tamoo_code"][step])
        weights = d["w_tamoo_code"][step]


def test_goals(load):
    """Means of the released code are in float32."""
    d = load("tamoo_metrics")
    predictions = tf.argmax(d["logits"], axis=-1)
    found = TaskSuccess.of(predictions != d["labels"])
    rounded = {"rtol": 0, "atol": 1e-6}
    equal(found.all_tasks, d["a_all"], **rounded)
    equal(found.average, d["a_avg"], **rounded)
    equal(found.any_task, d["a_at_least_one"], **rounded)
    equal(found.per_task, d["a_per_task"], **rounded)
    mean = losses.log_mean_probability(tf.transpose(d["logits"], [1, 0, 2]))
    equal(np.mean(tf.argmax(mean, 1) != d["labels"]), d["asr_ensemble_mean_prob"], **rounded)


def test_goals_of_groups(load):
    """A point is a group, a task one of its images."""
    d = load("tamoo_metrics")
    fooled = tf.argmax(d["uni_logits"], axis=-1) != d["uni_labels"]
    found = TaskSuccess.of(tf.transpose(fooled))
    equal(found.all_tasks, d["uni_a_all"], rtol=0, atol=1e-6)
    equal(found.average, d["uni_a_avg"], rtol=0, atol=1e-6)
