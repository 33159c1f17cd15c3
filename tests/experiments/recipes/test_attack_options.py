from __future__ import annotations

import inspect

import pytest

import keras_robust as kr
from keras_robust.experiments.recipes import attack_options
from keras_robust.experiments.recipes.attack_options import build_attack, option_names, taken
from keras_robust.experiments.recipes.attack_spec import FIXED_STEP_ATTACKS, recipe_options

BALL = kr.LinfBall(0.1)
IN_ONE_NORM = {
    "ddn": kr.L2Ball(0.1),
    "pgd_l0": kr.L0Ball(5),
    "sigma_zero": kr.L0Ball(5),
    "sparse_rs": kr.L0Ball(5),
}


@pytest.mark.parametrize("name", attack_options.names())
def test_every_attack_is_built_in_the_ball(name):
    ball = IN_ONE_NORM.get(name, BALL)
    assert build_attack(name, ball, {}).ball == ball


@pytest.mark.parametrize("name", IN_ONE_NORM)
def test_another_norm_is_refused(name):
    with pytest.raises(ValueError, match=f"The attack '{name}': .* is defined in L[02].*; ball is"):
        build_attack(name, BALL, {})


@pytest.mark.parametrize("name", attack_options.names())
def test_options_are_the_arguments_of_the_factory(name):
    factory = kr.attacks.pgd if name == "multi_targeted" else getattr(kr.attacks, name)
    arguments = set(inspect.signature(factory).parameters) - {"ball", "targeted"}
    assert arguments <= set(option_names(name))


def test_the_attacks_that_take_the_steps_of_a_recipe_have_a_step_size():
    found = {name for name in attack_options.names() if "step_size" in option_names(name)}
    # The step of PGD-L0 is not a length: PGD's would be far too short.
    assert found - {"pgd_l0"} == set(FIXED_STEP_ATTACKS)
    assert recipe_options("pgd_l0", ["pgd:steps=40:step_size=0.01"], {}) == {}


def test_an_attack_gets_its_options():
    made = build_attack("pgd", BALL, {"steps": 7, "step_size": 0.01, "loss": "margin"})
    assert made == kr.attacks.pgd(BALL, 7, 0.01, loss="margin")
    assert build_attack("mim", BALL, {"decay": 0.5}) == kr.attacks.mim(BALL, decay=0.5)


def test_random_attacks_alone_are_repeated():
    for name in ("pgd", "spsa", "square", "boundary"):
        assert build_attack(name, BALL, {"restarts": 3}).count == 3
    for name in ("bim", "fgsm", "carlini_wagner", "auto_attack", "multi_task", "fmn"):
        with pytest.raises(ValueError, match=f"attack '{name}' does not take restarts; it takes "):
            build_attack(name, BALL, {"restarts": 3})


def test_an_attack_may_repeat_itself():
    """FAB starts at the image, and at random points only from the second run on."""
    rounds = build_attack("fab", BALL, {"restarts": 3}).rounds(10)
    assert [part.attack.random_start for part in rounds] == [False, True, True]


def test_multi_targeted_tries_every_other_class():
    made = build_attack("multi_targeted", BALL, {"steps": 3})
    assert len(made.rounds(10)) == 9 and made.gradient_steps == 3
    assert len(build_attack("multi_targeted", BALL, {"restarts": 2}).rounds(10)) == 18
    with pytest.raises(ValueError, match="chooses its targets itself"):
        build_attack("multi_targeted", BALL, {}, targeted=True)


def test_multi_targeted_repeats_any_targeted_attack():
    """BIM and MIM toward every class; their own options are taken, those of others are not."""
    for name, factory in (("bim", kr.attacks.bim), ("mim", kr.attacks.mim)):
        made = build_attack("multi_targeted", BALL, {"attack": name, "steps": 3, "step_size": 0.1})
        assert made == kr.attacks.multi_targeted(factory(BALL, 3, 0.1, targeted=True))
    made = build_attack("multi_targeted", BALL, {"attack": "mim", "decay": 0.5})
    assert made.attack.step_rule.decay == 0.5
    with pytest.raises(ValueError, match="'multi_targeted' does not take decay"):
        build_attack("multi_targeted", BALL, {"attack": "bim", "decay": 0.5})
    with pytest.raises(ValueError, match="no targeted attack 'square'; expected one of"):
        build_attack("multi_targeted", BALL, {"attack": "square"})


def test_the_start_of_an_attack_along_a_boundary():
    """PGD2 of the thesis: a larger radius than the ball's."""
    start = "pgd+steps=20+step_size=2/255+radius=16/255"
    ball = kr.LinfBall(8 / 255)
    for name in ("brendel_bethge", "boundary", "hop_skip_jump"):
        made = build_attack(name, ball, {"start": start})
        assert made.start == kr.attacks.pgd(kr.LinfBall(16 / 255), 20, 2 / 255)
        assert made.ball == ball
    assert build_attack("boundary", BALL, {"start": "fgsm"}).start == kr.attacks.fgsm(BALL)


def test_carlini_and_wagners_constant(loaded):
    """As typed: a single constant of 0.7, without a binary search."""
    text = "carlini_wagner:initial_const=0.7:binary_search_steps=1:steps=1000"
    expected = kr.attacks.carlini_wagner(
        loaded.ball(), 1000, initial_const=0.7, binary_search_steps=1
    )
    assert loaded.attack(text) == expected


UNION = kr.UnionBall((BALL, kr.L2Ball(0.5)))


def test_in_a_union_an_attack_runs_in_each_ball():
    made = build_attack("pgd", UNION, {"steps": 4, "step_size": 0.5, "restarts": 2})
    assert len(made.rounds(10)) == 4 and made.ball == UNION
    sizes = [part.attack.attack.step_rule.size for part in made.rounds(10)[::2]]
    assert sizes == [0.05, 0.25]
    with pytest.raises(ValueError, match="cannot be targeted in it; use 'union_pgd'"):
        build_attack("pgd", UNION, {}, targeted=True)
    with pytest.raises(ValueError, match="pgd: step_size"):
        build_attack("pgd", UNION, {"step_size": -1})


def test_the_attack_on_all_balls_at_once():
    made = build_attack("union_pgd", UNION, {"steps": 4, "strategy": "max"}, targeted=True)
    assert made == kr.attacks.union_pgd(UNION, 4, strategy="max", targeted=True)


def test_minimum_norm_attacks_by_name(loaded):
    assert loaded.attack("fmn:steps=100:gamma=0.1") == kr.attacks.fmn(loaded.ball(), 100, gamma=0.1)
    expected = kr.attacks.sigma_zero(kr.L0Ball(9), 20, threshold=0.2)
    made = build_attack("sigma_zero", kr.L0Ball(9), {"steps": 20, "threshold": 0.2})
    assert made == expected


def test_targeted():
    assert build_attack("multi_task", BALL, {}, targeted=True).takes_targets
    assert build_attack("mim", BALL, {}, targeted=True).takes_targets
    with pytest.raises(ValueError, match="'square' cannot be targeted"):
        build_attack("square", BALL, {}, targeted=True)


def test_a_multi_task_attack():
    def made(**options):
        return build_attack("multi_task", BALL, {"steps": 3, **options})

    assert (made().tasks, made().steps, made().ball) == (kr.tasks.Members(), 3, BALL)
    assert made().solver == kr.solvers.TaskOriented()
    assert made(loss="margin").loss == "margin"
    assert made(tasks="universal", group=12).tasks == kr.tasks.Universal(12)
    assert made(tasks="transformations").tasks == kr.tasks.Transformations(kr.transforms.ALL)
    assert made(tasks="transformations", stochastic=True).tasks.stochastic
    tuned = kr.solvers.TaskOriented(lam=10.0, steps=3, norm="unachieved")
    assert made(solver="task_oriented:lam=10:steps=3:norm=unachieved").solver == tuned
    assert made(solver="min_norm:exact=true").solver == kr.solvers.MinNorm(exact=True)
    initial = kr.solvers.MinNorm(initial=(0.2, 0.8), learning_rate=1e-8)
    assert made(solver="min_norm:initial=0.2+0.8:learning_rate=1e-8").solver == initial
    relative = kr.solvers.TaskOriented(lam=1.0, relative=True)
    assert made(solver="task_oriented:lam=1:relative=true").solver == relative
    assert made().memory and not made(memory=False).memory
    for solver in kr.solvers.NAMES:
        assert made(solver=solver).solver == attack_options.build_solver(solver)


def test_common_options_go_to_the_attacks_that_take_them():
    assert taken(["pgd", "fgsm", "square"], {"steps": 3, "loss": "dlr", "queries": 7}) == {
        "pgd": {"steps": 3, "loss": "dlr"},
        "fgsm": {"loss": "dlr"},
        "square": {"queries": 7},
    }
    with pytest.raises(ValueError, match=r"None of the attacks takes queries: pgd takes .*; fgsm"):
        taken(["pgd", "fgsm"], {"queries": 7})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pgdx", {}, "no attack 'pgdx'.*Did you mean 'pgd'"),
        ("fab", {"loss": "dlr", "queries": 7}, "'fab' does not take loss, queries; it takes steps"),
        ("pgd", {"stepsize": 1}, "'pgd' does not take stepsize; .*Did you mean 'step_size'"),
        ("pgd", {"targeted": True}, "'pgd' does not take targeted"),
        ("pgd", {"loss": "ce"}, "no loss 'ce'; expected one of cross_entropy"),
        ("pgd", {"steps": "many"}, "steps is 'many'"),
        ("pgd", {"step_size": "x"}, "step_size is 'x'"),
        ("r_fgsm", {"fraction": "x"}, "'x'"),
        ("fgsm", {"loss": "kl"}, "no gradient|gradient"),
        ("pgd", {"restarts": 0}, "count is 0"),
        ("hop_skip_jump", {"start": "pgdx"}, "no attack 'pgdx'.*mean 'pgd'"),
        ("hop_skip_jump", {"start": "pgd+radius=x"}, "start: radius is 'x'"),
        ("multi_task", {"solver": "hvm:initial=1"}, "no option 'initial'"),
        ("multi_task", {"solver": "min_max:initial=0.2+0.3"}, "the sum 0.5"),
        ("multi_task", {"solver": "min_max:initial=a"}, "'a' is not a number"),
        ("multi_task", {"solver": "moo"}, "no solver 'moo'; expected one of uniform"),
        ("multi_task", {"solver": "task_oriented:lamda=1"}, "no option 'lamda'.*mean 'lam'"),
        ("multi_task", {"solver": "task_oriented:lam=x"}, "'x' is not a lam"),
        ("multi_task", {"solver": "min_norm:exact=1"}, "no exact '1'; expected one of true"),
        ("multi_task", {"tasks": "member"}, "no kind of tasks 'member'.*mean 'members'"),
        ("multi_task", {"group": 2}, "group is an option of the tasks 'universal'.*'members'"),
        ("multi_task", {"stochastic": True}, "stochastic is an option of the tasks 'transfor"),
        ("multi_task", {"loss": "dlr"}, "loss is 'dlr'"),
    ],
)
def test_invalid_attacks(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_attack(name, BALL, options)


def test_a_run_adds_the_options_of_its_recipe(loaded):
    """The recipe has PGD-2; its steps are those of attacks by steps of one length."""
    assert loaded.attack("pgd").steps == loaded.attack("spsa").steps == 2
    assert loaded.attack("multi_targeted").gradient_steps == 2
    assert loaded.attack("boundary") == kr.attacks.boundary(loaded.ball())
    assert loaded.attack("boundary", {"steps": 7}).steps == 7
    assert loaded.attack("square") == kr.attacks.square(loaded.ball())
    assert loaded.attack("auto_attack") == kr.attacks.auto_attack(loaded.ball())


def test_the_options_of_one_attack_precede_those_of_all(loaded):
    assert loaded.attack("pgd:steps=7:step_size=1/4", {"steps": 3}) == kr.attacks.pgd(
        loaded.ball(), 7, 0.25
    )
    spec = {"name": "bim", "options": {"loss": "margin"}}
    assert loaded.attack(spec) == kr.attacks.bim(loaded.ball(), 2, loss="margin")


def test_options_of_the_attacks_of_a_recipe(loaded):
    pgd, fgsm = loaded.recipe_attacks({"steps": 5})
    assert (pgd, fgsm) == (kr.attacks.pgd(loaded.ball(), 5), kr.attacks.fgsm(loaded.ball()))
    with pytest.raises(ValueError, match="None of the attacks takes queries"):
        loaded.recipe_attacks({"queries": 5})
