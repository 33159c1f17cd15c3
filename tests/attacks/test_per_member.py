"""An attack on each member of an ensemble alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import multi_targeted, per_member, pgd, restarts, worst_of

BALL = kr.LinfBall(0.1)
BIM = kr.attacks.bim(BALL, 3)  # without a random start


@pytest.fixture(scope="module")
def members(make_classifier):
    return [make_classifier(seed=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def ensemble(members):
    return kr.models.ensemble(members)


def test_each_batch_is_the_attack_on_its_member(members, ensemble, tiny_batch):
    found = per_member(BIM)(ensemble, *tiny_batch)
    assert isinstance(found, tuple) and len(found) == 3
    for x_adv, member in zip(found, members, strict=True):
        np.testing.assert_allclose(x_adv, BIM(member, *tiny_batch), atol=1e-6)
    assert np.any(found[0] != found[1])


def test_random_starts_differ_between_members(members, tiny_batch):
    """Two members of the same weights are attacked from different points."""
    twin = keras.models.clone_model(members[0])
    twin.set_weights(members[0].get_weights())
    first, second = per_member(pgd(BALL, 0))(kr.models.ensemble([members[0], twin]), *tiny_batch)
    assert np.all(np.any(first != second, axis=(1, 2, 3)))


@pytest.mark.parametrize("graph", [False, True])
def test_an_attack_on_a_member_runs_that_member_alone(make_classifier, tiny_batch, graph):
    """Members count their passes; each takes part in its own ascent, and in no other."""
    passes = [0, 0]

    def counted(number, member):
        def forward(x):
            passes[number] += 1
            return member(x, training=False)

        return forward

    def whole(x):
        raise AssertionError("the ensemble was run")

    networks = [make_classifier(seed=seed) for seed in range(2)]
    whole.members = [counted(*pair) for pair in enumerate(networks)]
    attack = per_member(BIM)
    x, y = map(tf.constant, tiny_batch)
    if graph:
        attack.compiled(whole)(x, y)
        assert passes == [1, 1]  # the body of each loop is traced once
    else:
        attack(whole, x, y)
        assert passes == [3, 3]


@pytest.mark.parametrize("mode", ["a keras model", "a robust model", "bfloat16", "train"])
def test_a_broken_member_does_not_affect_the_others(members, make_classifier, tiny_batch, mode):
    """Where the whole ensemble ran, NaN of one member would reach the gradients of all."""
    broken = make_classifier(seed=5, dropout=0)
    broken.get_layer("logits").bias.assign([np.nan] * 3)
    sound = make_classifier(seed=4, dropout=0)
    model = kr.models.ensemble([broken, sound])
    if mode == "a robust model":
        model = kr.defenses.cce(model, BALL)
    elif mode in ("bfloat16", "train"):
        options = {"crafting_dtype": mode} if mode == "bfloat16" else {"crafting_mode": mode}
        model = kr.defenses.cce(model, BALL, **options)._crafting_forward
    _, x_adv = per_member(BIM)(model, *tiny_batch)
    if mode in ("bfloat16", "train"):
        assert np.abs(x_adv - tiny_batch[0]).mean() > 0.05
    else:
        np.testing.assert_allclose(x_adv, BIM(sound, *tiny_batch), atol=1e-6)


def test_functions_without_members_are_sliced(ensemble, tiny_batch):
    found = per_member(BIM)(lambda x: ensemble(x, training=False), *tiny_batch)
    for one, two in zip(found, per_member(BIM)(ensemble, *tiny_batch), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_combinations_belong_inside(ensemble, tiny_batch):
    aimed = pgd(BALL, 1, targeted=True)
    for attack in (restarts(pgd(BALL, 1), 2), worst_of(BIM, BIM), multi_targeted(aimed)):
        assert len(per_member(attack)(ensemble, *tiny_batch)) == 3
        with pytest.raises(ValueError, match=r"per member.*around the whole"):
            worst_of(attack, per_member(attack))


def test_at_radius_and_name():
    attack = per_member(BIM)
    assert attack.name == "BIM-3 per member" and attack.ball == BALL
    assert attack.at_radius(0.2, 0.05) == per_member(BIM.at_radius(0.2, 0.05))


def test_refused(members, ensemble, tiny_batch):
    with pytest.raises(TypeError, match="PerMember: the attack is LinfBall"):
        per_member(BALL)
    with pytest.raises(ValueError, match="BIM-3 per member is already per member"):
        per_member(per_member(BIM))
    with pytest.raises(ValueError, match=r"outputs \['features', 'logits'\]; expected an ensemble"):
        per_member(BIM)(members[0], *tiny_batch)


def test_robust_models_that_need_one_batch(ensemble, members):
    attack = per_member(BIM)
    with pytest.raises(ValueError, match=r"Validation attack BIM-3 per member.*as a whole"):
        kr.RobustModel(ensemble, attack, kr.defenses.cce(ensemble, BALL).robust_loss)
    with pytest.raises(
        ValueError, match=r"per member, but loss Adversarial expects a single batch"
    ):
        loss = kr.losses.Adversarial()
        kr.RobustModel(ensemble, attack, loss, validation_attack=BIM)


def test_an_evaluation_needs_one_batch(ensemble, tiny_batch):
    with pytest.raises(ValueError, match=r"per member.*evaluation.transfer"):
        kr.evaluation.evaluate(ensemble, tiny_batch, per_member(BIM))
