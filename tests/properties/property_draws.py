"""Random batches for properties: Hypothesis chooses a batch, a check asserts on all of its rows.

A draw is one row: one image with its point, gradient or label. The check returns the number of
rows that it checked, and a property with too few of them fails.
"""

from __future__ import annotations

from typing import NamedTuple

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

ROWS = 8  # of a batch: few, as they share the radius and the step
DTYPES = (tf.float32, tf.float64, tf.float16, tf.bfloat16)
# The last reach beyond the largest number of float16, which is then the bound.
BOUNDS = ((0.0, 1.0), (-0.1, 0.7), (-1.0, 3.0), (0.0, 255.0), (0.0, 65535.0))
SHAPES = ((2, 3, 2), (12,))
PIXELS = 12


def in_draws(count: int):
    """Parametrizes a property by its number of draws and marks it slow.

    A property over several balls and dtypes draws for each of them, in all more than 10,000 times.
    """
    return pytest.mark.parametrize("draws", [pytest.param(count, marks=pytest.mark.slow)])


def hold(draws, strategy, check):
    """Runs `check` on draws of the strategy until `draws` rows were checked."""
    seen = 0

    @hypothesis.settings(
        max_examples=10 + draws if strategy is BATCHES else 2 * draws,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.generate],  # a simpler seed makes no simpler batch
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def run(case):
        nonlocal seen
        if seen < draws:
            seen += check(case)

    run()
    assert seen >= draws, f"only {seen} of {draws} draws were checked"


class Batch(NamedTuple):
    """The part of a batch that Hypothesis chooses; lengths in units of the range of a pixel."""

    seed: int
    count: int
    radius: float
    size: float

    @property
    def random(self):
        return np.random.default_rng(self.seed)


RADII = st.one_of(
    st.sampled_from([0.3, 8 / 255, 0.0, 1e-8, 1.0, 50.0]), st.floats(1e-6, 1.0), st.floats(1, 40)
)
SIZES = st.one_of(
    st.sampled_from([0.1, 0.01, 0.0, 1e-8, 1.0, 1e4, 1e30, 1e39]), st.floats(1e-3, 2.0)
)
BATCHES = st.builds(
    Batch, st.integers(0, 2**32 - 1), st.sampled_from([ROWS] * 7 + [1, 0]), RADII, SIZES
)


def rounded(values, dtype):
    """The values in a TensorFlow dtype, saturated at its largest number."""
    largest = float(dtype.max)
    return np.clip(values, -largest, largest).astype(dtype.as_numpy_dtype)


def exact(values):
    """The values in float64, which represents every number of the other dtypes."""
    return np.asarray(values).astype(np.float64)


def ends(bounds, dtype):
    """The bounds as numbers of the dtype."""
    return exact(rounded(np.array(bounds), dtype))


# Bits after the leading one, and the least normal number.
DIGITS = {tf.float64: 52, tf.float32: 23, tf.float16: 10, tf.bfloat16: 7}
TINY = {tf.float64: 2.0**-1022, tf.float32: 2.0**-126, tf.bfloat16: 2.0**-126, tf.float16: 2.0**-14}


def spacing(values, dtype):
    """The distance from the magnitude of each number to the next larger number of the dtype."""
    size = np.maximum(np.abs(values), TINY[dtype])
    return 2.0 ** (np.floor(np.log2(size)) - DIGITS[dtype])


def images(random, count, shape, bounds, dtype):
    """Images of all kinds, `[count, *shape]`: a row is even noise, black, white, or between."""
    low, high = ends(bounds, dtype)
    noise = random.uniform(low, high, (count, PIXELS))
    end = np.where(random.random(noise.shape) < 0.5, low, high)
    step = spacing(end, dtype)
    kinds = [
        noise,
        np.full_like(noise, low),
        np.full_like(noise, high),
        end,
        np.where(random.random(noise.shape) < 0.3, end, noise),
        np.repeat(noise[:, :1], PIXELS, axis=1),
        np.where(end == low, end + step, end - step),
        noise * 10.0 ** random.uniform(-45, -1, noise.shape),  # subnormal, and down to 0
    ]
    chosen = np.choose(random.integers(0, len(kinds), (count, 1)), kinds)
    return np.clip(exact(rounded(chosen, dtype)), low, high).reshape(count, *shape)


def points(random, x, radius, dtype):
    """Points to bring back to images `x`: not moved, inside, at the rim, outside, far, infinite."""
    flat = x.reshape(len(x), PIXELS)
    noise = random.normal(size=flat.shape)
    single = noise * (np.arange(PIXELS) == random.integers(0, PIXELS, (len(x), 1)))
    even = np.sign(noise)
    along = np.choose(random.integers(0, 3, (len(x), 1)), [noise, single, even])
    length = np.abs(along).sum(axis=1, keepdims=True) + (len(x) == 0)
    kinds = [
        np.zeros_like(flat),
        along / length * radius * random.random((len(x), 1)),
        along / length * radius * (1 + 1e-4 * random.normal(size=(len(x), 1))),
        along * radius,
        along * 10.0 ** random.uniform(-9, 4, (len(x), 1)),
        along * 10.0 ** random.uniform(4, 36, (len(x), 1)),
        along * (float(dtype.max) / 128),
    ]
    chosen = np.choose(random.integers(0, len(kinds), (len(x), 1)), kinds)
    return exact(rounded(flat + chosen, dtype)).reshape(x.shape)


def gradients(random, count, shape, dtype):
    """Gradients of all kinds: noise of any size, none, of one pixel, of ties, with zeros."""
    noise = random.normal(size=(count, PIXELS))
    kinds = [
        noise,
        np.zeros_like(noise),
        noise * (np.arange(PIXELS) == random.integers(0, PIXELS, (count, 1))),
        random.integers(-2, 3, noise.shape).astype(float),
        np.where(random.random(noise.shape) < 0.5, 0, noise),
        noise * 10.0 ** random.uniform(-20, 20, noise.shape),
    ]
    chosen = np.choose(random.integers(0, len(kinds), (count, 1)), kinds)
    reach = 4.0 if dtype == tf.float16 else 30.0  # normal numbers of the dtype
    chosen = chosen * 10.0 ** random.uniform(-reach, reach, (count, 1))
    chosen[np.abs(chosen) < 100 * TINY[dtype]] = 0
    return exact(rounded(chosen, dtype)).reshape(count, *shape)
