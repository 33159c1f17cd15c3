"""FAB where the closest boundary is a formula, its settings, and what counts."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import fab, multi_targeted, pgd
from keras_robust.attacks.minimum_norm.fab import Fab
from tests.attacks.linear_model import W, distances, linear

FAR = (-50.0, 50.0)  # bounds that never bind
BALLS = {
    "linf": (kr.LinfBall(20.0, FAR), 1),
    "l2": (kr.L2Ball(20.0, FAR), 2),
    "l1": (kr.L1Ball(20.0, FAR), np.inf),
}
every_ball = pytest.mark.parametrize(
    ("ball", "dual"),
    [
        pytest.param(*BALLS[norm], marks=[pytest.mark.slow] * (norm != "l1"), id=norm)
        for norm in BALLS
    ],
)


def images(count):
    x = np.random.default_rng(0).normal(size=(count, 4))
    return tf.constant(x), tf.constant((x @ W).argmax(axis=1))


@every_ball
def test_the_closest_boundary_of_a_linear_model(ball, dual):
    """Of all classes, the one whose plane is closest; FAB ends less than 1% beyond it."""
    x, y = images(12)
    expected = distances(x, y, dual).min(axis=1)
    found = ball.distance(fab(ball, 20)(linear, x, y), x).numpy()
    assert (found >= expected * (1 - 1e-9)).all()
    assert (found <= 1.01 * expected).all()


@every_ball
def test_a_targeted_run_meets_the_boundary_of_its_target(ball, dual):
    """With the label; where another class is reached first, that counts."""
    x, y = images(12)
    targets = (y + 1) % 3
    each = distances(x, y, dual)
    aimed = each[np.arange(12), targets]
    found = ball.distance(fab(ball, 20, targeted=True)(linear, x, y, targets=targets), x).numpy()
    direct = aimed == each.min(axis=1)
    assert direct.sum() >= 3
    np.testing.assert_allclose(found[direct], aimed[direct], rtol=0.01)
    assert (found >= each.min(axis=1) * (1 - 1e-9)).all()


def test_the_radius_decides_what_counts():
    """The same search: what lies beyond the radius comes back as it was."""
    x, y = images(12)
    far = kr.L2Ball(20.0, FAR)
    found = fab(far, 10)(linear, x, y)
    distance = far.distance(found, x).numpy()
    radius = float(np.median(distance))
    judged = fab(kr.L2Ball(radius, FAR), 10)(linear, x, y).numpy()
    within = distance <= radius
    assert 0 < within.sum() < 12
    np.testing.assert_array_equal(judged[within], found.numpy()[within])
    np.testing.assert_array_equal(judged[~within], x.numpy()[~within])


def test_a_misclassified_image_stays():
    x, y = images(6)
    found = fab(kr.L2Ball(20.0, FAR), 5)(linear, x, (y + 1) % 3)
    np.testing.assert_array_equal(found, x)


def test_one_step_by_hand():
    """z = (x_1, x_2) at (0.7, 0.3) in L2: the boundary is 0.2 per pixel away, 1.05 times that is
    (0.49, 0.51). There FAB-1 ends, as the first step begins at the image and the draw towards it
    changes nothing. In L1 the first pixel alone moves by 0.4, to 0.28."""
    x, y = tf.constant([[0.7, 0.3]], tf.float64), tf.constant([0])
    for ball, expected in ((kr.L2Ball(0.5), [0.49, 0.51]), (kr.L1Ball(0.5), [0.28, 0.3])):
        found = fab(ball, 1)(lambda x: {"logits": x}, x, y)
        np.testing.assert_allclose(found, [expected], rtol=1e-12)


def test_a_second_step_by_hand():
    """After (0.49, 0.51), x = x_0 + 0.9 (-0.21, 0.21) = (0.511, 0.489), whose boundary is 0.011
    away and that of the image 0.2. Then a = 0.011 / 0.211 (below 0.1) draws (0.511 - 0.01155) and
    (0.7 - 0.21) together: 0.49945 (1 - a) + 0.49 a = 0.498957..., closer than 0.49."""
    x, y = tf.constant([[0.7, 0.3]], tf.float64), tf.constant([0])
    found = fab(kr.L2Ball(0.5), 2)(lambda x: {"logits": x}, x, y).numpy()
    alpha = 0.011 / 0.211
    first = 0.49945 * (1 - alpha) + 0.49 * alpha
    np.testing.assert_allclose(found, [[first, 1 - first]], rtol=1e-12)


@pytest.mark.parametrize("targeted", [False, True])
def test_a_model_of_another_dtype_than_its_images(targeted):
    """Keras layers cast images of float64 to float32."""
    x, y = images(4)
    ball = kr.L2Ball(20.0, FAR)
    targets = (y + 1) % 3 if targeted else None
    attack = fab(ball, 5, targeted=targeted)
    cast = attack(lambda x: linear(tf.cast(x, tf.float32)), x, y, targets=targets)
    assert cast.dtype == tf.float64
    np.testing.assert_allclose(cast, attack(linear, x, y, targets=targets), atol=1e-4)


def test_restarts_begin_at_random_points():
    ball = kr.L2Ball(0.5)
    assert fab(ball) == Fab(ball, 100)
    rounds = fab(ball, 7, restarts=3).rounds(10)
    assert [part.attack.random_start for part in rounds] == [False, True, True]
    assert len({part.fold for part in rounds}) == 3
    x = tf.random.stateless_uniform([200, 4], (1, 2), 0.3, 0.7)
    begun = Fab(ball, random_start=True)._start(x, tf.constant([3, 4]))
    distance = ball.distance(begun, x).numpy()
    assert 0.15 < distance.mean() < distance.max() <= 0.25 + 1e-6


def test_all_targets_are_the_untargeted_attack_on_a_linear_model():
    """`multi_targeted` runs toward each class: the closest of their boundaries is the closest."""
    x, y = images(12)
    distance = distances(x, y, 2).min(axis=1)
    ball = kr.L2Ball(float(np.median(distance)) * 1.0001 + 0.01, FAR)
    towards = multi_targeted(fab(ball, 20, targeted=True))(linear, x, y)
    wrong = kr.losses.misclassified(linear(towards)["logits"], y).numpy()
    np.testing.assert_array_equal(wrong, distance * 1.01 < ball.radius)


def test_names():
    ball = kr.LinfBall(0.1)
    assert fab(ball, 9).name == "FAB-9"
    assert multi_targeted(fab(ball, 9, targeted=True)).name == "multi-targeted targeted FAB-9"


@pytest.mark.parametrize(
    ("build", "error", "match"),
    [
        (lambda: fab(0.1), TypeError, "expected a threat model"),
        (lambda: fab(kr.LinfBall(0.1), -1), ValueError, "steps is -1"),
        (lambda: fab(kr.LinfBall(0.1), 1.5), ValueError, "steps is 1.5"),
        (lambda: fab(kr.LinfBall(0.1), restarts=0), ValueError, "restarts is 0"),
        (lambda: fab(kr.LinfBall(0.1), targeted=True, restarts=2), ValueError, "multi_targeted"),
        (lambda: fab(kr.LinfBall(0.1), alpha_max=1.5), ValueError, "alpha_max is 1.5"),
        (lambda: fab(kr.LinfBall(0.1), eta=0.5), ValueError, "eta is 0.5"),
        (lambda: fab(kr.LinfBall(0.1), beta=1.0), ValueError, "beta is 1.0"),
    ],
)
def test_bad_settings(build, error, match):
    with pytest.raises(error, match=match):
        build()


def test_targets_are_for_targeted_attacks():
    x, y = images(2)
    ball = kr.L2Ball(1.0, FAR)
    with pytest.raises(ValueError, match="called without targets"):
        fab(ball, 2, targeted=True)(linear, x, y)
    with pytest.raises(ValueError, match="called with targets"):
        fab(ball, 2)(linear, x, y, targets=y)


def test_a_model_without_a_gradient_is_refused():
    x, y = images(2)
    for model in (lambda x: {"logits": tf.zeros([2, 3])}, lambda x: {"logits": tf.round(x[:, :3])}):
        with pytest.raises(ValueError, match="gradient-free attack"):
            fab(kr.L2Ball(1.0, FAR), 2)(model, tf.cast(x, tf.float32), y)


@pytest.mark.slow
def test_it_finds_what_pgd_finds():
    """On a network, in every norm: nearly all that PGD-40 fools within the radius."""
    random = np.random.default_rng(1)
    first, second = random.normal(size=(8, 16)), random.normal(size=(16, 4))

    def model(x):
        return {"logits": tf.tanh(2 * (x - 0.5) @ first) @ second}

    x = tf.constant(random.random((40, 8)))
    y = tf.argmax(model(x)["logits"], axis=1)
    for ball in (kr.LinfBall(0.05), kr.L2Ball(0.12), kr.L1Ball(0.25)):
        fooled = [
            kr.losses.misclassified(model(attack.compiled(model)(x, y))["logits"], y).numpy()
            for attack in (pgd(ball, 40, loss="margin"), fab(ball, 20))
        ]
        assert 5 <= fooled[0].sum() <= 35
        assert (fooled[0] & ~fooled[1]).sum() <= 1
