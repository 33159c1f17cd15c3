"""Random numbers: those of TensorFlow's kernels, and the same under XLA."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import keras_robust
from keras_robust.core import random

SEED = tf.constant([7, 2])
SHAPES = ([5, 3], [64], [1, 1, 1, 1], [0, 3])


def draws(seed, shape):
    return {
        "uniform": random.uniform(shape, seed, -1.0, 1.0),
        "unit": random.uniform(shape, seed),
        "integers": random.integers(shape, seed, 2),
        "bits": random.bits(shape, seed),
        "normal": random.normal(shape, seed),
        "split": random.split(seed, 3),
        "fold_in": random.fold_in(seed, 5),
    }


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_they_are_those_of_the_kernels_for_the_cpu(shape):
    """So that results are the same as those that were drawn by `tf.random`."""
    found = draws(SEED, shape)
    expected = {
        "uniform": tf.random.stateless_uniform(shape, SEED, -1.0, 1.0),
        "unit": tf.random.stateless_uniform(shape, SEED),
        "integers": tf.random.stateless_uniform(shape, SEED, 0, 2, tf.int32),
        "bits": tf.random.stateless_uniform(shape, SEED, None, None, tf.int32),
        "split": tf.random.split(SEED, 3),
        "fold_in": tf.random.experimental.stateless_fold_in(SEED, 5),
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    expected = tf.random.stateless_normal(shape, SEED)
    np.testing.assert_allclose(found["normal"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_xla_draws_the_same(shape):
    compiled = tf.function(lambda seed: draws(seed, shape), jit_compile=True, autograph=False)
    found, expected = compiled(SEED), draws(SEED, shape)
    np.testing.assert_allclose(found.pop("normal"), expected.pop("normal"), rtol=1e-4, atol=1e-5)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_shapes_may_be_tensors():
    found = tf.function(lambda x: random.normal(tf.shape(x), SEED))(tf.zeros([3, 5]))
    np.testing.assert_allclose(found, random.normal([3, 5], SEED), atol=1e-6)


@pytest.mark.parametrize("dtype", [tf.float64, tf.float16])
def test_other_dtypes(dtype):
    assert random.uniform([2], SEED, dtype=dtype).dtype == dtype
    assert random.normal([2], SEED, dtype).dtype == dtype


def test_numbers_of_other_distributions_are_those_of_the_kernels_for_the_cpu():
    permutation = tf.random.experimental.stateless_shuffle(tf.range(9), SEED)
    np.testing.assert_array_equal(random.permutation(9, SEED), permutation)
    alpha = tf.constant(0.3, tf.float64)
    gamma = tf.random.stateless_gamma([2, 5], SEED, alpha, dtype=tf.float64)
    np.testing.assert_array_equal(random.gamma([2, 5], SEED, 0.3), gamma)
    ends = random.uniform([50], SEED, 0.3, 0.7)
    np.testing.assert_array_equal(ends, tf.random.stateless_uniform([50], SEED, 0.3, 0.7))


def test_a_single_number():
    assert random.normal([], SEED).shape == []
    assert random.uniform([], SEED).shape == []


def test_no_other_file_draws_by_tensorflow():
    """Elsewhere the device would choose the generator, or XLA its own floats."""
    root = Path(keras_robust.__file__).parent
    drawn = re.compile(r"tf\.random\.(?!experimental\.index_shuffle)\w+[.\w]*\(|StatelessRandom")
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if drawn.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"core/random.py"}


def test_normal_numbers_have_the_moments():
    values = random.normal([20001], SEED).numpy()
    assert abs(values.mean()) < 0.03 and abs(values.std() - 1) < 0.03
    assert np.isfinite(values).all()
