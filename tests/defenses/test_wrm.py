"""WRM: its price, from numbers derived by hand."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.experiments.recipes import build, defense_options, schema
from trainers import recipes

# Pixels of any size, so that bounds play no part.
BALL = kr.L2Ball(1.0, bounds=(-100.0, 100.0))


def linear(slope=3.0):
    """Two logits `(0, -slope x)` of one pixel: for class 0 the cross-entropy is log(1 + e^-sx)."""
    inputs = keras.Input((1, 1, 1))
    flat = keras.layers.Flatten()(inputs)
    logits = keras.layers.Dense(2, use_bias=False)(flat)
    model = keras.Model(inputs, {"logits": logits, "features": flat})
    model.set_weights([np.array([[0.0, -slope]], "float32")])
    return model


def loss_slope(x, slope=3.0):
    """The derivative of the cross-entropy of class 0, with logits 0 and `-slope x`."""
    return -slope / (1 + np.exp(slope * x))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_steps_by_hand(steps):
    """d <- d + (loss' - 2 gamma d) / (2 gamma sqrt(t + 1)), from d = 0; as many as were asked."""
    model, d, gamma = kr.defenses.wrm(linear(), BALL, gamma=0.7, steps=steps), 0.0, 0.7
    for t in range(steps):
        d += (loss_slope(0.2 + d) - 2 * gamma * d) / (2 * gamma * np.sqrt(t + 1))
    x = tf.constant(0.2, shape=[1, 1, 1, 1])
    found = float((model.craft(x, tf.constant([0])) - x)[0, 0, 0, 0])
    assert found == pytest.approx(d, rel=1e-4)


def test_it_maximizes_the_loss_minus_gamma_times_the_squared_distance():
    gamma = 2.0
    model = kr.defenses.wrm(linear(), BALL, gamma=gamma, steps=60)
    x = tf.constant(0.2, shape=[1, 1, 1, 1])
    found = float((model.craft(x, tf.constant([0])) - x)[0, 0, 0, 0])
    grid = np.linspace(-2, 2, 400_001)
    value = np.log1p(np.exp(-3 * (0.2 + grid))) - gamma * grid**2
    assert found == pytest.approx(grid[value.argmax()], abs=1e-3)


def test_the_default_is_the_released_price_of_mnist():
    """eps = 1.3 there: the loss minus `|d|^2 / (2 eps)`, with a first step of eps."""
    rule = kr.defenses.wrm(linear(), BALL).attack.step_rule
    assert rule.size == pytest.approx(1.3) and rule.multiplier == pytest.approx(1 / 1.3)
    assert kr.defenses.wrm(linear(), BALL).attack.steps == 15


@pytest.mark.parametrize(
    ("name", "gamma"),
    [
        ("mnist", 0.05),
        ("mnist_thesis", 0.05),
        ("cifar10", 0.5),
        ("cifar10_small", 0.5),
        ("digits", 0.05),
        ("toy", 400 * 0.5 / 1.3),  # a side of 20 in the plane is 1 here
    ],
)
def test_prices_of_the_recipes(name, gamma):
    config = recipes.load(f"{name}/wrm")
    build.check(config)
    assert config.defense.options.gamma == pytest.approx(gamma)
    assert config.defense.options.steps == 15


def test_a_recipe_of_release_0_1_keeps_its_price():
    """It subtracted `multiplier * |d|^2 / 2`."""
    assert defense_options.resolved("wrm", {"steps": 15, "multiplier": 1.3}) == {
        "steps": 15,
        "gamma": 0.65,
    }
    with pytest.raises(ValueError, match="multiplier is -1"):
        defense_options.resolved("wrm", {"multiplier": -1.0})
    with pytest.raises(ValueError, match="has no option 'multiplier'"):
        defense_options.resolved("wrm", {"multiplier": 1.0, "gamma": 1.0})


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"steps": 15}, {"steps": 15, "gamma": 0.65}),
        ({"multiplier": 2.0}, {"gamma": 1.0}),
        ({"gamma": 0.3}, {"gamma": 0.3}),
    ],
)
def test_a_recipe_file_of_release_0_1(options, found):
    """Its recipes left the multiplier at 1.3."""
    path = Path(__file__).parents[1] / "experiments" / "recipes" / "recipe_0_1.json"
    document = json.loads(path.read_text("utf-8"))
    document["defense"] = {"name": "wrm", "options": options}
    read = schema.from_document(document).defense.options.to_dict()
    assert defense_options.resolved("wrm", read) == found


def test_what_is_refused():
    with pytest.raises(ValueError, match="wrm: gamma is -1"):
        kr.defenses.wrm(linear(), BALL, gamma=-1.0)
    with pytest.raises(TypeError, match="no option 'multiplier'; expected one of gamma"):
        kr.defenses.wrm(linear(), BALL, multiplier=1.0)
