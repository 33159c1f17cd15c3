"""Distances of all pairs: values, gradients, equal vectors, half precision."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.losses.pairwise_distance import distances, unit

KINDS = ("l1", "l2", "linf")
ORDERS = {"l1": 1, "l2": 2, "linf": np.inf}
RANDOM = np.random.default_rng(0)
Z, OTHERS, WEIGHTS = (tf.constant(RANDOM.normal(size=s)) for s in ((5, 7), (4, 7), (5, 4)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compiled", [False, True])
def test_values_and_gradients(kind, compiled):
    """Those of the norm of each difference, which TensorFlow differentiates."""

    def found(z, others):
        with tf.GradientTape() as tape:
            tape.watch((z, others))
            value = distances(kind, z, others)
            total = tf.reduce_sum(WEIGHTS * value)
        return value, *tape.gradient(total, (z, others))

    def expected(z, others):
        with tf.GradientTape() as tape:
            tape.watch((z, others))
            value = tf.norm(z[:, None] - others, ord=ORDERS[kind], axis=2)
            total = tf.reduce_sum(WEIGHTS * value)
        return value, *tape.gradient(total, (z, others))

    run = tf.function(found) if compiled else found
    for one, other in zip(run(Z, OTHERS), expected(Z, OTHERS), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("size", [1e-3, 1.0, 100.0])
def test_equal_vectors_are_at_distance_zero_without_a_gradient(kind, dtype, size):
    """To the bit, though a square root has an infinite slope there."""
    z = tf.cast(size * tf.concat([Z[:2], Z[:1]], axis=0), dtype)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = distances(kind, z, z)
        equal = tf.gather_nd(value, [[0, 0], [1, 1], [2, 2], [0, 2], [2, 0]])
    gradient = tape.gradient(equal, z)
    np.testing.assert_array_equal(equal, 0)
    np.testing.assert_array_equal(tf.cast(gradient, tf.float32), 0)
    assert value.dtype == (tf.float64 if dtype == "float64" else tf.float32)
    assert value.numpy()[0, 1] > 0


def test_entries_that_tie_for_the_largest_share_the_gradient():
    z = tf.constant([[1.0, -1.0, 0.5]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = distances("linf", z, tf.zeros([1, 3]))
    np.testing.assert_array_equal(tape.gradient(value, z), [[0.5, -0.5, 0.0]])


def test_zero_has_no_direction():
    z = tf.zeros([1, 3])
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = unit(z)
    np.testing.assert_array_equal(value, 0)
    np.testing.assert_array_equal(tape.gradient(value, z), 0)


def test_memory_is_of_pairs_alone():
    """No tensor of the compiled graph, its loops included, has pairs of whole latents."""
    rows, columns, d = 64, 48, 96

    @tf.function
    def step(z, others):
        with tf.GradientTape() as tape:
            tape.watch((z, others))
            total = tf.reduce_sum(distances("l1", z, others))
        return tape.gradient(total, (z, others))

    specs = [tf.TensorSpec([size, d]) for size in (rows, columns)]
    graph = step.get_concrete_function(*specs).graph
    graphs = [graph]
    sizes = []
    while graphs:
        graph = graphs.pop()
        graphs += [
            g.graph for g in getattr(graph, "_functions", {}).values() if hasattr(g, "graph")
        ]
        for operation in graph.get_operations():
            sizes += [t.shape.num_elements() or 0 for t in operation.outputs if t.shape.rank]
    assert max(sizes) < rows * columns * d
