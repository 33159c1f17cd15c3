"""Square: what it proposes and what it keeps."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import square
from keras_robust.attacks.black_box import square as square_module
from keras_robust.attacks.black_box.square_proposals import (
    PROPOSALS,
    Size,
    double_bump,
    random_window,
)

GREY = tf.fill([3, 10, 10, 2], tf.constant(0.5, tf.float64))
SIZE = Size(10, 10, 2)
BALLS = [kr.LinfBall(0.1), kr.L2Ball(0.5), kr.L1Ball(3.0)]
SEED = tf.constant([1, 2])
every_ball = pytest.mark.parametrize("ball", BALLS, ids=["linf", "l2", "l1"])
# In L2 by default, whose windows come in pairs.
one_ball = pytest.mark.parametrize(
    "ball",
    [BALLS[1], *(pytest.param(ball, marks=pytest.mark.slow) for ball in (BALLS[0], BALLS[2]))],
    ids=["l2", "linf", "l1"],
)


def proposals(ball, queries=60):
    return PROPOSALS[ball.p](ball, SIZE, queries, 0.8)


def test_stripes_are_vertical_corners_of_the_ball():
    moved = proposals(BALLS[0]).start(GREY, SEED).numpy() - 0.5
    np.testing.assert_allclose(np.abs(moved), 0.1)
    assert (moved == moved[:, :1]).all() and len(np.unique(moved[0, 0, :, 0])) == 2


@pytest.mark.parametrize(("query", "side"), [(0, 9), (11, 6), (51, 4)])
def test_a_window_in_linf(query, side):
    """round(sqrt(100 p)) for p = 0.8, 0.4, 0.2: 9, 6 and 4. Inside it all pixels of a channel are
    at one end, where twice the radius has brought them, outside all are as they were."""
    best = proposals(BALLS[0]).start(GREY, SEED)
    found = proposals(BALLS[0]).next(GREY, best, tf.constant(query), SEED).numpy()
    same = {tuple(np.round(found[0, 3:5, 3:5, c].ravel() - 0.5, 6)) for c in (0, 1)}
    changed = (found != best.numpy()).any(axis=(0, 3))
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert len(rows) <= side and np.ptp(columns) < side and len(same) <= 2
    window = found[:, rows.min() : rows.min() + len(rows), columns]
    np.testing.assert_allclose(np.abs(window - 0.5), 0.1)
    for channel in (0, 1):
        assert len(np.unique(np.sign(window[..., channel] - 0.5))) == 1


@pytest.mark.parametrize(("order", "side"), [(2.0, 5), (1.0, 5), (2.0, 3), (1.0, 1), (2.0, 4)])
def test_a_double_bump(order, side):
    """Of length 1, its halves of different signs; the upper one has the fewer rows."""
    window = double_bump(side, side, order)
    assert np.linalg.norm(window.ravel(), order) == pytest.approx(1)
    assert (window[: side // 2] > 0).all() and (window[side // 2 :] < 0).all()


def test_bumps_in_l2_are_on_the_sphere():
    """Far from the bounds every proposal is as long as the radius, and so is the start."""
    ball = kr.L2Ball(0.5)
    kind = proposals(ball)
    best = kind.start(GREY, SEED)
    for query in range(3):
        np.testing.assert_allclose(ball.distance(best, GREY), 0.5, rtol=1e-6)
        best = kind.next(GREY, best, tf.constant(20 * query), SEED + query)


def test_a_grid_of_bumps():
    """Ten pixels hold five by five bumps of two by two, each of one sign above and below."""
    moved = proposals(kr.L2Ball(0.5)).start(GREY, SEED).numpy() - 0.5
    tiles = np.sign(moved).reshape(3, 5, 2, 5, 2, 2)
    upright = tiles[:, :, 0] == -tiles[:, :, 1]  # [3, 5, 5, 2, 2]
    turned = tiles[..., 0, :] == -tiles[..., 1, :]  # [3, 5, 2, 5, 2]
    assert (upright.all(axis=3) ^ turned.all(axis=2)).all()


def test_what_two_windows_hold_goes_into_one():
    """With the whole radius in use nothing is spare: in L2, in each channel, the new window is as
    long as both windows were together, before the whole is scaled to the sphere."""
    ball = kr.L2Ball(0.5)
    kind = proposals(ball)
    best = kind.start(GREY, SEED)
    found = kind.next(GREY, best, tf.constant(51), SEED) - GREY
    before = best - GREY
    seeds = tf.random.split(SEED, 4)
    here, there = (random_window(SIZE, 5, s)[0].numpy()[0, ..., 0] for s in (seeds[0], seeds[1]))
    here, there = here[None, ..., None], there[None, ..., None] & ~here[None, ..., None]
    assert (found.numpy() == 0)[np.broadcast_to(there, found.shape)].all()
    kept = ~(here | there)
    scale = (found / before).numpy()[np.broadcast_to(kept, found.shape)]
    inside = np.where(here | there, before, 0)
    window = np.where(here, found, 0)
    for image in range(3):
        factor = (found / before).numpy()[image][np.broadcast_to(kept[0], found.shape[1:])]
        np.testing.assert_allclose(factor, factor[0])
        lengths = np.linalg.norm(window[image].reshape(-1, 2), axis=0)
        both = np.linalg.norm(inside[image].reshape(-1, 2), axis=0)
        np.testing.assert_allclose(lengths, factor[0] * both, rtol=1e-6)
    assert scale.min() > 0


@one_ball
def test_the_margin_never_falls(ball):
    """More queries of one seed go on where fewer ended."""
    weights = tf.constant(np.random.default_rng(0).normal(size=(200, 3)))

    def model(x):
        return {"logits": tf.reshape(x - 0.5, [-1, 200]) @ weights + [99.0, 0, 0]}

    y = tf.zeros([3], tf.int64)
    margins = [
        kr.losses.margin(model(square(ball, n)(model, GREY, y, seed=3))["logits"], y)
        for n in (1, 10, 30)
    ]
    assert (np.diff(margins, axis=0) >= 0).all()
    assert (margins[2] > margins[0]).numpy().all()


def test_it_stops_when_all_are_fooled():
    calls = []

    def model(x):
        calls.append(1)
        return {"logits": tf.stack([x[:, 0], 1 - x[:, 0]], axis=1)}

    x = tf.constant([[0.52], [0.52]])
    found = square(kr.LinfBall(0.1), 500)(model, x, tf.constant([0, 0]), seed=1)
    assert (found.numpy() < 0.5).all()
    assert len(calls) < 40


def test_logits_that_are_no_numbers_are_passed_over():
    def model(x):
        bad = x[:, 0] > 0.5
        return {"logits": tf.stack([tf.where(bad, np.nan, 1.0), tf.zeros_like(x[:, 0])], axis=1)}

    x = tf.constant([[0.45]])
    for seed in range(3):
        found = square(kr.LinfBall(0.1), 5)(model, x, tf.constant([0]), seed=seed).numpy()
        assert np.isfinite(found).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 1), (2, 9, 3), (5,), (4, 4), (2, 2, 2, 2)])
@one_ball
def test_images_of_any_shape(ball, shape):
    x = tf.fill([2, *shape], 0.5)

    def model(x):
        return {"logits": tf.reshape(x, [2, -1])[:, :1] * [[1.0, 0.0]]}

    found = square(ball, 6)(model, x, tf.constant([0, 0]))
    assert found.shape == x.shape and np.any(found != x)
    assert ball.distance(found, x).numpy().max() <= ball.radius * (1 + 1e-5)


@pytest.mark.parametrize("queries", [0, -1, 2.5, True])
def test_queries_are_refused(queries):
    with pytest.raises(ValueError, match=rf"queries is {queries}"):
        square(BALLS[0], queries)


def test_what_is_refused():
    with pytest.raises(ValueError, match="p_init is 0"):
        square(BALLS[0], p_init=0)
    with pytest.raises(TypeError, match="ball is 0.1"):
        square(0.1)
    with pytest.raises(ValueError, match="does not use"):
        square(BALLS[0], 2)(lambda x: {"logits": x}, tf.zeros([1, 2]), [0], targets=[1])


def test_fallen_images_leave_the_batch(monkeypatch):
    """And the others' results are those of a batch that stays whole."""
    sizes = []

    def forward(x):
        sizes.append(len(x))
        score = 20 * tf.reduce_mean(x - 0.5, axis=[1, 2, 3])
        return {"logits": tf.stack([tf.zeros_like(score), score], axis=1)}

    x = np.stack([np.full([3, 3, 1], v, "float32") for v in (0.45, 0.1, 0.44)])
    attack, y = kr.attacks.square(kr.LinfBall(0.1), 12), np.zeros(3, int)
    monkeypatch.setattr(square_module, "_COMPACTED_AFTER", 5)
    x_adv = attack(forward, x, y, seed=1)
    assert sizes[0] == 3 and sizes[-1] == 1 and len(sizes) == 13
    monkeypatch.setattr(square_module, "_COMPACTED_AFTER", 12)
    np.testing.assert_array_equal(x_adv, attack(forward, x, y, seed=1))
