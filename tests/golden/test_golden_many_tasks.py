"""Solvers and attacks of TA-MOO, compared with an independent float64 implementation.

`text` numbers follow the paper, `code` numbers the released code, which settings reproduce.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.multi_task import solvers, tasks
from keras_robust.attacks.multi_task.combined_gradient import gram
from keras_robust.attacks.multi_task.simplex import project_onto_simplex
from keras_robust.attacks.multi_task.solvers.task_oriented import omega
from keras_robust.core.config import replace

CODE = {"balance": 20.0, "first_weights": "uniform"}
MOO_CODE = solvers.MinNorm(steps=1, evenness=20.0, first_weights="uniform")


def equal(found, expected, **kwargs):
    np.testing.assert_allclose(found, expected, **{"rtol": 1e-6, "atol": 1e-8, **kwargs})


def solved(solver, d, start="init", steps=1):
    """The weights from given logits, and the next state."""
    found, achieved = d["Q"], tf.cast(d["achieved"], tf.bool)
    state = (d[f"alpha0_{start}"], tf.constant(True))
    for _ in range(steps):
        weights, state = solver(found, tf.zeros_like(d["achieved"]), achieved, state)
    return weights, state


@pytest.mark.parametrize("start", ["init", "warm"])
def test_weights(load, start):
    d = load("tamoo_solver")
    rate = float(d["lr"])
    for solver, key in (
        (solvers.TaskOriented(learning_rate=rate), "text"),
        (solvers.TaskOriented(balance=20.0), "code_ens"),
        (solvers.TaskOriented(balance=20.0, norm="unachieved"), "code_eot"),
        (solvers.MinNorm(), "moo_text"),
        (solvers.MinNorm(steps=1, evenness=20.0), "moo_code"),
        (solvers.TaskOriented(lam=0.0), "moo_text"),
    ):
        equal(solved(solver, d, start)[0], d[f"w_{key}_{start}"])


@pytest.mark.parametrize("start", ["init", "warm"])
def test_every_step_of_the_weights(load, start):
    """Ten calls of one step each, warm, are one call of ten."""
    d = load("tamoo_solver")
    for steps in range(1, 11):
        _, (alpha, _) = solved(solvers.TaskOriented(steps=1), d, start, steps)
        equal(alpha, d[f"alpha_traj_text_{start}"][steps])


def test_the_gram_matrix_and_the_direction(load):
    d = load("tamoo_solver")
    gradients = tf.transpose(d["grads"], [1, 0, 2])
    equal(gram(gradients), d["Q"])
    weights, _ = solved(solvers.TaskOriented(), d)
    equal(tf.einsum("bt,tbd->bd", weights, gradients), d["g_text_init"])


def test_exact_programs(load):
    """The least values; ten steps are far from them."""
    d = load("tamoo_solver")
    achieved = tf.cast(d["achieved"], tf.bool)
    ours, _ = solved(solvers.TaskOriented(exact=True), d)
    equal(ours, d["w_qp_exact_lam100"], rtol=0, atol=1e-7)
    equal(solved(solvers.MinNorm(exact=True), d)[0], d["w_minnorm_exact"], rtol=0, atol=1e-7)

    def value(weights):
        return tf.einsum("bi,bij,bj->b", weights, d["Q"], weights) + 100 * omega(weights, achieved)

    some = ~np.all(achieved, axis=1)
    equal(value(ours)[some], d["qp_value_lam100"][some])
    after = value(solved(solvers.TaskOriented(), d)[0])
    equal(after[some], d["objective_text_after10"][some])
    assert np.all(after > value(ours) + 1e-3)


def test_omega(load):
    d = load("tamoo_omega")
    equal(omega(d["w"], tf.cast(d["achieved"], tf.bool)), d["omega"])


def test_weights_of_min_max(load):
    d = load("tamoo_minmax")
    solver = solvers.MinMax(learning_rate=1 / float(d["beta"]), gamma=float(d["gamma"]))
    found, _ = solver(None, d["losses"], None, (d["w"], tf.constant(True)))
    equal(found, d["w_next_bisect"])
    equal(found, d["w_next_exact"], atol=2e-6)
    state = solver.init(d["w_seq_bisect"][0])
    weights, state = solver(None, d["losses_seq"][0], None, state)
    equal(weights, d["w_seq_bisect"][0])  # the first step is taken at equal weights
    for number, losses in enumerate(d["losses_seq"], start=1):
        weights, state = solver(None, losses, None, state)
        equal(weights, d["w_seq_bisect"][number])


def test_projection_on_the_simplex(load):
    d = load("tamoo_minmax")
    # The reference halves the whole range of the values 20 times, here at most an interval of 1.
    equal(project_onto_simplex(d["raw"]), d["raw_proj_bisect"], atol=4e-6)
    equal(project_onto_simplex(d["raw"]), d["raw_proj_exact"], atol=1e-6)
    equal(project_onto_simplex(d["raw"], bisections=60), d["raw_proj_exact"], atol=1e-12)


@pytest.mark.parametrize(
    ("solver", "key", "tolerance"),
    [
        (solvers.PCGrad(), "pcgrad_fixed_order", {}),
        (solvers.CAGrad(), "cagrad_precise", {}),
        (solvers.CAGrad(), "cagrad_released", {"rtol": 1e-3, "atol": 1e-3}),
        (solvers.HVM(), "hvm_grad_nadir_detached", {}),
        (solvers.HVM(through_nadir=True), "hvm_grad_nadir_not_detached", {}),
    ],
)
def test_directions(load, solver, key, tolerance):
    d = load("tamoo_mtl_grads")
    gradients = tf.transpose(d["grads"], [1, 0, 2])
    weights, _ = solver(gram(gradients), d["losses"], None, ())
    equal(tf.einsum("bt,tbd->bd", weights, gradients), d[key], **tolerance)


def test_the_ball(load):
    d = load("tamoo_proj_box")
    ball = kr.LinfBall(float(d["eps_linf"]))
    equal(ball.project(d["x"] + d["v"], d["x"]) - d["x"], d["proj_linf"])
    equal(ball.steepest(d["v"]), d["normgrad_linf"])
    equal(kr.L2Ball(1.0).steepest(d["v"]), d["normgrad_l2"], rtol=1e-5)


def network(d, prefix=""):
    w1, b1, w2, b2 = (d[prefix + name] for name in ("W1", "b1", "W2", "b2"))
    return lambda x: {"logits": tf.tanh(x @ w1 + b1) @ w2 + b2}


class Given:
    """A start at a perturbation that is given."""

    def __init__(self, delta):
        self.delta = delta

    def __call__(self, ball, x, seed):
        return x + self.delta


def attack(d, start, **settings):
    ball = kr.LinfBall(float(d["eps"]))
    settings = {"success_criterion": "label", **settings}
    made = kr.attacks.multi_task(ball, int(d["steps"]), float(d["eta"]), **settings)
    return replace(made, initialization=Given(start))


@pytest.fixture
def ensemble(load):
    d = load("tamoo_ens_attack")

    def forward(x):
        raise AssertionError("the ensemble was run")

    forward.members = tuple(network(d, f"m{number}_") for number in range(4))
    return d, forward


@pytest.mark.parametrize(
    ("solver", "key"),
    [
        (solvers.TaskOriented(), "tamoo_text"),
        (solvers.TaskOriented(first_weights="uniform"), "tamoo_text_lag"),
        (solvers.TaskOriented(**CODE), "tamoo_code"),
        (MOO_CODE, "moo_code"),
        (solvers.MinMax(), "minmax_code"),
        (solvers.EqualWeights(), "uniform_code"),
    ],
)
def test_attacks_on_members(ensemble, solver, key):
    d, forward = ensemble
    start = d["uniform_init_noise" if key == "uniform_code" else "delta0"]
    made = attack(d, start, solver=solver)
    for steps in (1, int(d["steps"])):
        equal(replace(made, steps=steps)(forward, d["x"], d["y"]), d[f"xadv_{key}"][steps - 1])
    found = made.trace(forward, d["x"], d["y"])
    equal(found.images, d[f"xadv_{key}"][-1])
    if f"w_{key}" in d:
        # The released code notes the weights after a step, which are those of the next one.
        lag = 0 if key == "tamoo_text" else 1
        weights = tf.transpose(found.weights, [0, 2, 1])[lag:]
        equal(weights, d[f"w_{key}"][: len(weights)])


@pytest.mark.parametrize(
    ("solver", "key"), [(solvers.TaskOriented(**CODE), "tamoo_code"), (MOO_CODE, "moo_code")]
)
def test_universal_attacks(load, solver, key):
    d = load("tamoo_uni_attack")
    groups, size, pixels = d["x"].shape
    x, y = tf.reshape(d["x"], [-1, pixels]), tf.reshape(d["y"], [-1])
    made = attack(d, d["delta0"], tasks=tasks.Universal(group=size), solver=solver)
    found = made.trace(network(d), x, y)
    delta = tf.reshape(found.images - x, [groups, size, pixels])
    for image in range(size):
        equal(delta[:, image], d[f"delta_{key}"][-1])
    equal(tf.transpose(found.weights, [0, 2, 1])[1:], d[f"w_{key}"][:-1])


def test_attacks_on_transformations(load):
    d = load("tamoo_eot_attack")
    height, width = int(d["H"]), int(d["W"])

    def flip(x):
        return tf.reshape(tf.reshape(x, [-1, height, width])[:, :, ::-1], tf.shape(x))

    transformations = tasks.Transformations(
        (tf.identity, flip, lambda x, p: tf.clip_by_value((1 + 0.3 * p) * x, 0, 1))
    )
    solver = solvers.TaskOriented(norm="unachieved", **CODE)
    found = attack(d, d["delta0"], tasks=transformations, solver=solver).trace(
        network(d), d["x"], d["y"]
    )
    equal(found.images, d["xadv_tamoo_code"][-1])
    equal(tf.transpose(found.weights, [0, 2, 1])[1:], d["w_tamoo_code"][:-1])
