"""Invalid batches are refused before the model is called, eagerly and compiled."""

from __future__ import annotations

import hypothesis.strategies as st
import keras
import numpy as np
import property_draws as draw
import pytest
import tensorflow as tf
from property_attacks import CLASSES, ROWS, kinds_of
from property_draws import hold, in_draws

import keras_robust as kr

PIXELS = 4
CALLS = []


class Counting(keras.layers.Layer):
    """The identity; it records its calls."""

    def call(self, x):
        CALLS.append(x.shape)
        return x


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((PIXELS,))
    logits = keras.layers.Dense(CLASSES, name="logits")(Counting()(inputs))
    return keras.Model(inputs, {"logits": logits})


def function(x):
    """A classifier with an unknown number of classes."""
    CALLS.append(x.shape)
    return {"logits": x}


def with_pixel(value):
    """A change that replaces one pixel of one image; the value may depend on the bounds."""

    def change(random, x, bounds):
        x = x.copy()
        where = tuple(random.integers(0, size) for size in x.shape)
        x[where] = value(*(x.dtype.type(bound) for bound in bounds))
        return x

    return change


def beyond_rounding(bounds, dtype, side):
    """The least that does not count as rounding: above four units in the last place."""
    low, high = bounds
    step = 5 * np.finfo(dtype).eps * max(abs(float(low)), abs(float(high)))
    return np.array(high + step if side > 0 else low - step, dtype)


IMAGES = {
    "a NaN": with_pixel(lambda low, high: np.nan),
    "infinity": with_pixel(lambda low, high: np.inf),
    "minus infinity": with_pixel(lambda low, high: -np.inf),
    "a hair above": with_pixel(lambda low, high: beyond_rounding((low, high), high.dtype, 1)),
    "a hair below": with_pixel(lambda low, high: beyond_rounding((low, high), low.dtype, -1)),
    "far above": with_pixel(lambda low, high: 3e4),
    "far below": with_pixel(lambda low, high: -3e4),
    "bytes": lambda random, x, bounds: np.ones(x.shape, "uint8"),
    "integers": lambda random, x, bounds: np.zeros(x.shape, "int64"),
    "truths": lambda random, x, bounds: np.ones(x.shape, bool),
    "complex": lambda random, x, bounds: x.astype("complex64"),
    "words": lambda random, x, bounds: np.full(x.shape, "a"),
    "objects": lambda random, x, bounds: np.full(x.shape, None),
    "None": lambda random, x, bounds: None,
    "ragged": lambda random, x, bounds: [[0.5], [0.5, 0.5]],
    "a number": lambda random, x, bounds: 0.5,
    "one image too many": lambda random, x, bounds: np.concatenate([x, x[:1]]),
}
LABELS = {
    "None": lambda random, y: None,
    "floats": lambda random, y: y.astype("float32"),
    "truths": lambda random, y: y > 1,
    "words": lambda random, y: y.astype(str),
    "soft labels": lambda random, y: np.eye(CLASSES)[y] * 0.9,
    "a row": lambda random, y: y[None, :, None],
    "a number": lambda random, y: int(y[0]),
    "one too few": lambda random, y: y[1:],
    "ragged": lambda random, y: [[1], [1, 2]],
    "negative": lambda random, y: np.where(np.arange(len(y)) == random.integers(len(y)), -1, y),
    "a class too many": lambda random, y: np.append(y[1:], CLASSES),
}
SEEDS = [None, 1.5, True, "7", (1, 2, 3), [[1, 2]], 2**70, np.nan]
RADII = [-0.1, np.nan, np.inf, "0.1", [0.1, 0.2], np.float32(-1), np.array([0.1, 0.2]), True]


# Words of which each error has one.
EXPECTED_WORDS = ("expected", "without targets", "does not use")


class Call:
    """An attack and valid arguments, of which a test spoils one."""

    def __init__(self, seed, model):
        self.random = np.random.default_rng(seed)
        self.name = str(self.random.choice(list(ROWS)))
        self.model, self.targeted = model, ROWS[self.name].targeted
        self.bounds = draw.BOUNDS[self.random.integers(len(draw.BOUNDS) - 1)]
        self.attack = ROWS[self.name].build(kinds_of(self.name)[-1](0.1, self.bounds))
        dtype = self.random.choice(["float16", "float32", "float64"])
        count = self.random.integers(2, 5)
        low, high = (float(np.array(bound, dtype)) for bound in self.bounds)
        x = np.clip(self.random.uniform(low, high, (count, PIXELS)).astype(dtype), low, high)
        y = self.random.integers(0, CLASSES, count)
        self.given = {"x": x.astype(dtype), "y": y, "seed": int(self.random.integers(1000))}
        if self.targeted:
            self.given["targets"] = (y + 1) % CLASSES

    def spoil(self):
        """Makes one argument invalid; returns its name and how."""
        parts = ["x", "y", "seed", "radius", "targets"]
        part = parts[self.random.integers(len(parts))]
        if part == "x":
            kind = self.choose(list(IMAGES))
            self.given["x"] = IMAGES[kind](self.random, self.given["x"], self.bounds)
        elif part == "seed":
            kind = self.given["seed"] = self.choose(SEEDS)
        elif part == "radius":
            kind = self.given["radius"] = self.choose(RADII)
        elif part == "targets" and not self.targeted:
            kind = "not targeted"
            self.given["targets"] = self.given["y"]
        else:
            # The classes of a function are not known before it is called.
            kinds = list(LABELS)[: -1 if self.model is function else None]
            kind = self.choose(kinds)
            self.given[part] = LABELS[kind](self.random, self.given[part])
        return part, kind

    def choose(self, values):
        return values[self.random.integers(len(values))]

    def run(self, compiled):
        given = dict(self.given)
        if compiled:
            return self.attack.compiled(self.model)(given.pop("x"), given.pop("y"), **given)
        return self.attack(self.model, given.pop("x"), given.pop("y"), **given)


@in_draws(10_000)
def test_invalid_batches_are_refused_before_the_model_is_called(model, draws):
    """By an error that says what was expected."""

    def check(seed):
        call = Call(seed, model if seed % 2 else function)
        part, kind = call.spoil()
        for compiled in (True,) if part == "radius" else (False, True):
            CALLS.clear()
            with pytest.raises((TypeError, ValueError)) as caught:
                call.run(compiled)
            about = (call.name, part, kind, compiled, str(caught.value))
            assert not CALLS, about
            assert not isinstance(caught.value, tf.errors.OpError), about
            assert any(words in str(caught.value) for words in EXPECTED_WORDS), about
        return 1

    hold(draws, st.integers(0, 2**32 - 1), check)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({name.split()[0] for name in ROWS}))
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_valid_batches_are_attacked(name, compiled, model):
    """The counter works: with valid arguments the model is called."""
    seed = next(s for s in range(1000) if Call(s, model).name == name)
    call = Call(seed, model)
    CALLS.clear()
    assert call.run(compiled).shape == call.given["x"].shape
    assert CALLS


@in_draws(1000)
def test_batches_on_the_bounds_are_accepted(draws):
    """Every pixel is a bound, as its dtype has it, which may lie outside the bound by a rounding;
    and what an attack gives may be attacked again."""

    def check(seed):
        random = np.random.default_rng(seed)
        low, high = sorted(random.normal(size=2) * 10 ** random.uniform(-3, 3))
        dtype = [tf.float16, tf.float32, tf.float64, tf.bfloat16][random.integers(4)]
        if not float(tf.cast(low, dtype)) < float(tf.cast(high, dtype)):
            return 1
        attack = kr.attacks.fgsm(kr.LinfBall((high - low) / 3, (low, high)))
        x = tf.constant(draw.rounded(random.choice([low, high], (2, CLASSES)), dtype), dtype)
        y = random.integers(0, CLASSES, 2)
        attack(lambda x: {"logits": x}, attack(lambda x: {"logits": x}, x, y), y)
        return 2

    hold(draws, st.integers(0, 2**32 - 1), check)
