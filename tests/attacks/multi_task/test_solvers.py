"""Properties of all solvers, and weights derived by hand."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.multi_task import solvers
from keras_robust.attacks.multi_task.combined_gradient import gram

SOLVERS = {
    "uniform": solvers.EqualWeights(),
    "min_max": solvers.MinMax(),
    "min_norm": solvers.MinNorm(),
    "min_norm exact": solvers.MinNorm(exact=True),
    "task_oriented": solvers.TaskOriented(),
    "task_oriented exact": solvers.TaskOriented(exact=True),
    "task_oriented as released": solvers.TaskOriented(balance=20.0, norm="unachieved"),
    "pcgrad": solvers.PCGrad(),
    "cagrad": solvers.CAGrad(),
    "hvm": solvers.HVM(),
}
# Solvers whose weights sum to 1.
ON_SIMPLEX = [name for name in SOLVERS if name.split()[0] not in ("pcgrad", "cagrad", "hvm")]
every_solver = pytest.mark.parametrize("name", SOLVERS)


def random_tasks(batch=4, tasks=5, pixels=7, scale=1.0):
    """Gradients `[tasks, batch, pixels]`, values and successes `[batch, tasks]`, float64."""
    draw = np.random.default_rng(1)
    gradients = scale * draw.normal(size=(tasks, batch, pixels))
    values = draw.uniform(0.5, 2.0, (batch, tasks))
    achieved = np.arange(batch * tasks).reshape(batch, tasks) % 3 == 0
    return tuple(map(tf.constant, (gradients, values, achieved)))


def weigh(solver, gradients, values, achieved, calls=2):
    """The weights after some calls on the same tasks."""
    state = solver.init(tf.ones_like(values) / values.shape[1])
    for _ in range(calls):
        weights, state = solver(gram(gradients), values, achieved, state)
    return weights


def test_every_name_has_a_row():
    assert {name.split()[0] for name in SOLVERS} == set(solvers.NAMES)
    assert {type(s).__name__ for s in SOLVERS.values()} == set(solvers.__all__) - {"NAMES", "get"}


@every_solver
def test_names_and_configs(name):
    solver = SOLVERS[name]
    text = json.dumps(keras.saving.serialize_keras_object(solver))
    assert keras.saving.deserialize_keras_object(json.loads(text)) == solver
    assert solvers.get(solver) is solver
    if " " not in name:
        assert solvers.get(name) == solver


@every_solver
def test_examples_do_not_mix(name):
    """Each example alone has the weights that it has among others."""
    gradients, values, achieved = random_tasks()
    together = weigh(SOLVERS[name], gradients, values, achieved)
    assert together.shape == values.shape and together.dtype == values.dtype
    for row in (0, 3):
        part = slice(row, row + 1)
        alone = weigh(SOLVERS[name], gradients[:, part], values[part], achieved[part])
        np.testing.assert_allclose(alone, together[part], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ON_SIMPLEX)
def test_weights_sum_to_one(name):
    weights = weigh(SOLVERS[name], *random_tasks())
    assert np.all(weights >= 0)
    np.testing.assert_allclose(tf.reduce_sum(weights, axis=1), 1, atol=2e-6)


@every_solver
def test_of_a_single_task_the_direction_is_its_gradient(name):
    gradients, values, achieved = random_tasks(tasks=1)
    weights = weigh(SOLVERS[name], gradients, values, achieved)
    assert np.all(weights > 0)
    if name in ON_SIMPLEX:
        np.testing.assert_allclose(weights, 1)


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "pcgrad"])
def test_tasks_in_another_order_have_their_weights_in_that_order(name):
    """Except for PCGrad, which projects gradients in the order of the tasks."""
    gradients, values, achieved = random_tasks()
    order = [3, 0, 4, 2, 1]
    found = weigh(
        SOLVERS[name], *(tf.gather(part, order, axis=axis) for part, axis in
                         ((gradients, 0), (values, 1), (achieved, 1)))
    )  # fmt: skip
    expected = tf.gather(weigh(SOLVERS[name], gradients, values, achieved), order, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@every_solver
def test_a_graph_of_unknown_sizes(name):
    """Neither the number of examples nor that of tasks is static: one trace serves all."""
    solver = SOLVERS[name]
    square, flat = [None, None, None], [None, None]
    specs = [tf.TensorSpec(square, tf.float64), tf.TensorSpec(flat, tf.float64)]

    @tf.function(input_signature=[*specs, tf.TensorSpec(flat, tf.bool)], autograph=False)
    def graph(products, values, achieved):
        state = solver.init(values * 0 + 1 / tf.cast(tf.shape(values)[1], values.dtype))
        return solver(products, values, achieved, state)[0]

    for sizes in ((4, 5), (2, 3), (1, 1)):
        gradients, values, achieved = random_tasks(*sizes)
        expected = weigh(solver, gradients, values, achieved, calls=1)
        found = graph(gram(gradients), values, achieved)
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-10)


@every_solver
@pytest.mark.parametrize("scale", [0.0, 1e-25, 1e12])
def test_gradients_of_any_size(name, scale):
    """In float32, whose squares vanish or come close to the largest number."""
    gradients, values, achieved = random_tasks(scale=scale)
    parts = (tf.cast(gradients, tf.float32), tf.cast(values, tf.float32), achieved)
    assert np.all(np.isfinite(weigh(SOLVERS[name], *parts)))


@every_solver
@pytest.mark.parametrize(
    "bad", [np.nan, *(pytest.param(v, marks=pytest.mark.slow) for v in (np.inf, -np.inf, 3e38))]
)
@pytest.mark.parametrize(
    "tasks", [pytest.param([0], marks=pytest.mark.slow), [1, 3], [0, 1, 2, 3, 4]]
)
def test_a_task_that_is_not_finite(name, bad, tasks):
    """Of values and products: the weights stay finite, and the state recovers."""
    solver = SOLVERS[name]
    gradients, values, achieved = random_tasks()
    products = gram(gradients)
    is_bad = np.isin(np.arange(5), tasks)
    broken = tf.where(is_bad, tf.constant(bad, tf.float64), values)
    either = is_bad[:, None] | is_bad if not np.isfinite(bad) else np.zeros([5, 5], bool)
    torn = tf.where(either, tf.constant(bad, tf.float64), products)
    state = solver.init(tf.ones_like(values) / 5)
    for _ in range(2):
        weights, state = solver(torn, broken, achieved, state)
        assert np.all(np.isfinite(weights))
        if name in ON_SIMPLEX:
            assert np.all(weights >= 0)
            np.testing.assert_allclose(tf.reduce_sum(weights, axis=1), 1, atol=1e-5)
    for _ in range(3):
        weights, state = solver(products, values, achieved, state)
        assert np.all(np.isfinite(weights))
    if name in ON_SIMPLEX and np.isnan(bad):  # the state is one that it could have come to
        fresh = weigh(solver, gradients, values, achieved, 5)
        np.testing.assert_allclose(weights, fresh, atol=0.2)


def test_min_max_recovers_from_a_value_that_is_not_finite():
    """It counts as the other value, so that the step changes nothing; the next is as ever."""
    solver = solvers.MinMax(learning_rate=0.1, gamma=0.0)
    state = solver.init(HALVES)
    for values, expected in (
        ([1.0, 1.0], [0.5, 0.5]),
        ([np.nan, 1.0], [0.5, 0.5]),
        ([1.0, 2.0], [0.55, 0.45]),
    ):
        weights, state = solver(None, tf.constant([values], tf.float64), None, state)
        np.testing.assert_allclose(weights, [expected], atol=1e-6)


def test_hvm_with_a_value_that_is_not_finite():
    """It counts as the mean of the others, 2: weights are 1 / (f - 1/2)."""
    values = tf.constant([[np.nan, 1.0, 3.0]], tf.float64)
    np.testing.assert_allclose(solvers.HVM()(None, values, None, ())[0], [[1 / 1.5, 2.0, 0.4]])


@pytest.mark.parametrize(
    "tasks", [2, 3, *(pytest.param(number, marks=pytest.mark.slow) for number in (5, 8))]
)
def test_cagrad_solves_its_problem(tasks):
    """On 80 problems: the duality gap, a bound on the error of the value, derived anew.

    `F(w) = g_w . g_0 + c |g_w|` is convex, so that `F(w) - min F <= w . F'(w) - min_i F'(w)_i`.
    """
    draw = np.random.default_rng(tasks)
    gradients = draw.normal(size=(tasks, 20, 6)) * draw.uniform(0.1, 3.0, (tasks, 20, 1))
    gradients += 0.5 * draw.normal(size=(1, 20, 6))
    values = tf.ones([20, tasks], tf.float64)
    solver = solvers.CAGrad()
    weights = weigh(solver, tf.constant(gradients), values, None, 1).numpy()
    products = np.einsum("ibp,jbp->bij", gradients, gradients)
    mean = products.mean(axis=(1, 2))
    radius = 0.5 * np.sqrt(mean + 1e-8) + 1e-8
    # The solver returns `(1 / T + c w / |g_w|) / (1 + alpha^2)`; w sums to 1.
    w = 1.25 * weights - 1 / tasks
    w /= w.sum(axis=1, keepdims=True)
    assert np.all(w >= -1e-9)
    along = np.einsum("bij,bj->bi", products, w)
    length = np.sqrt((w * along).sum(axis=1) + 1e-8)
    slope = products.mean(axis=2) + (radius / length)[:, None] * along
    gap = (w * slope).sum(axis=1) - slope.min(axis=1)
    assert (gap / np.abs(slope).max(axis=1)).max() < 1e-9


def flat(*gradients):
    """Gradients of one example, `[tasks, 1, pixels]`."""
    return tf.constant(gradients, tf.float64)[:, None]


HALVES = tf.constant([[0.5, 0.5]], tf.float64)
NONE = tf.constant([[False, False]])


def test_one_step_of_moo():
    """From equal weights, two logits move by `+- learning_rate (G_22 - G_11) / 4`.

    The slope in `w` is `2 G w = (4, 1) + (1, 1)` for lengths 2 and 1 and product 1; in the logits,
    `w (slope - w . slope) = (3/4, -3/4)`.
    """
    weights = weigh(
        solvers.MinNorm(steps=1, learning_rate=0.1), flat((2, 0), (0.5, 0.75**0.5)), HALVES, NONE, 1
    )
    expected = 1 / (1 + np.exp(2 * 0.1 * 0.75))
    np.testing.assert_allclose(weights, [[expected, 1 - expected]])


def test_one_step_of_ta_moo():
    """Omega is `w_1^2 + (1 - w_2)^2`, whose slope at (1/2, 1/2) is (1, -1)."""
    solver = solvers.TaskOriented(lam=3.0, steps=1, learning_rate=0.1)
    weights = weigh(solver, flat((1, 0), (0, 1)), HALVES, tf.constant([[True, False]]), 1)
    # w (slope - w . slope) = (3/2, -3/2); the norm of both tasks is the same.
    expected = 1 / (1 + np.exp(2 * 0.1 * 1.5))
    np.testing.assert_allclose(weights, [[expected, 1 - expected]])


def test_the_bonus_spreads_the_weights_of_the_unachieved():
    """Without a norm to shorten, its optimum is equality among them."""
    solver = solvers.TaskOriented(lam=0.0, balance=1.0, steps=200, learning_rate=0.5)
    zeros = tf.zeros([2, 2], tf.float64)
    state = (tf.constant([[2.0, -1.0]], tf.float64), tf.constant(True))
    weights, _ = solver(zeros[None], HALVES, NONE, state)
    np.testing.assert_allclose(weights, HALVES, atol=1e-6)


@pytest.mark.parametrize(
    "solver",
    [
        solvers.MinNorm(first_weights="uniform"),
        solvers.MinMax(),
        solvers.TaskOriented(first_weights="uniform"),
        solvers.MinNorm(exact=True, first_weights="uniform"),
    ],
)
def test_a_first_step_at_equal_weights(solver):
    gradients, values, achieved = random_tasks()
    np.testing.assert_allclose(weigh(solver, gradients, values, achieved, 1), 0.2)
    assert np.ptp(weigh(solver, gradients, values, achieved, 2)) > 1e-3


INITIAL = (0.5, 0.2, 0.1, 0.1, 0.1)


@pytest.mark.parametrize(
    "solver",
    [
        solvers.MinNorm(first_weights="uniform", initial=INITIAL),
        solvers.MinNorm(learning_rate=1e-12, initial=INITIAL),
        solvers.MinNorm(exact=True, first_weights="uniform", initial=INITIAL),
        solvers.MinMax(initial=INITIAL),
        solvers.TaskOriented(first_weights="uniform", initial=INITIAL),
    ],
)
def test_initial_weights(solver):
    """They are those of the first step; with a learning rate of almost 0, of all steps."""
    gradients, values, achieved = random_tasks()
    found = weigh(solver, gradients, values, achieved, 1)
    np.testing.assert_allclose(found, [INITIAL] * 4, rtol=1e-6)
    moved = np.ptp(weigh(solver, gradients, values, achieved, 2) - found) > 1e-6
    assert moved == (getattr(solver, "learning_rate", 1) > 1e-10)
    config = json.dumps(keras.saving.serialize_keras_object(solver))
    assert keras.saving.deserialize_keras_object(json.loads(config)) == solver


def test_descent_begins_at_the_initial_weights():
    """One step of the logits, from `log w`: `w (slope - w . slope)` with slopes 2 G w = (8, 1) / 2.

    `w = (1/4, 3/4)`, so `w . slope = 2 w' G w = 2 (1/4 + 9/16)` with `G = diag(4, 1)`.
    """
    solver = solvers.MinNorm(steps=1, learning_rate=0.1, initial=(0.25, 0.75))
    weights = weigh(solver, flat((2, 0), (0, 1)), HALVES, NONE, 1)
    w = np.array([0.25, 0.75])
    slope = 2 * np.array([4.0, 1.0]) * w
    expected = np.exp(np.log(w) - 0.1 * w * (slope - w @ slope))
    np.testing.assert_allclose(weights[0], expected / expected.sum())


def test_another_number_of_initial_weights_than_of_tasks():
    with pytest.raises(ValueError, match="has 2 initial weights for 5 tasks"):
        weigh(solvers.MinMax(initial=(0.5, 0.5)), *random_tasks())


@pytest.mark.parametrize("exact", [False, True])
def test_relative_weights_do_not_depend_on_the_scale_of_the_gradients(exact):
    """`G` over its mean diagonal, so that the squares of 1/1000 of the gradients count the same."""
    gradients, values, achieved = random_tasks()
    both = {relative: solvers.TaskOriented(lam=1.0, relative=relative, exact=exact)
            for relative in (True, False)}  # fmt: skip
    for relative, solver in both.items():
        small, large = (weigh(solver, s * gradients, values, achieved) for s in (1e-3, 1.0))
        assert np.allclose(small, large, rtol=1e-5) == relative
    mean = tf.sqrt(tf.reduce_mean(tf.reduce_sum(gradients**2, axis=2), axis=0))
    found = weigh(both[True], gradients, values, achieved)
    scaled = weigh(both[False], gradients / mean[None, :, None], values, achieved)
    np.testing.assert_allclose(found, scaled)


def test_relative_weights_of_zero_gradients():
    _, values, achieved = random_tasks()
    found = weigh(solvers.TaskOriented(relative=True), tf.zeros([5, 4, 7], tf.float64), values,
                  achieved)  # fmt: skip
    assert np.isfinite(found).all()


def test_the_shortest_of_two():
    """On the line from `g_1` to `g_2`, `w_1 = (g_2 - g_1) . g_2 / |g_1 - g_2|^2`, cut to [0, 1]."""
    gradients, values, achieved = random_tasks(batch=50, tasks=2, pixels=3)
    first, second = gradients.numpy()
    share = ((second - first) * second).sum(1) / ((first - second) ** 2).sum(1)
    weights = weigh(solvers.MinNorm(exact=True), gradients, values, achieved)
    np.testing.assert_allclose(weights[:, 0], np.clip(share, 0, 1), atol=1e-9)
    assert 0 < np.mean((share > 0) & (share < 1)) < 1  # both kinds were drawn


def test_pcgrad_leaves_gradients_without_conflict_alone():
    weights = weigh(
        solvers.PCGrad(), flat((1, 0), (1, 1), (0, 2)), tf.ones([1, 3], tf.float64), None
    )
    np.testing.assert_allclose(weights, np.full([1, 3], 1 / 3))


def test_cagrad_has_the_best_worst_case():
    """Among all directions of the ball around the mean, by brute force in the plane."""
    gradients = flat((3, 0), (-1, 1))
    weights = weigh(solvers.CAGrad(alpha=0.5), gradients, HALVES, None)
    found = 1.25 * tf.einsum("bt,tbp->p", weights, gradients).numpy()
    plane = gradients.numpy()[:, 0]
    mean = plane.mean(axis=0)
    angles = np.linspace(0, 2 * np.pi, 10_001)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    worst = ((mean + 0.5 * np.linalg.norm(mean) * circle) @ plane.T).min(axis=1)
    assert (plane @ found).min() == pytest.approx(worst.max(), rel=1e-5)
    assert worst.max() > (plane @ mean).min() + 0.1


@pytest.mark.parametrize("through", [False, True])
def test_hvm_is_a_gradient(through):
    values = tf.constant([[1.0, 2.5, 4.0]], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(values)
        nadir = 0.5 * tf.reduce_min(values)
        volume = tf.reduce_sum(
            tf.math.log(values - (nadir if through else tf.stop_gradient(nadir)))
        )
    weights, _ = solvers.HVM(through_nadir=through)(None, values, None, ())
    np.testing.assert_allclose(weights, tape.gradient(volume, values))


def test_min_max_prefers_the_task_of_the_least_value():
    solver = solvers.MinMax(learning_rate=0.5, gamma=0.0)
    values = tf.constant([[1.0, 3.0]], tf.float64)
    np.testing.assert_allclose(
        weigh(solver, tf.zeros([2, 1, 1], tf.float64), values, None, 4), [[1, 0]], atol=1e-6
    )


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: solvers.get("mgda"), r"solver is 'mgda'; expected one of cagrad, hvm"),
        (lambda: solvers.TaskOriented(lam=-1), "TaskOriented: lam is -1"),
        (lambda: solvers.TaskOriented(steps=0), "steps is 0; expected an integer >= 1"),
        (lambda: solvers.TaskOriented(norm="both"), "norm is 'both'; expected one of 'all'"),
        (lambda: solvers.TaskOriented(exact=True, balance=1.0), "not quadratic"),
        (lambda: solvers.MinNorm(first_weights="last"), "first_weights is 'last'"),
        (lambda: solvers.MinMax(learning_rate=float("nan")), "MinMax: learning_rate is nan"),
        (lambda: solvers.CAGrad(rounds=0), "rounds is 0"),
        (lambda: solvers.MinNorm(initial=(0.5, 0.6)), "initial weights have the sum 1.1"),
        (lambda: solvers.MinMax(initial=(1.0, 0.0)), "MinMax: initial weight is 0"),
        (lambda: solvers.TaskOriented(initial=(1.0,), exact=True), "does not depend"),
        (lambda: solvers.HVM(scale=1.0), r"scale is 1.0; expected a number in \[0, 1\)"),
    ],
)
def test_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize("bad", [solvers.MinNorm, None, kr.LinfBall(0.1), len])
def test_not_a_solver(bad):
    with pytest.raises(TypeError, match=r"solver is .*'task_oriented'"):
        solvers.get(bad)
