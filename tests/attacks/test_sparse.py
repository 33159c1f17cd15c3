"""PGD-L0 and Sparse-RS on a linear model, whose best pixels and patches are known."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import pgd_l0, sparse_rs
from keras_robust.threat_models import PatchBall, frame_mask, patch_mask

SHAPE = (8, 6, 6, 2)
RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.normal(size=SHAPE[1:]).astype("float32")
X = RANDOM.uniform(0, 1, SHAPE).astype("float32")
FAR = 60.0  # no image is ever misclassified, so that the search does not end


def model(x, offset=0.0):
    """The second logit is `offset - w . x` below the first: w . x has to grow."""
    value = tf.tensordot(tf.cast(x, tf.float32), tf.constant(WEIGHTS), 3) - offset
    return {"logits": tf.stack([tf.zeros_like(value), value], axis=1)}


def gains():
    """By how much w . x can grow at each pixel, `[batch, height, width]`."""
    return (np.maximum(WEIGHTS, 0) * (1 - X) + np.maximum(-WEIGHTS, 0) * X).sum(axis=3)


def best_of(ball, x=X):
    """By how much w . x can grow in a ball."""
    if isinstance(ball, kr.L0Ball):
        return -np.sort(-gains().reshape(8, -1), axis=1)[:, : ball.radius].sum(axis=1)
    if isinstance(ball, PatchBall):
        s = ball.radius
        places = [(i, j) for i in range(7 - s) for j in range(7 - s)]
        return np.max([gains()[:, i : i + s, j : j + s].sum((1, 2)) for i, j in places], axis=0)
    return (gains() * np.asarray(ball.mask)[..., 0]).sum(axis=(1, 2))


def gained(x_adv):
    return ((np.asarray(x_adv) - X) * WEIGHTS).sum(axis=(1, 2, 3))


@pytest.fixture(scope="module")
def far():
    return lambda x: model(x, FAR)


@pytest.mark.parametrize("ball", [kr.L0Ball(5), PatchBall(3)], ids=["l0", "patch"])
def test_pgd_l0_finds_the_best_pixels(ball, far):
    found = pgd_l0(ball, 40).compiled(far)(X, np.zeros(8, int), 3)
    assert (ball.distance(found, X).numpy() <= ball.radius).all()
    # A pixel is taken if one step moves it further than the range lets another: near the best.
    assert (gained(found) >= 0.5 * best_of(ball)).all()
    assert gained(found).sum() >= 0.7 * best_of(ball).sum()
    assert (
        gained(ball.sample(tf.constant(X), tf.constant([0, 3]))).sum() < 0.3 * best_of(ball).sum()
    )


FRAME = kr.LinfBall(1.0, mask=frame_mask(SHAPE[1:], 1))
PATCH = kr.LinfBall(1.0, mask=patch_mask(SHAPE[1:], 3, (1, 2)))
SEARCHED = {"l0": kr.L0Ball(5), "patch": PatchBall(3), "frame": FRAME, "fixed patch": PATCH}


@pytest.mark.parametrize("name", SEARCHED)
def test_sparse_rs_comes_close_to_the_best(name, far):
    """With values on the bounds, of which the best ones are; a random start has half of it."""
    ball = SEARCHED[name]
    attack = sparse_rs(ball, 800)
    found = attack.compiled(far)(X, np.zeros(8, int), 3)
    assert np.isin(found.numpy()[found != X], (0, 1)).all()
    assert (ball.distance(found, X).numpy() <= ball.radius).all()
    assert gained(found).sum() >= 0.8 * best_of(ball).sum()
    start = sparse_rs(ball, 1)(far, X, np.zeros(8, int), seed=3)
    assert gained(start).sum() < 0.5 * best_of(ball).sum()


def test_sparse_rs_ends_when_all_are_misclassified():
    """It leaves a misclassified image alone: one whose start is enough keeps it."""
    y = np.zeros(8, int)
    easy = lambda x: model(x, -FAR)  # noqa: E731
    few, many = (sparse_rs(kr.L0Ball(5), count)(easy, X, y, seed=1) for count in (1, 50))
    np.testing.assert_array_equal(few, many)


@pytest.mark.parametrize("ball", [PatchBall(3), PATCH, FRAME], ids=["patch", "fixed", "frame"])
def test_a_universal_perturbation_has_one_content(ball, far):
    attack = sparse_rs(ball, 100, universal=True)
    found = attack.compiled(far)(X, np.zeros(8, int), 1).numpy()
    contents = set()
    for image, clean in zip(found, X, strict=True):
        changed = (image != clean).any(axis=2)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        contents.add(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][changed[
            rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]].tobytes())  # fmt: skip
    assert len(contents) == 1
    start = sparse_rs(ball, 1, universal=True)(far, X, np.zeros(8, int), seed=1)
    assert gained(found).sum() > gained(start).sum()


def test_other_balls_are_refused():
    for attack in (pgd_l0, sparse_rs):
        with pytest.raises(TypeError, match="is defined in L0.*; ball is L2Ball"):
            attack(kr.L2Ball(1.0))
    with pytest.raises(TypeError, match="a mask of zeros and ones and the range of a pixel"):
        sparse_rs(kr.LinfBall(0.5, mask=patch_mask(SHAPE[1:], 3)))
    with pytest.raises(ValueError, match="universal is True in L0; expected a patch or a mask"):
        sparse_rs(kr.L0Ball(3), universal=True)
    with pytest.raises(ValueError, match="step_size is 0; expected a finite number > 0"):
        pgd_l0(kr.L0Ball(3), step_size=0)
