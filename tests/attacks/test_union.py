"""Attacks in several balls at once."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.union import as_union

# Of nine pixels: Linf lowers a sum of all by 9 * 0.2 = 1.8, L2 by 3 * 0.3 = 0.9; one pixel by 0.2
# and 0.3.
BALL = kr.UnionBall((kr.LinfBall(0.2), kr.L2Ball(0.3)))
STRATEGIES = ("msd", "max", "average")


def model(x):
    """Every second image is judged by the sum of its pixels, the others by the first one."""
    even = tf.cast(tf.range(tf.shape(x)[0]) % 2 == 0, x.dtype)
    score = even * tf.reduce_sum(x, axis=1) + (1 - even) * x[:, 0]
    return {"logits": tf.stack([score, tf.zeros_like(score)], axis=1)}


X, Y = tf.fill([4, 9], 0.5), tf.zeros([4], tf.int32)


@pytest.mark.parametrize("strategy", ["msd", "max"])
def test_each_image_is_attacked_in_its_worst_ball(strategy):
    x_adv = kr.attacks.union_pgd(BALL, 20, strategy=strategy)(model, X, Y)
    linf, l2 = BALL.distances(x_adv, X).numpy()
    np.testing.assert_allclose(linf[::2], 1, rtol=1e-5)
    np.testing.assert_allclose(l2[1::2], 1, rtol=1e-4)
    assert (l2[::2] > 1).all() and (linf[1::2] > 1).all()
    lowered = (X - x_adv).numpy()
    np.testing.assert_allclose(lowered[::2].sum(axis=1), 1.8, rtol=1e-5)
    assert (lowered[1::2, 0] > 0.27).all()  # more than Linf allows; rests of the random start


def test_the_average_attacks_each_image_in_a_random_ball():
    x, y = tf.fill([40, 9], 0.5), tf.zeros([40], tf.int32)
    linf, l2 = BALL.distances(
        kr.attacks.union_pgd(BALL, 5, strategy="average")(lambda x: model(x[:, ::-1]), x, y), x
    ).numpy()
    in_linf = np.isclose(linf, 1, rtol=1e-4)
    assert np.isclose(l2[~in_linf], 1, rtol=1e-4).all()
    assert 8 <= in_linf.sum() <= 32


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_in_a_single_ball_it_is_pgd(strategy):
    """The strategies differ in the seed of the start; from the image, they are all BIM."""
    ball = kr.LinfBall(0.2)
    attack = kr.attacks.union_pgd(ball, 3, 0.05, strategy=strategy, initialization="none")
    expected = kr.attacks.bim(ball, 3, 0.05)(model, X, Y)
    np.testing.assert_array_equal(attack(model, X, Y), expected)


def test_steps_are_fractions_of_each_radius():
    """One step of a tenth from the image: 0.02 in Linf, 0.03 in L2; also at half the radius."""
    attack = kr.attacks.union_pgd(BALL, 1, 0.1, initialization="none")
    linf, l2 = BALL.distances(attack(model, X, Y), X).numpy()
    np.testing.assert_allclose(linf[::2], 0.1, rtol=1e-4)
    np.testing.assert_allclose(l2[1::2], 0.1, rtol=1e-4)
    half = attack.compiled(model)(X, Y, radius=0.5)
    np.testing.assert_allclose(BALL.distance(half, X), 0.05, rtol=1e-4)
    assert attack.at_radius(0.5, 0.2).step_rule.size == 0.2


def test_targets():
    attack = kr.attacks.union_pgd(BALL, 5, targeted=True, strategy="max")
    x_adv = attack(model, X, Y, targets=1 - Y)
    assert (model(x_adv)["logits"][:, 0] < model(X)["logits"][:, 0] - 0.25).numpy().all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_config_holds_it(strategy):
    attack = kr.attacks.union_pgd(BALL, 5, strategy=strategy)
    stored = keras.saving.serialize_keras_object(attack)
    assert keras.saving.deserialize_keras_object(stored) == attack
    assert attack.is_random and attack.gradient_steps == 5 and not attack.takes_targets


def test_what_is_refused():
    with pytest.raises(ValueError, match="union_pgd: strategy is 'best'; expected one of 'msd'"):
        kr.attacks.union_pgd(BALL, strategy="best")
    with pytest.raises(ValueError, match="The attack MIM-10 does not take fixed steps"):
        as_union(kr.attacks.mim(BALL), "max")


# One attack in each ball.


def test_each_ball_is_attacked_in_turn():
    """Linf alone fools the sums, L2 alone the single pixels; together all, in the union."""
    above = lambda x: {"logits": model(x)["logits"] - [[0.25, 0.0]]}  # noqa: E731
    sums = lambda x: {"logits": model(x)["logits"] - [[3.0, 0.0]]}  # noqa: E731
    attack = kr.attacks.in_each_ball(kr.attacks.pgd, BALL, steps=10, step_size=0.25)
    report = kr.evaluation.evaluate(above, (X, Y), attack, radii=(0.5,))
    first, second = report.attacks[0].parts
    assert (first.name, second.name) == ("PGD-10 in LinfBall(0.2)", "PGD-10 in L2Ball(0.3)")
    # The first pixel is 0.25 above the threshold: out of reach in Linf, not in L2.
    assert (report.clean_accuracy, first.accuracy, second.accuracy) == (1.0, 1.0, 0.5)
    assert report.worst_case_accuracy == 0.5 and report.radius == 1.0
    assert report.curves[0].accuracies == (1.0, 1.0)
    found = kr.evaluation.evaluate(sums, (X[::2], Y[::2]), attack).attacks[0].parts
    assert [part.accuracy for part in found] == [0.0, 0.0]
    sizes = [part.attack.attack.step_rule.size for part in attack.rounds(2)]
    np.testing.assert_allclose(sizes, [0.05, 0.075])


def test_the_rounds_of_an_attack_stay_rounds():
    """Restarts share one attack, which is traced once."""
    attack = kr.attacks.in_each_ball(
        lambda ball: kr.attacks.restarts(kr.attacks.pgd(ball, 2), 3), BALL
    )
    rounds = attack.rounds(2)
    assert len(rounds) == 6 and len({part.fold for part in rounds}) == 6
    assert len({id(part.attack) for part in rounds[:3]}) == 1
    assert all(part.attack.ball == BALL for part in rounds)
    # Reports look at the attack itself: whether it averages gradients, say.
    assert [part.attack.inner for part in rounds[::3]] == [kr.attacks.pgd(b, 2) for b in BALL.balls]
    half = attack.at_radius(0.5)
    assert [part.attack.attack.ball.radius for part in half.rounds(2)[::3]] == [0.1, 0.15]
    stored = keras.saving.serialize_keras_object(attack)
    assert keras.saving.deserialize_keras_object(stored) == attack


def test_a_single_ball_is_attacked_itself():
    ball = kr.LinfBall(0.1)
    assert kr.attacks.in_each_ball(kr.attacks.pgd, ball, steps=3) == kr.attacks.pgd(ball, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["apgd", "boundary", "carlini_wagner", "fab", "fgsm", "hop_skip_jump", "mim", "pgd", "spsa"],
)
def test_any_attack_runs_in_a_union(name, make_classifier, make_batch):
    """As in a ball of a norm of its own, which is not the union of the worst cases."""
    classifier, (x, y) = make_classifier(classes=4), make_batch(6, classes=4)
    ball = kr.UnionBall((kr.LinfBall(0.08), kr.L2Ball(0.5), kr.L1Ball(1.2)))
    y = classifier(x)["logits"].numpy().argmax(axis=1)
    compiled = getattr(kr.attacks, name)(ball).compiled(classifier)
    for radius in (1.0, 0.5, 0.0):
        x_adv = compiled(x, y, 1, radius)
        assert np.isfinite(x_adv).all()
        assert ball.distance(x_adv, x).numpy().max() <= radius * (1 + 1e-5)
        assert x_adv.numpy().min() >= 0 and x_adv.numpy().max() <= 1
