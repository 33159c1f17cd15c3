"""Patches: projections against all locations, distances and masks by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.threat_models import PatchBall, frame_mask, patch_mask

SEED = tf.constant([3, 5])
SHAPE = (4, 3, 5, 2)


def arrays(seed):
    random = np.random.default_rng(seed)
    x = np.clip(random.uniform(-0.2, 1.2, SHAPE), 0, 1)
    return x, x + random.normal(size=SHAPE)


@pytest.mark.parametrize("side", [0, 1, 2, 3, 4, 9])
def test_projection_is_the_nearest_of_all_locations(side):
    """Squares that leave the image are cut: one of side 4 covers all 3 rows."""
    x, point = arrays(side)
    moved = PatchBall(side).project(tf.constant(point), tf.constant(x)).numpy()
    best = np.full(4, np.inf)
    for top in range(max(3 - side, 0) + 1):
        for left in range(max(5 - side, 0) + 1):
            other, part = x.copy(), np.s_[:, top : top + side, left : left + side]
            other[part] = np.clip(point, 0, 1)[part]
            best = np.minimum(best, ((point - other) ** 2).sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(((point - moved) ** 2).sum(axis=(1, 2, 3)), best)


def test_the_distance_is_the_side_of_the_square_around_all_changes():
    """A row of three: 3. Two opposite corners of 2 x 4 pixels: 4. One value: 1. None: 0."""
    delta = np.zeros(SHAPE)
    delta[0, 0, 1:4, 0] = 1
    delta[1, 0, 0, 0] = delta[1, 1, 3, 1] = -1e-30
    delta[2, 2, 2, 1] = 0.5
    distance = PatchBall(1).distance(tf.constant(delta), tf.zeros(SHAPE, tf.float64))
    assert distance.numpy().tolist() == [3, 4, 1, 0]


@pytest.mark.parametrize("draw", ["sample", "sample_sphere"])
def test_samples_are_somewhere_in_the_image(draw):
    x = tf.fill([600, 4, 4, 1], 0.5)
    moved = getattr(PatchBall(2), draw)(x, SEED).numpy()
    assert (PatchBall(2).distance(moved, x).numpy() == 2).all()
    changed = (moved != 0.5)[..., 0]
    assert (changed.sum(axis=(1, 2)) == 4).all()
    assert len(np.unique(changed, axis=0)) == 9  # every location


def test_a_step_onto_a_hyperplane_takes_the_smallest_patch():
    x, normal = arrays(0)
    value = np.array([0.3, -1.0, 4.0, 99.0])
    step = PatchBall(1).project_onto_hyperplane(*map(tf.constant, (x, normal, value))).numpy()
    sign = -np.sign(value)[:, None, None, None] * np.sign(normal)
    reach = (np.where(sign > 0, 1 - x, x) * np.abs(normal)).sum(axis=3)
    for image in range(4):
        sides = [
            side
            for side in range(1, 6)
            for top in range(max(3 - side, 0) + 1)
            for left in range(max(5 - side, 0) + 1)
            if reach[image, top : top + side, left : left + side].sum() >= abs(value[image])
        ]
        found = PatchBall(1).distance(x + step, x).numpy()[image]
        assert found == min(sides, default=5)
    left = value + (normal * step).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(left[:3], 0, atol=1e-12)
    assert (x + step >= -1e-12).all() and (x + step <= 1 + 1e-12).all()


def test_it_is_a_ball_that_is_saved():
    ball = PatchBall(3, (-1.0, 1.0))
    assert isinstance(ball, kr.types.Ball)
    stored = keras.saving.serialize_keras_object(ball)
    assert keras.saving.deserialize_keras_object(stored) == ball
    assert ball.replace(radius=2) == PatchBall(2, (-1.0, 1.0))


def test_images_without_rows_and_columns_are_refused():
    x = tf.zeros([2, 9])
    with pytest.raises(ValueError, match=r"shape \(2, 9\); expected \[batch, height, width, chan"):
        PatchBall(2).project(x, x)


def test_masks():
    patch = patch_mask((4, 5, 3), (2, 3), location=(1, 2))
    assert patch.shape == (4, 5, 1) and patch.sum() == 6 and patch[1:3, 2:5].all()
    assert frame_mask((6, 5, 3), 2).sum() == 30 - 2
    assert frame_mask((4, 4, 1), 3).all()
    with pytest.raises(ValueError, match=r"patch of 3 x 3 at \(2, 2\) is not inside an image of 4"):
        patch_mask((4, 4, 1), 3, (2, 2))
