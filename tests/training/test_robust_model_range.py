from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("spoil", [lambda x: x * 255, lambda x: x * np.nan])
def test_images_outside_the_bounds_are_refused_while_training(
    make_classifier, make_batch, eager, spoil
):
    model = kr.defenses.pgd_at(make_classifier(), kr.LinfBall(0.1), steps=1)
    model.compile(optimizer="sgd", run_eagerly=eager)
    x, y = make_batch(6)
    expected = r"expected \[0, 1\]|outside the ball's bounds .* Range: (0\.\d+|nan) to (25\d|nan)"
    with pytest.raises(ValueError, match=expected):
        model.fit(spoil(x), y, verbose=0)
    data = tf.data.Dataset.from_tensors((spoil(x), y))
    once = np.isfinite(spoil(x)).all()  # a trace is slow
    for run in (model.fit, model.evaluate)[: 1 + once]:
        with pytest.raises(ValueError, match=expected) as caught:
            run(data, verbose=0)
        assert "\n" not in str(caught.value)


def test_arrays_are_refused_before_a_step_is_traced(make_classifier, make_batch, monkeypatch):
    model = kr.defenses.pgd_at(make_classifier(), kr.LinfBall(0.1), steps=1)
    model.compile(optimizer="sgd")
    monkeypatch.setattr(model, "make_train_function", lambda *_: 1 / 0)
    x, y = map(np.asarray, make_batch(6))
    bytes_ = (x * 255).astype(np.uint8)
    for images, says in ((bytes_, "Divide uint8 images by 255"), (x * 255, "Scale the images")):
        with pytest.raises((TypeError, ValueError), match=says):
            model.fit(images, y, verbose=0)
        with pytest.raises((TypeError, ValueError), match=says):
            model.fit(x, y, validation_data=(images, y), verbose=0)
    with pytest.raises(ValueError, match="Labels run from"):
        model.fit(x, y + 100, verbose=0)
    with pytest.raises(TypeError, match="Divide uint8 images by 255") as caught:  # while tracing
        monkeypatch.undo()
        model.fit(tf.data.Dataset.from_tensors((bytes_, y)), verbose=0)
    assert "\n" not in str(caught.value)
