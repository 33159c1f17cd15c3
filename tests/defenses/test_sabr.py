"""SABR training: where its small box lies, and what it bounds."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from tests.defenses.conftest import BIAS, WEIGHTS

BALL = kr.LinfBall(0.1)
AT_ONCE = {"warmup_steps": 0, "ramp_steps": 0, "regularization": 0.0}


def tiny():
    """Two layers and batch norm."""
    keras.utils.set_random_seed(0)
    return kr.models.strided_cnn((6, 6, 1), 3, (4,), (3,), (2,), (5,))


def worst_logits(model, x, y):
    """The worst case that a training step minimizes."""
    model.compile("sgd")
    batch = (tf.constant(x), tf.constant(y), None)
    outputs = model.training_loss().gradients(batch, None, tf.constant(len(x)), model.optimizer)[1]
    return outputs["bounds"]["logits"].numpy()


@pytest.mark.parametrize("ball", [BALL, kr.L2Ball(0.5)], ids=["Linf", "L2"])
def test_the_small_ball_lies_in_the_ball(make_batch, ball):
    x, y = make_batch(6, (6, 6, 1))
    model = kr.defenses.sabr(tiny(), ball, box_ratio=0.25, train_radius=ball.radius, **AT_ONCE)
    region = model.training_region(tf.constant(x), tf.constant(y), tf.constant(1.0))
    moved = ball.distance(region.x, x).numpy()
    np.testing.assert_allclose(region.field, 0.25 * ball.radius, rtol=1e-6)
    assert moved.max() <= 0.75 * ball.radius * (1 + 1e-5)
    assert moved.max() > 0.7 * ball.radius


def test_the_whole_ball_is_ibp(make_batch):
    x, y = make_batch(6, (6, 6, 1))
    options = {"train_radius": 0.2, **AT_ONCE}
    by_ibp = worst_logits(kr.defenses.ibp(tiny(), BALL, **options), x, y)
    whole = kr.defenses.sabr(tiny(), BALL, box_ratio=1.0, **options)
    np.testing.assert_allclose(worst_logits(whole, x, y), by_ibp, atol=1e-5)
    part = kr.defenses.sabr(tiny(), BALL, box_ratio=0.3, **options)
    y_logits = np.eye(3, dtype=bool)[y]
    # Logits are minus the margins: those of a smaller box are lower.
    assert (worst_logits(part, x, y) < by_ibp)[~y_logits].all()


def test_the_worst_case_of_a_linear_classifier_is_exact(make_linear, make_batch):
    """Two classes: the worst image of the ball is the worst of the box around the worst center."""
    x, y = make_batch(6, (4, 1, 1))
    x, y = 0.3 + 0.4 * x, y % 2
    w, bias = WEIGHTS[:, :2], BIAS[:2]
    model = kr.defenses.sabr(
        make_linear(w, bias), BALL, box_ratio=0.5, search_steps=8, train_radius=0.1, **AT_ONCE
    )
    d = w[:, y] - w[:, 1 - y]
    margins = (x.reshape(6, 4) @ w + bias)[np.arange(6), y]
    margins -= (x.reshape(6, 4) @ w + bias)[np.arange(6), 1 - y]
    expected = -(margins - 0.1 * np.abs(d).sum(axis=0))
    found = worst_logits(model, x, y)[np.arange(6), 1 - y]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_saved_model_has_its_box(tmp_path):
    model = kr.defenses.sabr(tiny(), BALL, box_ratio=0.25, search_steps=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert loaded.box_ratio == 0.25 and loaded.search == kr.attacks.pgd(BALL, steps=3)


def test_an_invalid_ratio_is_refused():
    with pytest.raises(ValueError, match="box_ratio is 0; expected a number"):
        kr.defenses.sabr(tiny(), BALL, box_ratio=0)
