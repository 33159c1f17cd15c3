"""Multi-task attacks: tasks, losses and success."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import multi_task, pgd
from keras_robust.attacks.crafting import initialization
from keras_robust.attacks.multi_task import solvers, tasks
from keras_robust.core.config import replace

BALL = kr.LinfBall(0.1)
DRAW = np.random.default_rng(0)
X = tf.constant(DRAW.uniform(0.2, 0.8, (6, 4)), tf.float32)
Y = tf.constant([0, 1, 2, 0, 1, 2])
WEIGHTS = [DRAW.normal(size=(4, 3)).astype("float32") for _ in range(3)]


def linear(weights):
    return lambda x: {"logits": x @ weights}


def ensemble(*weights):
    """Members that count their passes; the whole is never run."""
    passes = [0] * len(weights)

    def counted(number):
        def forward(x):
            passes[number] += 1
            return {"logits": x @ weights[number]}

        return forward

    def whole(x):
        raise AssertionError("the ensemble was run")

    whole.members = tuple(map(counted, range(len(weights))))
    whole.passes = passes
    return whole


def test_a_step_follows_the_weighted_gradients():
    """Of linear members the gradient of cross-entropy is `W (p - onehot(y))`."""
    made = replace(
        multi_task(BALL, 1, 0.02, solver="uniform"), initialization=initialization.AtInput()
    )
    found = made(ensemble(*WEIGHTS), X, Y)
    total = 0
    for weights in WEIGHTS:
        total += (tf.nn.softmax(X @ weights) - tf.one_hot(Y, 3)) @ weights.T
    np.testing.assert_allclose(found, X + 0.02 * tf.sign(total), atol=1e-6)


def test_all_gradients_come_from_one_pass():
    members = ensemble(*WEIGHTS)
    multi_task(BALL, 3)(members, X, Y)
    assert members.passes == [3, 3, 3]
    members = ensemble(*WEIGHTS)
    multi_task(BALL, 3).compiled(members)(X, Y)
    assert members.passes == [1, 1, 1]  # the body of the loop is traced once


def test_transformations_go_through_the_model_together():
    seen = []

    def model(x):
        seen.append(x.shape[0])
        return {"logits": x @ WEIGHTS[0]}

    transformations = tasks.Transformations((tf.identity, lambda x: 1 - x, lambda x: x / 2))
    multi_task(BALL, 2, tasks=transformations, success_criterion="label")(model, X, Y)
    assert seen == [18, 18]
    multi_task(BALL, 1, tasks=transformations)(model, X, Y)
    assert seen[2:] == [6, 18]  # the clean prediction, once


@pytest.mark.parametrize("solver", list(solvers.NAMES))
def test_with_a_single_task_it_is_pgd(solver):
    """Of one transformation, one image to a group, or one member: the same steps from one start."""
    expected = pgd(BALL, 3, 0.03)(linear(WEIGHTS[0]), X, Y, seed=4)
    alone = lambda x: {**linear(WEIGHTS[0])(x), "member_logits": (x @ WEIGHTS[0])[:, None]}  # noqa: E731
    for kind in (tasks.Transformations([tf.identity]), tasks.Universal(group=1), "members"):
        found = multi_task(BALL, 3, 0.03, tasks=kind, solver=solver)(alone, X, Y, seed=4)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def conflicting(x):
    """Two members that at most `(0.1, 0.1)` fools both.

    The lead of the other class: `40 a - 10 b - 1` and `a + b - 0.15`. The first pulls the
    second pixel down, and ten times as hard as the second pulls it up.
    """
    a, b = tf.unstack(x - 0.5, axis=1)
    ahead = tf.stack([40 * a - 10 * b - 1, a + b - 0.15], axis=1)
    logits = tf.stack([tf.zeros_like(ahead), ahead], axis=2)
    return {"logits": logits[:, 0], "member_logits": logits}


@pytest.mark.parametrize(("solver", "all_fooled"), [("uniform", False), ("task_oriented", True)])
def test_ta_moo_turns_to_the_unachieved_task(solver, all_fooled):
    """Equal weights fool the first member more and more, and never the second."""
    x, y = tf.fill([1, 2], 0.5), tf.constant([0])
    made = replace(
        multi_task(BALL, 40, 0.01, solver=solver), initialization=initialization.AtInput()
    )
    found = made.trace(conflicting, x, y).achieved[:, :, 0].numpy()
    assert found.all(axis=1).any() == all_fooled
    assert found[10, 0]


def test_success_criteria():
    """A misclassified image achieves the criterion "label" at once."""
    x = tf.constant([[0.9, 0.1], [0.9, 0.1]])
    y = tf.constant([0, 1])
    model = linear(np.eye(2, dtype="float32"))
    still = {"tasks": tasks.Universal(group=1), "steps": 0, "step_size": 0.01}
    first = replace(multi_task(BALL, **still), initialization=initialization.AtInput())
    for achieved, expected in (("label", [False, True]), ("prediction", [False, False]),
                               (None, [False, False])):  # fmt: skip
        found = replace(first, success_criterion=achieved).trace(model, x, y)
        assert found.achieved[0, 0].numpy().tolist() == expected
    assert tasks.Members().success_criterion == "label"
    assert tasks.Transformations([abs]).success_criterion == "prediction"


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        ("margin", lambda z, y, clean: kr.losses.margin(z, y) + 50),
        ("kl", lambda z, y, clean: kr.losses.kl_divergence(clean, z)),
        ("cross_entropy", lambda z, y, clean: kr.losses.cross_entropy(z, y)),
    ],
)
def test_losses(loss, value):
    """The first row of a trace is of the start; the clean prediction is each member's own."""
    made = multi_task(BALL, 0, 0.1, loss=loss)
    found = made.trace(ensemble(*WEIGHTS), X, Y)
    for number, weights in enumerate(WEIGHTS):
        expected = value(found.images @ weights, Y, X @ weights)
        np.testing.assert_allclose(found.losses[0, number], expected, rtol=1e-4, atol=1e-6)


def test_the_lifted_margin_ends_at_zero():
    far = tf.constant([[1.0, 0.0]])
    made = multi_task(BALL, 0, 0.1, loss="margin", tasks=tasks.Universal(1))
    found = made.trace(linear(np.diag([90.0, 90.0]).astype("float32")), far, tf.constant([0]))
    assert found.losses[0, 0, 0] == 0


@pytest.mark.parametrize(
    "ball", [BALL, kr.L2Ball(0.3), kr.L1Ball(0.4)], ids=lambda b: type(b).__name__
)
def test_a_group_shares_its_perturbation(ball):
    """Which is inside the ball, and keeps every image of the group inside the bounds."""
    x = tf.concat([tf.constant([[0.0, 1.0, 0.5, 0.5], [0.97, 0.5, 0.02, 0.5]]), X[2:]], axis=0)
    made = multi_task(ball, 5, tasks=tasks.Universal(group=2), solver="min_norm")
    found = made(linear(WEIGHTS[1]), x, Y, seed=1)
    delta = tf.reshape(found - x, [3, 2, 4])
    np.testing.assert_allclose(delta[:, 0], delta[:, 1], atol=1e-6)
    assert np.all((found >= 0) & (found <= 1)) and np.all(np.abs(delta[0, :, 0]) <= 0.03 + 1e-6)
    assert np.all(ball.distance(found, x) <= ball.radius * (1 + 1e-5))
    assert np.any(delta[0] != delta[1])


def test_all_images_of_a_batch_are_a_group():
    made = multi_task(BALL, 2, tasks="universal")
    found = made(linear(WEIGHTS[0]), X, Y)
    np.testing.assert_allclose(found - X, tf.broadcast_to((found - X)[:1], [6, 4]), atol=1e-6)
    assert made.trace(linear(WEIGHTS[0]), X, Y).weights.shape == [2, 6, 1]


def test_groups_of_batches_of_unknown_size():
    """One trace serves them; a size that groups do not divide is an error at run time."""
    for kind, sizes in ((tasks.Universal(), (6, 4, 3)), (tasks.Universal(group=2), (6, 4, 2))):
        made = multi_task(BALL, 2, tasks=kind, solver="min_max")
        compiled = made.compiled(linear(WEIGHTS[0]))
        for size in sizes:
            expected = made(linear(WEIGHTS[0]), X[:size], Y[:size], seed=3)
            np.testing.assert_allclose(compiled(X[:size], Y[:size], seed=3), expected, atol=1e-6)
        assert compiled.traces() == 1
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="whole groups"):
        compiled(X[:3], Y[:3])


def test_strengths():
    """One for each step, the same for all transformations; 1 unless they are drawn."""
    drawn = []

    def strong(x, p):
        drawn.append(float(p))
        return x * p

    def named(x, p=0.0):
        drawn.append(float(p))
        return x

    transformations = tasks.Transformations((strong, tf.image.rot90, strong), stochastic=True)
    assert transformations.functions[1] is tf.image.rot90
    x, y = tf.reshape(X[:4], [4, 2, 2, 1]), Y[:4]
    model = lambda x: linear(WEIGHTS[0])(tf.reshape(x, [-1, 4]))  # noqa: E731
    multi_task(BALL, 3, tasks=transformations)(model, x, y)
    assert drawn[::2] == drawn[1::2] and len(set(drawn)) == 3 and all(0 <= p < 1 for p in drawn)
    del drawn[:]
    multi_task(BALL, 1, tasks=tasks.Transformations((strong, named)))(linear(WEIGHTS[0]), X, Y)
    assert drawn == [1.0, 1.0]


def test_a_trace_is_of_the_attack():
    made = multi_task(BALL, 4, solver="min_max")
    members = ensemble(*WEIGHTS)
    found = made.trace(members, X, Y, seed=7)
    np.testing.assert_array_equal(found.images, made(members, X, Y, seed=7))
    assert found.weights.shape == [4, 3, 6] and found.losses.shape == found.achieved.shape == [
        5,
        3,
        6,
    ]
    np.testing.assert_allclose(tf.reduce_sum(found.weights, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found.weights[0], 1 / 3)  # of a first step of MinMax
    for number, weights in enumerate(WEIGHTS):
        z = found.images @ weights
        np.testing.assert_allclose(
            found.losses[-1, number], kr.losses.cross_entropy(z, Y), rtol=1e-5
        )
        np.testing.assert_array_equal(found.achieved[-1, number], np.argmax(z, axis=1) != Y)
    assert np.mean(found.losses[-1]) > np.mean(found.losses[0])
    graph = tf.function(lambda: made.trace(members, X, Y, seed=7), autograph=False)()
    start = multi_task(BALL, 0, 0.1).trace(members, X, Y, seed=7).images
    gradients = [
        ((tf.nn.softmax(start @ w) - tf.one_hot(Y, 3)) @ w.T).numpy() for w in WEIGHTS
    ]  # fmt: skip
    norms = [np.linalg.norm(gradient, axis=1) for gradient in gradients]
    np.testing.assert_allclose(found.gradient_norms[0], norms, rtol=1e-4)
    mean = np.linalg.norm(sum(gradients) / 3, axis=1)
    np.testing.assert_allclose(found.combined_norms[0], mean, rtol=1e-4)
    assert found.gradient_norms.shape == [4, 3, 6] and found.combined_norms.shape == [4, 6]
    for one, two in zip(graph, found, strict=True):
        np.testing.assert_allclose(tf.cast(one, tf.float32), tf.cast(two, tf.float32), atol=1e-5)


TARGETS = tf.constant([1, 2, 0, 2, 0, 1])


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        ("cross_entropy", lambda z: -kr.losses.cross_entropy(z, TARGETS)),
        ("margin", lambda z: kr.losses.targeted_margin(z, Y, TARGETS) + 50),
    ],
)
def test_a_targeted_attack_moves_toward_its_targets(loss, value):
    """Success is the target, not an error; every step raises the losses of linear members."""
    made = multi_task(BALL, 4, 0.02, solver="uniform", loss=loss, targeted=True)
    assert made.takes_targets and made.name.startswith("targeted multi-task-4")
    members = ensemble(*WEIGHTS)
    found = made.trace(members, X, Y, targets=TARGETS)
    np.testing.assert_array_equal(found.images, made(members, X, Y, targets=TARGETS))
    for number, weights in enumerate(WEIGHTS):
        z = found.images @ weights
        np.testing.assert_allclose(found.losses[-1, number], value(z), rtol=1e-5)
        np.testing.assert_array_equal(found.achieved[-1, number], np.argmax(z, axis=1) == TARGETS)
    assert (np.mean(found.losses, axis=(1, 2))[1:] > np.mean(found.losses, axis=(1, 2))[:-1]).all()


def test_a_targeted_universal_perturbation_has_the_targets_of_its_images():
    """Each image of a group has its own: with one model and one pixel per class, up at the target
    and down elsewhere."""
    eye = linear(np.eye(3, dtype="float32"))
    x, targets = tf.fill([4, 3], 0.5), tf.constant([1, 1, 2, 2])
    made = replace(
        multi_task(BALL, 1, 0.1, tasks=tasks.Universal(2), targeted=True),
        initialization=initialization.AtInput(),
    )
    found = made(eye, x, tf.zeros([4], tf.int32), targets=targets)
    expected = 0.5 + 0.1 * (2 * tf.one_hot(targets, 3) - 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_every_target_in_turn():
    """`multi_targeted` fools the whole at least as often as any one of the targets."""
    whole = lambda x: {  # noqa: E731
        "logits": x @ WEIGHTS[0],
        "member_logits": tf.stack([x @ w for w in WEIGHTS], axis=1),
    }
    made = multi_task(BALL, 3, solver="uniform", targeted=True)
    found = kr.attacks.multi_targeted(made)(whole, X, Y)
    assert found.shape == X.shape and np.abs(found - X).max() <= 0.1 + 1e-6


def test_memory_of_gradients_can_be_switched_off():
    """After the first step the gradient of the root of a pixel at 0 is infinite."""
    x, y = tf.constant([[0.1, 0.5]]), tf.constant([1])
    rooted = lambda x: tf.stack([tf.sqrt(x[:, 0]), tf.ones_like(x[:, 1])], axis=1)  # noqa: E731
    ends = {}
    for memory in (True, False):
        made = multi_task(
            kr.LinfBall(0.1), 2, 0.1, tasks=tasks.Transformations((rooted, tf.identity)),
            solver="uniform", memory=memory, success_criterion="label",
        )  # fmt: skip
        made = replace(made, initialization=initialization.AtInput())
        ends[memory] = made.trace(lambda x: {"logits": -x}, x, y).gradient_norms[1, 0, 0].numpy()
    assert ends[True] > 0.1 and ends[False] == 0


def test_names_and_radii():
    made = multi_task(kr.LinfBall(0.4), 10, 0.1, solver="min_max")
    assert made.name == "multi-task-10, min_max, members"
    half = made.at_radius(0.2)
    assert (half.ball, half.step_rule.size, half.solver) == (
        kr.LinfBall(0.2),
        0.05,
        solvers.MinMax(),
    )
    assert multi_task(BALL, 10, tasks=tasks.Universal(2)).name.endswith("task_oriented, Universal")


def resized(x):
    return x[:, :2]


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: multi_task(0.1), TypeError, r"ball is 0.1; expected a threat model"),
        (lambda: multi_task(BALL, -1), ValueError, "steps is -1"),
        (lambda: multi_task(BALL, step_size=0), ValueError, "step_size is 0"),
        (lambda: multi_task(BALL, solver="best"), ValueError, "solver is 'best'"),
        (lambda: multi_task(BALL, tasks="models"), ValueError, "tasks is 'models'; expected one"),
        (lambda: multi_task(BALL, tasks=[resized]), TypeError, "tasks is .*Transformations"),
        (lambda: multi_task(BALL, loss="dlr"), ValueError, "loss is 'dlr'; expected one of 'cross"),
        (lambda: multi_task(BALL, success_criterion="y"), ValueError, "success_criterion is 'y'"),
        (lambda: tasks.Universal(group=0), ValueError, "group is 0; expected an integer >= 1"),
        (lambda: tasks.Transformations(resized), TypeError, "expected a tuple of functions"),
        (lambda: tasks.Transformations([]), ValueError, "no functions were received"),
        (
            lambda: multi_task(BALL, 1)(linear(WEIGHTS[0]), X, Y),
            ValueError,
            r"on members was called with a model of outputs \['logits'\]; expected an ensemble",
        ),
        (
            lambda: multi_task(BALL, 1)(ensemble(*WEIGHTS), X, Y, targets=Y),
            ValueError,
            "was called with targets",
        ),
        (
            lambda: multi_task(BALL, 1, targeted=True)(ensemble(*WEIGHTS), X, Y),
            ValueError,
            "was called without targets",
        ),
        (
            lambda: multi_task(BALL, 1, targeted=True, loss="kl"),
            ValueError,
            "loss is 'kl', which uses no labels",
        ),
        (
            lambda: multi_task(BALL, 1, targeted=True, success_criterion="label"),
            ValueError,
            "success_criterion is 'label' of a targeted attack",
        ),
        (
            lambda: multi_task(BALL, 1, targeted=True, solver="hvm"),
            ValueError,
            "HVM needs values >= 0",
        ),
        (
            lambda: multi_task(BALL, 1)(ensemble(WEIGHTS[0], WEIGHTS[1][:, :2]), X, Y),
            ValueError,
            r"logits of shapes \(6, 3\), \(6, 2\); expected one shape",
        ),
        (
            lambda: multi_task(BALL, 1, tasks=tasks.Universal(4))(linear(WEIGHTS[0]), X, Y),
            ValueError,
            "the batch has 6 images and groups have 4; expected whole groups",
        ),
        (
            lambda: multi_task(BALL, 1, tasks=tasks.Transformations([resized]))(
                linear(WEIGHTS[0]), X, Y
            ),
            ValueError,
            r"shapes \(6, 4\), \(6, 2\); expected one shape .*Resize",
        ),
    ],
)  # fmt: skip
def test_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()
