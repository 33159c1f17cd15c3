"""Weights on the simplex: descent, projection, quadratic programs."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.attacks.multi_task.simplex import (
    descend_logits,
    minimize_quadratic,
    project_onto_simplex,
)


def gap(quadratic, linear, weights):
    """The duality gap: `w . s - min s` with the slope `s`, over the largest entry."""
    slope = np.einsum("bij,bj->bi", quadratic, weights) + linear
    largest = np.maximum(np.abs(quadratic).max((1, 2)), np.abs(linear).max(1))
    return ((weights * slope).sum(1) - slope.min(1)) / np.where(largest, largest, 1)


def programs(tasks, pixels, batch=60, seed=0):
    """Gram matrices of gradients of many sizes; some come twice, vanish, or depend on others."""
    draw = np.random.default_rng(seed)
    gradients = draw.normal(size=(batch, tasks, pixels)) * 10 ** draw.uniform(-6, 3, (batch, 1, 1))
    if tasks > 1:
        gradients[::3, 1] = gradients[::3, 0]
    gradients[::5, -1] *= 1e-4
    gradients[::7] = 0
    gradients[1::7, 0] = -gradients[1::7, 1:].sum(axis=1)  # the shortest combination is 0
    return np.einsum("bip,bjp->bij", gradients, gradients)


@pytest.mark.parametrize(("tasks", "pixels"), [(1, 3), (2, 2), (4, 3), (7, 40), (12, 5), (20, 30)])
def test_quadratic_programs_are_solved(tasks, pixels):
    """By the duality gap, which is 0 at a minimum and nowhere else."""
    quadratic = programs(tasks, pixels)
    linear = (
        np.random.default_rng(1).normal(size=(60, tasks)) * np.abs(quadratic).max((1, 2))[:, None]
    )
    for b in (np.zeros_like(linear), linear):
        weights = minimize_quadratic(tf.constant(quadratic), tf.constant(b)).numpy()
        assert weights.min() >= 0
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
        assert gap(quadratic, b, weights).max() < 1e-11


def test_no_point_of_a_grid_is_better():
    """With three tasks."""
    quadratic = programs(3, 4, batch=20)
    weights = minimize_quadratic(tf.constant(quadratic)).numpy()
    steps = np.arange(0, 1.0001, 0.02)
    grid = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1])
    least = np.einsum("gi,bij,gj->bg", grid, quadratic, grid).min(axis=1)
    found = np.einsum("bi,bij,bj->b", weights, quadratic, weights)
    assert np.all(found <= least * (1 + 1e-9) + 1e-30)


def test_programs_in_single_precision_and_with_nan():
    quadratic = tf.cast(programs(5, 8), tf.float32)
    assert minimize_quadratic(quadratic).dtype == tf.float32
    assert np.isfinite(minimize_quadratic(quadratic * np.nan)).all()


def test_an_empty_batch():
    assert minimize_quadratic(tf.zeros([0, 3, 3])).shape == [0, 3]


def test_projection():
    """The nearest point of the simplex: it sees the values at an obtuse angle to each corner."""
    values = tf.constant(np.random.default_rng(0).normal(size=(30, 6)) * 3)
    weights = project_onto_simplex(values, bisections=60).numpy()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    beyond = values.numpy() - weights
    along = beyond[:, None] * (np.eye(6) - weights[:, None])
    assert along.sum(axis=2).max() < 1e-10
    np.testing.assert_allclose(project_onto_simplex(tf.constant(weights), 60), weights, atol=1e-12)


def test_descent_is_that_of_the_softmax():
    target = tf.constant([[0.2, 0.5, 0.3]], tf.float64)
    alpha = tf.constant([[0.3, -1.0, 0.4]], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(alpha)
        value = tf.reduce_sum((tf.nn.softmax(alpha) - target) ** 2)
    found = descend_logits(alpha, lambda w, _: 2 * (w - target), 0.7, 1)
    np.testing.assert_allclose(found, alpha - 0.7 * tape.gradient(value, alpha))
    end = tf.nn.softmax(descend_logits(alpha, lambda w, _: 2 * (w - target), 1.0, 300))
    np.testing.assert_allclose(end, target, atol=1e-6)
