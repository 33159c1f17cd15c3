"""The lower bound of crafting: the gradients that it needs, and nothing else.

Written without the library, so that the bound does not change with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def input_gradient(classifier: keras.Model) -> Callable[[Any, Any], tf.Tensor]:
    """`(x, y)` -> the gradient of the cross-entropy w.r.t. the images, in inference mode."""

    def gradient(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            logits = classifier(x, training=False)["logits"]
            loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        return tape.gradient(loss, x)

    return gradient


def weight_gradients(classifier: keras.Model) -> Callable[[Any, Any], list[tf.Tensor]]:
    """`(x, y)` -> the gradients of the mean cross-entropy w.r.t. the weights, in training mode."""

    def gradients(x: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = classifier(x, training=True)["logits"]
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        return tape.gradient(loss, classifier.trainable_variables)

    return gradients


def chained(classifier: keras.Model) -> Callable[[Any, Any], list[tf.Tensor]]:
    """A compiled function of input gradients at many points, one after the other.

    Each gradient has its own images, `[steps, batch, ...]`; for equal ones a graph optimizer would
    compute a single gradient.
    """
    gradient = input_gradient(classifier)

    @tf.function(autograph=False)
    def run(points: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
        done: list[tf.Tensor] = []
        for x in tf.unstack(points):
            with tf.control_dependencies(done[-1:]):  # PGD cannot compute two at a time
                done.append(gradient(tf.identity(x), y))
        return done

    return run
