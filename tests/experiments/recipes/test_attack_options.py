from __future__ import annotations

import pytest

import keras_robust as kr
from keras_robust.experiments.recipes import attack_options
from keras_robust.experiments.recipes.attack_options import Settings

BALL = kr.LinfBall(0.1)


@pytest.mark.parametrize("name", attack_options.names())
def test_every_attack_is_made_in_the_ball(name):
    attack = attack_options.attack(name, BALL, Settings(steps=3))
    assert attack.ball == BALL


def test_an_attack_takes_the_settings_it_has():
    made = attack_options.attack("pgd", BALL, Settings(7, 0.01, loss="margin"))
    assert made == kr.attacks.pgd(BALL, 7, 0.01, loss="margin")
    assert attack_options.attack("fgsm", BALL, Settings(7, 0.01)) == kr.attacks.fgsm(BALL)


def test_the_steps_of_a_recipe_are_for_attacks_by_steps_of_one_length(opened):
    steps = opened.config.evaluation.steps
    assert opened.attack("pgd").steps == opened.attack("spsa").steps == steps
    assert opened.attack("boundary") == kr.attacks.boundary(opened.ball())
    assert opened.attack("boundary", {"steps": 7}).steps == 7
    assert opened.attack("square") == kr.attacks.square(opened.ball())
    assert opened.attack("square", {"queries": 7}).queries == 7
    assert opened.attack("multi_targeted").attack.steps == steps


def test_only_a_random_start_is_repeated():
    assert len(attack_options.attack("pgd", BALL, Settings(restarts=3)).rounds(10)) == 3
    assert len(attack_options.attack("spsa", BALL, Settings(restarts=3)).rounds(10)) == 3
    for name in ("bim", "carlini_wagner"):
        assert len(attack_options.attack(name, BALL, Settings(restarts=3)).rounds(10)) == 1


def test_auto_attack_is_never_weakened_nor_repeated():
    made = attack_options.attack("auto_attack", BALL, Settings(steps=3, restarts=2, loss="margin"))
    assert made == kr.attacks.auto_attack(BALL)


def test_an_attack_may_repeat_itself_in_its_own_way():
    """FAB begins at the image, and at random points only from the second run on."""
    rounds = attack_options.attack("fab", BALL, Settings(restarts=3)).rounds(10)
    assert [part.attack.random_start for part in rounds] == [False, True, True]


def test_multi_targeted_tries_every_other_class():
    assert len(attack_options.attack("multi_targeted", BALL, Settings()).rounds(10)) == 9
    with pytest.raises(ValueError, match="chooses its targets itself"):
        attack_options.attack("multi_targeted", BALL, Settings(), targeted=True)


def test_targeted():
    assert isinstance(
        attack_options.attack("mim", BALL, Settings(), targeted=True).objective,
        kr.objectives.Targeted,
    )


def test_an_attack_on_many_tasks():
    def made(**given):
        return attack_options.attack("multi_task", BALL, Settings(steps=3, **given))

    assert (made().tasks, made().steps, made().ball) == (kr.tasks.Members(), 3, BALL)
    assert made().solver == kr.solvers.TaskOriented()
    assert made(loss="margin").loss == "margin"
    assert made(tasks="universal", group=12).tasks == kr.tasks.Universal(12)
    assert made(tasks="transformations").tasks == kr.tasks.Transformations(kr.transforms.ALL)
    assert made(tasks="transformations", stochastic=True).tasks.stochastic
    tuned = kr.solvers.TaskOriented(lam=10.0, steps=3, norm="unachieved")
    assert made(solver="task_oriented:lam=10:steps=3:norm=unachieved").solver == tuned
    assert made(solver="min_norm:exact=true").solver == kr.solvers.MinNorm(exact=True)
    for solver in kr.solvers.NAMES:
        assert made(solver=solver).solver == kr.solvers.get(solver)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("pdg", Settings(), "no attack 'pdg'.*Did you mean 'pgd'"),
        ("pgd", Settings(loss="ce"), "no loss 'ce'; expected one of cross_entropy"),
        ("fgsm", Settings(loss="kl"), "no gradient"),
        ("pgd", Settings(restarts=0), "count is 0"),
        ("multi_task", Settings(restarts=2), "is not repeated.*Leave restarts at 1"),
        ("multi_task", Settings(solver="moo"), "no solver 'moo'; expected one of uniform"),
        ("multi_task", Settings(solver="task_oriented:lamda=1"), "no option 'lamda'.*mean 'lam'"),
        ("multi_task", Settings(solver="task_oriented:lam=x"), "'x' is not a lam"),
        ("multi_task", Settings(solver="min_norm:exact=1"), "no exact '1'; expected one of true"),
        ("multi_task", Settings(tasks="member"), "no kind of tasks 'member'.*mean 'members'"),
        ("multi_task", Settings(group=2), "group is of the tasks 'universal'.*'members'"),
        ("multi_task", Settings(stochastic=True), "Strengths are drawn of 'transformations'"),
        ("multi_task", Settings(loss="dlr"), "loss is 'dlr'"),
    ],
)
def test_what_an_attack_cannot_be(name, settings, message):
    with pytest.raises(ValueError, match=message):
        attack_options.attack(name, BALL, settings)
