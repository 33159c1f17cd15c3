"""Restarts, worst of several, every class as target: rounds and results."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import fgsm, mim, multi_targeted, pgd, restarts, worst_of
from keras_robust.attacks.crafting.base import Attack

BALL = kr.LinfBall(0.2)
PGD, MIM = pgd(BALL, 2), mim(BALL, 2)
AIMED = pgd(BALL, 2, targeted=True)
CLEAN = tf.zeros([3, 2])
Y = tf.constant([0, 0, 0])


WIDE = kr.LinfBall(9.0, (-9.0, 9.0))


@dataclasses.dataclass(frozen=True)
class Moves(Attack):
    """Adds a row per image to the second pixel, which is the margin of label 0 below."""

    by: tuple[float, ...]
    ball: kr.LinfBall = WIDE
    name: str = "moves"

    def craft(self, forward, x, y, seed, targets):
        return x + tf.constant([[0.0, value] for value in self.by])

    def at_radius(self, radius, step_size=None):
        return self


@dataclasses.dataclass(frozen=True)
class Draws(Moves):
    """Adds a number drawn from the seed."""

    def craft(self, forward, x, y, seed, targets):
        return x + tf.random.stateless_uniform([3, 1], seed) * [[0.0, 1.0]]


def identity(x):
    return {"logits": x}


# Results.


def test_the_largest_margin_of_each_image_is_kept():
    """Margins are the second pixel: columns (1, -1, 2), (3, -2, 1) -> 3, 0 (the clean one), 2."""
    attack = worst_of(Moves((1.0, -1.0, 2.0)), Moves((3.0, -2.0, 1.0)))
    np.testing.assert_array_equal(attack(identity, CLEAN, Y)[:, 1], [3, 0, 2])


def test_nan_candidates_are_skipped():
    attack = worst_of(Moves((1.0, np.nan, np.nan)), Moves((np.nan, 2.0, -1.0)))
    np.testing.assert_array_equal(attack(identity, CLEAN, Y)[:, 1], [1, 2, 0])


def test_a_misclassified_tie_beats_a_correct_one():
    """Of tied logits the first is predicted: (0, 1, 1) is right for label 1 and (1, 1, 0) is wrong,
    though the margin of both is 0."""
    logits = tf.constant([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])  # of the clean image, and of the moved

    def model(x):
        return {"logits": tf.gather(logits, tf.cast(x[:, 1], tf.int32))}

    label = tf.constant([1])
    found = worst_of(Moves((1.0,)), Moves((0.0,)))(model, tf.zeros([1, 2]), label)
    np.testing.assert_array_equal(found[:, 1], [1])


def test_restarts_keep_the_best_draw():
    single = Draws((0.0,))
    draws = [single.craft(None, CLEAN, Y, r.seed(7), None) for r in restarts(single, 4).rounds(2)]
    kept = restarts(single, 4)(identity, CLEAN, Y, seed=7)
    np.testing.assert_array_equal(kept, np.max(draws, axis=0))
    assert len({float(d[0, 1]) for d in draws}) == 4


def test_more_restarts_are_no_weaker():
    margins = [restarts(Draws((0.0,)), n)(identity, CLEAN, Y, seed=7)[:, 1] for n in (1, 2, 5, 9)]
    assert (np.diff(margins, axis=0) >= 0).all()


def test_multi_targeted_finds_the_nearest_of_all_boundaries():
    """On a linear classifier, one step of length r towards class t adds r |w_t - w_y|_1 to
    z_t - z_y: the image is fooled exactly where that makes some t positive, and what is kept is the
    largest margin among the candidates."""
    random = np.random.default_rng(0)
    weights = random.normal(size=(5, 4))
    x = random.uniform(0.4, 0.6, (60, 5))
    bias = -0.5 * weights.sum(axis=0)  # puts the grey image where all boundaries meet
    logits = x @ weights + bias
    y = logits.argmax(axis=1)

    def model(x):
        return {"logits": x @ tf.constant(weights, x.dtype) + bias}

    attack = multi_targeted(fgsm(kr.LinfBall(0.02), loss="margin", targeted=True))
    across = weights[:, None, :] - weights[:, :, None]  # [pixel, y, t]
    gaps = logits - logits[np.arange(60), y][:, None]
    reach = gaps + 0.02 * np.abs(across).sum(axis=0)[y]
    reach[np.arange(60), y] = -np.inf
    margins = kr.losses.margin(model(attack(model, x, y))["logits"], y).numpy()
    np.testing.assert_array_equal(margins > 0, reach.max(axis=1) > 0)
    assert 0.1 < (margins > 0).mean() < 0.9
    candidates = np.stack([x + 0.02 * np.sign(across[:, y, (y + k) % 4].T) for k in (1, 2, 3)])
    moved = candidates @ weights + bias
    own = np.take_along_axis(moved, np.broadcast_to(y[:, None], (3, 60, 1)), 2)
    np.put_along_axis(moved, np.broadcast_to(y[:, None], (3, 60, 1)), -np.inf, 2)
    np.testing.assert_allclose(margins, (moved - own).max(axis=2).max(axis=0))


# Rounds.


def rounds(attack, classes=4):
    return [(part.attack, part.fold, part.offset) for part in attack.rounds(classes)]


def test_rounds_of_restarts():
    assert rounds(restarts(PGD, 3)) == [(PGD, 0, None), (PGD, 1, None), (PGD, 2, None)]


def test_rounds_of_worst_of():
    assert rounds(worst_of(PGD, MIM)) == [(PGD, 0, None), (MIM, 1, None)]


def test_rounds_of_multi_targeted():
    assert rounds(multi_targeted(AIMED)) == [(AIMED, 1, 1), (AIMED, 2, 2), (AIMED, 3, 3)]


@pytest.mark.parametrize(
    ("attack", "count"),
    [
        (restarts(restarts(PGD, 2), 3), 6),
        (restarts(worst_of(PGD, MIM), 2), 4),
        (worst_of(restarts(PGD, 3), multi_targeted(AIMED), MIM), 7),
        (restarts(multi_targeted(AIMED), 2), 6),
        (restarts(worst_of(restarts(PGD, 3), MIM), 2), 8),
        (restarts(worst_of(multi_targeted(AIMED), restarts(PGD, 5)), 3), 24),
    ],
)
def test_nested_rounds_never_repeat_themselves(attack, count):
    found = rounds(attack)
    assert len(found) == len(set(found)) == count


def test_names():
    assert restarts(PGD, 5).name == "PGD-2 x 5"
    assert worst_of(PGD, MIM).name == "worst of PGD-2, MIM-2"
    assert multi_targeted(AIMED).name == "multi-targeted PGD-2"


@pytest.mark.parametrize(
    "attack", [restarts(PGD, 2), worst_of(PGD, MIM), multi_targeted(AIMED)], ids=lambda a: a.name
)
def test_at_radius_reaches_the_parts(attack):
    smaller = attack.at_radius(0.1)
    assert attack.ball == BALL and smaller.ball == kr.LinfBall(0.1)
    for old, new in zip(attack.rounds(3), smaller.rounds(3), strict=True):
        assert new.attack == old.attack.at_radius(0.1) and new[1:] == old[1:]
    sized = attack.at_radius(0.1, step_size=0.03)
    assert all(part.attack.step_rule.size == 0.03 for part in sized.rounds(3))


# Errors.


@pytest.mark.parametrize("count", [0, -1, 2.5, "3", None, True])
def test_count(count):
    with pytest.raises(ValueError, match=r"Restarts: count is .*an integer >= 1"):
        restarts(PGD, count)


def test_no_attacks():
    with pytest.raises(ValueError, match="WorstOf: no attacks"):
        worst_of()


def test_different_balls():
    with pytest.raises(ValueError, match=r"different balls, LinfBall.*L2Ball"):
        worst_of(PGD, pgd(kr.L2Ball(0.2)))
    with pytest.raises(ValueError, match="different balls"):
        worst_of(PGD, pgd(kr.LinfBall(0.3)))


def test_untargeted_attacks_have_no_targets():
    for attack in (PGD, restarts(PGD, 2)):
        with pytest.raises(ValueError, match=r"MultiTargeted.*targeted=True"):
            multi_targeted(attack)


def test_combinations_choose_their_targets():
    for attack in (multi_targeted(AIMED), restarts(PGD, 2), worst_of(PGD, MIM)):
        with pytest.raises(ValueError, match=r"with targets, which it does not use"):
            attack(identity, CLEAN, Y, targets=Y)


@pytest.mark.parametrize(
    "part", [BALL, pgd, "pgd", None, (PGD, MIM)], ids=["ball", "factory", "name", "none", "tuple"]
)
def test_parts_are_attacks(part):
    with pytest.raises(TypeError, match=r"Restarts: the attack is .*expected an attack"):
        restarts(part, 2)
    with pytest.raises(TypeError, match=r"WorstOf: the attack is .*expected an attack"):
        worst_of(PGD, part)


def test_targeted_attacks_are_wrapped_first():
    """Otherwise targets are lost: the worst for the label is not the closest to the target."""
    with pytest.raises(ValueError, match=r"Restarts: .*PGD-2 is targeted.*multi_targeted"):
        restarts(AIMED, 2)
    with pytest.raises(ValueError, match=r"WorstOf: .*PGD-2 is targeted.*multi_targeted"):
        worst_of(PGD, AIMED)


@pytest.mark.parametrize("attack", [fgsm(BALL), MIM, worst_of(MIM, fgsm(BALL))], ids=str)
def test_restarts_need_randomness(attack):
    assert not attack.is_random
    with pytest.raises(ValueError, match="does not depend on the seed.*expected an attack with"):
        restarts(attack, 2)


def test_multi_targeted_checks_what_it_wraps():
    with pytest.raises(TypeError, match="MultiTargeted: the attack is .*expected an attack"):
        multi_targeted(BALL)
    with pytest.raises(ValueError, match="PGD-2 is untargeted; expected a targeted one"):
        multi_targeted(PGD)
    with pytest.raises(ValueError, match="MultiTargeted: .*one batch per member"):
        multi_targeted(kr.attacks.per_member(AIMED))


def test_members_of_wrappers():
    """A wrapper declares what the attack inside declares."""
    attack = kr.attacks.transfer(restarts(PGD, 3), identity)
    assert attack.inner == PGD and attack.gradient_steps == 2 and attack.is_random
    assert PGD.inner is PGD and PGD.step_rule.size == 0.25 and attack.step_rule is None
    assert AIMED.takes_targets and not multi_targeted(AIMED).takes_targets
    assert multi_targeted(AIMED).inner == AIMED
    square = kr.attacks.square(BALL)
    assert square.gradient_steps is None and worst_of(square, PGD, MIM).gradient_steps == 2
    assert worst_of(square).gradient_steps is None and square.is_random
