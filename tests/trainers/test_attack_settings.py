from __future__ import annotations

import pytest

import keras_robust as kr
from trainers import attack_settings
from trainers.attack_settings import Settings

BALL = kr.LinfBall(0.1)


@pytest.mark.parametrize("name", attack_settings.names())
def test_every_attack_is_made_in_the_ball(name):
    attack = attack_settings.attack(name, BALL, Settings(steps=3))
    assert attack.ball == BALL


def test_an_attack_takes_the_settings_it_has():
    made = attack_settings.attack("pgd", BALL, Settings(7, 0.01, loss="margin"))
    assert made == kr.attacks.pgd(BALL, 7, 0.01, loss="margin")
    assert attack_settings.attack("fgsm", BALL, Settings(7, 0.01)) == kr.attacks.fgsm(BALL)


def test_only_a_random_start_is_repeated():
    assert len(attack_settings.attack("pgd", BALL, Settings(restarts=3)).rounds(10)) == 3
    for name in ("bim", "carlini_wagner"):
        assert len(attack_settings.attack(name, BALL, Settings(restarts=3)).rounds(10)) == 1


def test_an_attack_may_repeat_itself_in_its_own_way():
    """FAB begins at the image, and at random points only from the second run on."""
    rounds = attack_settings.attack("fab", BALL, Settings(restarts=3)).rounds(10)
    assert [part.attack.random_start for part in rounds] == [False, True, True]


def test_multi_targeted_tries_every_other_class():
    assert len(attack_settings.attack("multi_targeted", BALL, Settings()).rounds(10)) == 9
    with pytest.raises(ValueError, match="chooses its targets itself"):
        attack_settings.attack("multi_targeted", BALL, Settings(), targeted=True)


def test_targeted():
    assert isinstance(
        attack_settings.attack("mim", BALL, Settings(), targeted=True).objective,
        kr.objectives.Targeted,
    )


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("pdg", Settings(), "no attack 'pdg'.*Did you mean 'pgd'"),
        ("pgd", Settings(loss="ce"), "no loss 'ce'; expected one of cross_entropy"),
        ("fgsm", Settings(loss="kl"), "no gradient"),
        ("pgd", Settings(restarts=0), "count is 0"),
    ],
)
def test_what_an_attack_cannot_be(name, settings, message):
    with pytest.raises(ValueError, match=message):
        attack_settings.attack(name, BALL, settings)
