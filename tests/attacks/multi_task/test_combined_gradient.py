"""The combined gradient of several tasks, and its memory of finite gradients."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.attacks.multi_task import solvers
from keras_robust.attacks.multi_task.combined_gradient import CombinedGradient, gram

SLOPES = tf.constant([[1.0, 0.0], [0.0, 2.0]])
X = tf.zeros([3, 2])


def evaluate(copies, step):
    """Two linear tasks; from the second step on, the gradient of the second one is infinite."""
    scale = tf.where(step == 0, 1.0, tf.constant([1.0, np.inf])[:, None, None])
    values = tf.reduce_sum(scale * copies * SLOPES[:, None], axis=2)
    return values, values > 0


def test_the_products_of_gradients():
    gradients = tf.constant(np.random.default_rng(0).normal(size=(3, 5, 2, 4)))
    expected = np.einsum("ibxy,jbxy->bij", gradients, gradients)
    np.testing.assert_allclose(gram(gradients), expected)
    assert gram(gradients[:, :0]).shape == [0, 3, 3]


def test_huge_products_are_finite():
    huge = tf.constant([[[1e30, 1e30]], [[1e30, -1e30]]])
    assert np.isfinite(gram(huge)).all() and gram(huge)[0, 0, 0] == 1e30


def test_a_nonfinite_gradient_is_replaced_by_the_last_finite_one():
    oracle = CombinedGradient(evaluate, solvers.EqualWeights(), 2)
    state = oracle.init(X)
    for _ in range(3):
        _, gradient, state = oracle(X, state)
        np.testing.assert_allclose(gradient, np.tile([0.5, 1.0], (3, 1)))


def test_without_memory_a_nonfinite_gradient_is_zero():
    oracle = CombinedGradient(evaluate, solvers.EqualWeights(), 2, memory=False)
    state, seen = oracle.init(X), []
    for _ in range(2):
        _, gradient, state = oracle(X, state)
        seen.append(gradient[0].numpy().tolist())
    assert seen == [[0.5, 1.0], [0.5, 0.0]]


def test_before_the_first_finite_gradient_it_is_zero():
    oracle = CombinedGradient(evaluate, solvers.EqualWeights(), 2)
    _, gradient, state = oracle(X, oracle.init(X)._replace(step=tf.constant(1)))
    np.testing.assert_allclose(gradient, np.tile([0.5, 0.0], (3, 1)))
    np.testing.assert_array_equal(state.gradients[1], X)


def test_one_image_keeps_its_gradient_while_another_loses_it():
    def ill(copies, step):
        values, achieved = evaluate(copies, 0 * step)
        lost = tf.constant([[1.0, 1.0, 1.0], [1.0, np.nan, 1.0]])
        return values * tf.where(step == 0, tf.ones_like(lost), lost), achieved

    oracle = CombinedGradient(ill, solvers.MinNorm(exact=True), 2)
    _, first, state = oracle(X, oracle.init(X))
    _, second, _ = oracle(X, state)
    # The shortest sum of (1, 0) and (0, 2) is 4/5 of the one and 1/5 of the other.
    np.testing.assert_allclose(first, np.tile([0.8, 0.4], (3, 1)), rtol=1e-6)
    np.testing.assert_allclose(second, first)


def test_the_value_is_the_weighted_sum():
    oracle = CombinedGradient(evaluate, solvers.EqualWeights(), 2)
    value, _, state = oracle(X + 1, oracle.init(X))
    np.testing.assert_allclose(value, [1.5] * 3)
    np.testing.assert_allclose(state.record.weights, 0.5)
    assert state.record.achieved.numpy().all() and int(state.step) == 1


def test_no_path_to_the_input_is_an_error():
    oracle = CombinedGradient(
        lambda copies, _: (tf.ones([2, 3]), tf.ones([2, 3]) > 0), solvers.HVM(), 2
    )
    with pytest.raises(ValueError, match="do not depend on its input"):
        oracle(X, oracle.init(X))


@pytest.mark.parametrize("solver", [solvers.MinMax(learning_rate=0.1, gamma=0.0), solvers.HVM()])
def test_a_nonfinite_value_is_replaced_by_the_last_finite_one(solver):
    """The solver sees values 1 and 2 at each step, whatever the second task says later."""
    ends = []
    for late in (2.0, np.nan, np.inf):

        def values_of(copies, step, late=late):
            second = tf.where(step == 1, tf.constant(late, tf.float32), 2.0)
            values = tf.stack([1.0, second])[:, None] + tf.reduce_sum(
                copies * SLOPES[:, None], axis=2
            )
            return values, values > 0

        oracle = CombinedGradient(values_of, solver, 2)
        state = oracle.init(X)
        for _ in range(4):
            _, gradient, state = oracle(X, state)
            assert np.all(np.isfinite(gradient))
        ends.append((gradient, state.record.weights, state.record.values))
    for found in ends[1:]:
        for one, other in zip(ends[0], found, strict=True):
            np.testing.assert_allclose(one, other)
