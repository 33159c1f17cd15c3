"""Decision-based attacks on a linear classifier, where the smallest perturbation is a formula.

With weights `w` between two classes and the margin `m = |w (x - 1/2)|`, the boundary is
`m / |w|_2` away in L2, and `m / |w|_1` in Linf.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import boundary, hop_skip_jump
from keras_robust.attacks.crafting import decision_boundary

PIXELS = 12
RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.normal(size=(PIXELS, 2)).astype("float32")
NORMAL = WEIGHTS[:, 1] - WEIGHTS[:, 0]
X = RANDOM.uniform(0.35, 0.65, (8, PIXELS)).astype("float32")
MARGIN = (X - 0.5) @ NORMAL
Y = (MARGIN > 0).astype(int)
DISTANCE = {
    kr.L2Ball: np.abs(MARGIN) / np.linalg.norm(NORMAL),
    kr.LinfBall: np.abs(MARGIN) / np.abs(NORMAL).sum(),
}
ALL = {kr.L2Ball: kr.L2Ball(PIXELS**0.5), kr.LinfBall: kr.LinfBall(1.0)}
FACTORIES = [boundary, hop_skip_jump]
every_attack = pytest.mark.parametrize("factory", FACTORIES, ids=lambda f: f.__name__.lower())


def linear(x):
    return {"logits": tf.matmul(x - 0.5, tf.constant(WEIGHTS, x.dtype))}


def misclassified(x):
    return linear(tf.constant(x))["logits"].numpy().argmax(axis=1) != Y


@pytest.mark.parametrize(
    ("factory", "norm", "steps", "slack"),
    [
        (boundary, kr.L2Ball, 600, 1e-3),
        pytest.param(hop_skip_jump, kr.L2Ball, 20, 0.02, marks=pytest.mark.slow),
        (hop_skip_jump, kr.LinfBall, 20, 0.02),
    ],
    ids=["boundary l2", "hop_skip_jump l2", "hop_skip_jump linf"],
)
def test_the_smallest_perturbation_is_the_formula(factory, norm, steps, slack):
    ball, smallest = ALL[norm], DISTANCE[norm]
    x_adv = factory(ball, steps).compiled(linear)(X, Y, 1).numpy()
    assert misclassified(x_adv).all()
    found = ball.distance(x_adv, X).numpy()
    assert (found >= smallest * (1 - 1e-3)).all()
    assert (found <= smallest * (1 + slack)).all(), found / smallest


@every_attack
def test_the_radius_decides_at_the_end(factory):
    """Beyond the radius images stay unchanged; within it the example is the same."""
    attack = factory(ALL[kr.L2Ball], 8).compiled(linear)
    everywhere = attack(X, Y, 1).numpy()
    distance = kr.L2Ball(1.0).distance(everywhere, X).numpy()
    radius = float(np.median(distance))
    within = attack(X, Y, 1, radius).numpy()
    near = distance <= radius
    assert 0 < near.sum() < len(X)
    np.testing.assert_array_equal(within[near], everywhere[near])
    np.testing.assert_array_equal(within[~near], X[~near])


@every_attack
def test_misclassified_images_and_images_without_an_example_stay(factory):
    attack = factory(ALL[kr.L2Ball], 2)
    np.testing.assert_array_equal(attack(linear, X[:2], 1 - Y[:2]), X[:2])

    def constant(x):
        return {"logits": x[:, :2] * 0 + [[1.0, 0.0]]}

    np.testing.assert_array_equal(attack(constant, X[:2], np.zeros(2, int)), X[:2])


@every_attack
def test_no_gradient_is_asked_for(factory):
    """Predictions that come from elsewhere, as from a server."""

    def elsewhere(x):
        said = tf.numpy_function(lambda x: (x - 0.5) @ WEIGHTS, [x], tf.float32)
        return {"logits": tf.ensure_shape(said, [None, 2])}

    attack = factory(ALL[kr.L2Ball], 8)
    np.testing.assert_allclose(
        attack.compiled(elsewhere)(X, Y, 2), attack.compiled(linear)(X, Y, 2), atol=1e-4
    )


@every_attack
def test_it_begins_where_another_attack_ends(factory):
    """Without steps the result is on the segment to that attack's: the closest boundary point."""
    ball = ALL[kr.L2Ball]
    far = kr.attacks.fgsm(kr.L2Ball(0.5), loss="margin")  # along the normal, beyond the boundary
    x_adv = factory(ball, 0, start=far)(linear, X, Y).numpy()
    assert misclassified(x_adv).all()
    found = ball.distance(x_adv, X).numpy()
    # Ten bisections of the path of length 0.5.
    assert (found - DISTANCE[kr.L2Ball] <= 0.5 / 2**10 + 1e-5).all()


def test_binary_search():
    """The path from 0 to 1, misclassified from 0.3 on, in 4 steps: 1/2, 1/4, 3/8, 5/16."""
    x, far = tf.zeros([1, 2]), tf.constant([[1.0, 0.5]])
    decide = lambda x: x[:, 0] >= 0.3  # noqa: E731
    for ball, other in ((kr.L2Ball(1.0), 5 / 32), (kr.LinfBall(1.0), 5 / 16)):
        found = decision_boundary.binary_search_boundary(ball, decide, x, far, steps=4)
        # The second pixel shrinks with the first in L2, and is cut to the same distance in Linf.
        np.testing.assert_allclose(found, [[5 / 16, other]])


def test_the_end_of_the_path_is_the_point_itself():
    x, far = tf.constant([[0.1, 0.7]]), tf.constant([[0.3, 0.95]])
    for ball in ALL.values():
        there = decision_boundary.project_toward(ball, x, far, tf.ones([1]))
        np.testing.assert_array_equal(there, far)
        np.testing.assert_allclose(decision_boundary.project_toward(ball, x, far, tf.zeros([1])), x)


def test_noise_is_drawn_until_it_is_misclassified():
    """Three images that are misclassified for all noise, for a fifth of it, and for none."""
    seen = []

    def decide(x):
        seen.append(len(x))
        return tf.stack([True, x[1, 0] > 0.8, False])

    begun = decision_boundary._noise(
        kr.LinfBall(1.0), decide, tf.zeros([3, 2]), tf.constant([0, 1])
    )
    assert begun.found.numpy().tolist() == [True, True, False]
    assert begun.x[1, 0] > 0.8 and np.all(begun.x[2] == 0)
    assert len(seen) == decision_boundary.NOISE_TRIES


def test_bad_settings_are_refused():
    ball = ALL[kr.L2Ball]
    for build, error, match in (
        (lambda: boundary(ball, -1), ValueError, "Boundary: steps is -1"),
        (lambda: hop_skip_jump(ball, 1.5), ValueError, "HopSkipJump: steps is 1.5"),
        (
            lambda: hop_skip_jump(ball, n_directions=1),
            ValueError,
            "n_directions is 1; expected .* >= 2",
        ),
        (lambda: boundary(ball, start=ball), TypeError, "Boundary: start is L2Ball"),
        (
            lambda: boundary(ball, start=kr.attacks.per_member(kr.attacks.fgsm(ball))),
            ValueError,
            "returns one batch per member",
        ),
    ):
        with pytest.raises(error, match=match):
            build()
    for factory in FACTORIES:
        with pytest.raises(ValueError, match="called with targets"):
            factory(ball, 1)(linear, X, Y, targets=1 - Y)
