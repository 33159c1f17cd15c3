"""Surfaces of models whose loss is a formula."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.core.classifier import members_of
from keras_robust.evaluation import input_surface, latent_surface

WEIGHTS = np.array([[2.0, -1.0], [0.5, 1.0], [-1.0, 0.5], [0.0, 1.5]])
IMAGE = np.array([0.6, 0.5, 0.4, 0.5], "float32").reshape(4, 1, 1)


def softplus(x):
    return np.log1p(np.exp(x))


def test_the_loss_is_the_formula_over_the_square(make_linear):
    """Two classes: the loss of class 0 is softplus(m), with m = z_1 - z_0 linear in the image.

    Along the gradient m grows by the length of its slope; across it, nothing changes.
    """
    slope = WEIGHTS[:, 1] - WEIGHTS[:, 0]
    surface = input_surface(make_linear(WEIGHTS), IMAGE, 0, 0.2, points=5)
    margins = slope @ IMAGE.ravel() + np.linalg.norm(slope) * surface.steps
    np.testing.assert_allclose(surface.steps, [-0.2, -0.1, 0, 0.1, 0.2])
    np.testing.assert_allclose(surface.losses, np.tile(softplus(margins), (5, 1)), rtol=1e-5)
    np.testing.assert_array_equal(surface.labels, np.tile(margins > 0, (5, 1)))
    assert len(np.unique(surface.labels)) == 2 and surface.label == 0


def test_a_row_is_a_step_at_a_right_angle(tiny_classifier, tiny_batch):
    """Each point of the grid is seen by the model where it should be, on a plane through x."""
    x, y, seen = tiny_batch[0][0], int(tiny_batch[1][0]), []

    def model(images):
        tf.numpy_function(lambda z: seen.append(z.copy()) or np.int64(0), [images], tf.int64)
        return tiny_classifier(images, training=False)

    input_surface(model, x, y, 0.3, points=3, bounds=None)
    moved = (seen[-1][:9] - x).reshape(9, -1).astype(np.float64)
    across, up = moved[5], moved[7]  # the middle row's last, the last row's middle
    assert np.linalg.norm(across) == pytest.approx(0.3, rel=1e-4)
    assert np.linalg.norm(up) == pytest.approx(0.3, rel=1e-4)
    assert across @ up == pytest.approx(0.0, abs=1e-6)
    for row in range(3):
        for column in range(3):
            expected = (column - 1) * across + (row - 1) * up
            np.testing.assert_allclose(moved[3 * row + column], expected, atol=1e-6)
    with tf.GradientTape() as tape:
        images = tf.constant(x[None])
        tape.watch(images)
        loss = kr.losses.cross_entropy(tiny_classifier(images)["logits"], [y])
    gradient = tape.gradient(loss, images).numpy().ravel()
    cosine = gradient @ across / np.linalg.norm(gradient) / np.linalg.norm(across)
    assert cosine == pytest.approx(1.0, abs=1e-5)


def test_pixels_are_cut_to_their_range(make_linear):
    """The first pixel alone counts and starts at 1: no step can raise it, the loss cannot fall."""
    model = make_linear([[1.0, 0.0], [0.0, 0.0]])
    image = np.array([1.0, 0.5], "float32").reshape(2, 1, 1)
    cut = input_surface(model, image, 0, 0.5, points=3)
    np.testing.assert_allclose(cut.losses[1], softplus(-np.array([1.0, 1.0, 0.5])), rtol=1e-5)
    free = input_surface(model, image, 0, 0.5, points=3, bounds=None)
    np.testing.assert_allclose(free.losses[1], softplus(-np.array([1.5, 1.0, 0.5])), rtol=1e-5)


def doubled():
    """The latent is twice the image, whose logits `WEIGHTS` make."""
    inputs = keras.Input((4, 1, 1))
    latent = keras.layers.Rescaling(2.0)(keras.layers.Flatten()(inputs))
    dense = keras.layers.Dense(2)
    model = keras.Model(inputs, {"logits": dense(latent), "features": latent})
    dense.set_weights([WEIGHTS.astype("float32"), np.zeros(2, "float32")])
    return model


def test_the_loss_over_latents_is_that_of_the_head():
    """A step of a latent counts once, where that of an image would count twice."""
    slope = WEIGHTS[:, 1] - WEIGHTS[:, 0]
    surface = latent_surface(kr.defenses.pgd_at(doubled(), kr.LinfBall(0.1)), IMAGE, 1, 3.0)
    margins = slope @ (2 * IMAGE.ravel()) - np.linalg.norm(slope) * surface.steps
    np.testing.assert_allclose(surface.losses, np.tile(softplus(-margins), (41, 1)), atol=1e-5)
    assert surface.losses.shape == (41, 41) and surface.label == 1


def test_the_middle_is_the_example_in_both_spaces(tiny_classifier, tiny_batch):
    x, y = tiny_batch[0][3], int(tiny_batch[1][3])
    logits = tiny_classifier(x[None], training=False)["logits"]
    for surface in (
        input_surface(tiny_classifier, x, y, 0.5, points=17),  # 289 points: more than one batch
        latent_surface(tiny_classifier, x, y, 0.5, points=17),
    ):
        middle = kr.losses.cross_entropy(logits, [y]).numpy().item()
        assert surface.losses[8, 8] == pytest.approx(middle, rel=1e-4)
        assert surface.labels[8, 8] == np.argmax(logits)
        assert surface.losses[8, 9] > middle > surface.losses[8, 7]


@pytest.mark.slow
def test_a_member_of_an_ensemble_has_a_surface_of_its_own():
    keras.utils.set_random_seed(0)
    members = [kr.models.mlp(IMAGE.shape, 3, hidden=(8,)) for _ in range(2)]
    ensemble = kr.models.ensemble(members)
    parts = (*members_of(ensemble), ensemble)
    mine = [input_surface(part, IMAGE, 1, 0.3, points=3) for part in parts]
    for surface, alone in zip(mine, members, strict=False):
        theirs = input_surface(alone, IMAGE, 1, 0.3, points=3)
        np.testing.assert_array_equal(surface.losses, theirs.losses)
    # Of the ensemble: the mean probability, which differs from every member's.
    probabilities = [np.exp(-surface.losses[1, 1]) for surface in mine]
    assert probabilities[2] == pytest.approx(np.mean(probabilities[:2]), rel=1e-5)
    assert abs(probabilities[0] - probabilities[1]) > 1e-3


def test_the_seed_is_the_random_direction(tiny_classifier, tiny_batch):
    x, y = tiny_batch[0][0], int(tiny_batch[1][0])
    first, again, other = (
        input_surface(tiny_classifier, x, y, 0.5, points=3, seed=seed).losses for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first[1], other[1], rtol=1e-5)
    assert np.abs(first[0] - other[0]).max() > 1e-4


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"extent": 0.0}, ValueError, "extent is 0.0; expected a finite number > 0"),
        ({"extent": np.nan}, ValueError, "extent is nan"),
        ({"points": 4}, ValueError, "points is 4; expected an odd number"),
        ({"points": 1}, ValueError, "points is 1"),
        ({"image": 2 * IMAGE}, ValueError, "values from 0.8.* to 1.2"),
        ({"label": -1}, ValueError, "expected class numbers >= 0"),
        ({"label": 0.5}, TypeError, "expected integer class numbers"),
        ({"model": lambda x: {"logits": 0 * x[:, :, 0, 0]}}, ValueError, "the norm 0;"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make_linear, changes, error, text):
    settings = {"model": make_linear(WEIGHTS), "image": IMAGE, "label": 0, "extent": 0.1}
    with pytest.raises(error, match=text):
        input_surface(**{**settings, **changes})


PAIR = np.array([0.5, 0.5], "float32")  # an image of two pixels: the plane holds all of it


def two_pixels(**settings):
    return input_surface(lambda x: {"logits": x}, PAIR, 0, points=3, **settings)


@pytest.mark.parametrize(
    ("ball", "norm"),
    [(kr.LinfBall(0.1), np.inf), (kr.L2Ball(0.1), 2), (kr.L1Ball(0.1), 1)],
)
def test_the_outline_is_the_edge_of_the_ball(ball, norm):
    """In the plane of two pixels a corner is a step of the ball's radius in its norm.

    The gradient of the logits' loss is along (-1, 1), at a right angle to (1, 1).
    """
    corners = two_pixels(ball=ball).ball
    u, v = np.array([-1, 1]) / 2**0.5, np.array([1, 1]) / 2**0.5
    steps = corners[:, :1] * u + corners[:, 1:] * v
    np.testing.assert_allclose(np.linalg.norm(steps, norm, axis=1), 0.1, rtol=2e-4)


def test_the_square_holds_the_ball():
    surface = two_pixels(ball=kr.LinfBall(0.1))  # its corners are at 0.1 * sqrt(2) along u and v
    assert surface.steps[-1] == pytest.approx(1.5 * 0.1 * 2**0.5, rel=1e-3)
    assert two_pixels(ball=kr.LinfBall(0.1), extent=0.3).steps[-1] == pytest.approx(0.3)
    assert two_pixels(extent=0.3).ball is None


def test_of_an_attacked_image_the_ball_is_around_the_clean_one():
    """An attacked image on the edge of its ball: what is beyond it is outside."""
    clean = PAIR + np.float32([0.1, -0.1])  # PAIR is its corner along the gradient
    surface = two_pixels(ball=kr.LinfBall(0.1), clean=clean)
    assert surface.steps[-1] == pytest.approx(1.5 * 0.1 * 2**0.5, rel=1e-3)  # as around itself
    corners = surface.ball
    assert corners[:, 0].max() == pytest.approx(0, abs=1e-4)
    assert corners[:, 0].min() == pytest.approx(-0.2 * 2**0.5, rel=1e-3)
    with pytest.raises(ValueError, match="outside of the ball around its clean image"):
        two_pixels(ball=kr.LinfBall(0.05), clean=clean)


def test_balls_without_an_outline_are_refused():
    with pytest.raises(ValueError, match="not convex"):
        two_pixels(ball=kr.L0Ball(1))
    with pytest.raises(ValueError, match="neither extent nor ball"):
        two_pixels()
