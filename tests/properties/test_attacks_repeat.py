"""The result of an image is a function of the seed, whatever else is in the batch."""

from __future__ import annotations

import numpy as np
import property_draws as draw
import pytest
import tensorflow as tf
from property_attacks import ROWS, one_trial
from property_draws import BATCHES, hold, in_draws

every_attack = pytest.mark.parametrize("name", ROWS)


@every_attack
@in_draws(800)
def test_the_same_seed_gives_the_same_bits(name, draws):
    case = one_trial(name)

    def check(batch):
        case.model.change(batch.random)
        arguments = case.draw(batch)
        first, second = (case.run(*arguments).numpy() for _ in range(2))
        assert first.tobytes() == second.tobytes()
        return len(first)

    hold(draws, BATCHES, check)


@every_attack
@in_draws(800)
def test_the_result_of_an_image_does_not_depend_on_its_batch(name, draws):
    """Every other row is replaced by images whose gradients may be NaN; the rest keep their bits.

    Rows keep their places, as the random numbers of a seed depend on them.
    """
    case = one_trial(name)

    def check(batch):
        random = batch.random
        case.model.change(random)
        x, y, targets, *rest = case.draw(batch)
        replaced = np.arange(batch.count) % 2 == 0
        others = draw.images(random, batch.count, case.shape, case.bounds, case.dtype)
        others[:, ..., 0] = case.bounds[0] if random.random() < 0.5 else others[:, ..., 0]
        others = tf.constant(others, case.dtype)
        other_y = (y + random.integers(0, 4, batch.count)) % 4
        shape = (-1, *[1] * len(case.shape))
        other_x = tf.where(replaced.reshape(shape), others, x)
        other_targets = tf.where(replaced, (other_y + 1) % 4, targets)
        first = case.run(x, y, targets, *rest).numpy()
        second = case.run(other_x, tf.where(replaced, other_y, y), other_targets, *rest).numpy()
        assert first[~replaced].tobytes() == second[~replaced].tobytes()
        return int((~replaced).sum())

    hold(draws, BATCHES, check)
