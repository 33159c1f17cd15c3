"""Results of every attack in every ball are finite, inside the ball and inside the range."""

from __future__ import annotations

import keras
import numpy as np
import property_attacks as attacks
import property_draws as draw
import property_reference as reference
import pytest
from property_attacks import ROWS, SETTINGS, TABLE, kinds_of, one_trial, trial
from property_draws import BATCHES, hold, in_draws

import keras_robust as kr

every_attack = pytest.mark.parametrize("name", ROWS)


def test_every_attack_is_here():
    """A new attack needs a row in the table of the contracts."""
    assert {name.split()[0] for name in ROWS} == set(kr.attacks.__all__) - {
        "per_member",
        "transfer",
    } - {name for name, row in TABLE.items() if row.norms == ("l0",)}


def trials(name):
    """Trials in one ball and setting that differ from attack to attack, and in every ball."""
    first = list(ROWS).index(name)
    more = [trial(name, kind, (first + k) % len(SETTINGS)) for k, kind in enumerate(kinds_of(name))]
    return [one_trial(name), *more]


@every_attack
@in_draws(1200)
def test_it_stays_inside_whatever_the_model(name, draws):
    """Any radius and step; huge, tiny, constant, saturated logits; NaN gradients."""
    cases = trials(name)
    for case in cases:

        def check(batch, case=case):
            case.model.change(batch.random)
            x, y, targets, seed, radius, size = case.draw(batch)
            x_adv = case.run(x, y, targets, seed, radius, size)
            assert x_adv.dtype == case.dtype and x_adv.shape == x.shape
            before, after = draw.exact(x.numpy()), draw.exact(x_adv.numpy())
            reference.assert_inside(case.attack.ball, float(radius), after, before, case.dtype)
            return len(before)

        hold(-(-draws // len(cases)), BATCHES, check)


@every_attack
@in_draws(600)
def test_huge_logits_give_finite_images(name, draws):
    """Of 1e30, in a Keras model attacked by `compiled`."""
    inputs = keras.Input((draw.PIXELS,))
    logits = keras.layers.Dense(attacks.CLASSES)(inputs)
    model = keras.Model(inputs, {"logits": keras.layers.Rescaling(1e30)(logits)})
    row, ball = ROWS[name], kinds_of(name)[-1](0.4)
    compiled = row.build(ball).compiled(model)

    def check(batch):
        random = batch.random
        x = draw.images(random, draw.ROWS, (draw.PIXELS,), ball.bounds, draw.DTYPES[0])
        y = random.integers(0, attacks.CLASSES, draw.ROWS)
        extra = {"targets": (y + 1) % attacks.CLASSES} if row.targeted else {}
        x_adv = compiled(x.astype("float32"), y, batch.seed, **extra).numpy()
        reference.assert_inside(ball, 0.4, draw.exact(x_adv), x, draw.DTYPES[0])
        return np.count_nonzero(np.isfinite(x_adv).all(axis=1))

    hold(draws, BATCHES, check)
