"""Extra images: how many, in which order, with whose labels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.data import ExtraImages, extra_images, training_epochs, training_stream

# The value of an image names it: own ones are below 1/2, extra ones above.
OWN = np.broadcast_to(np.arange(20)[:, None, None, None] / 40, [20, 2, 2, 1]).astype("float32")
MORE = np.broadcast_to(200 + np.arange(14)[:, None, None, None], [14, 2, 2, 1]).astype("uint8")


def stream(proportion=0.25, batch_size=8, **options):
    extra = extra_images(MORE, np.arange(100, 114), proportion)
    return training_stream(OWN, np.arange(20), batch_size, extra=extra, **options)


def test_each_batch_has_its_proportion_and_every_label_its_image():
    """2 of 8 are extra, in places that differ; uint8 ones are divided by 255."""
    places = set()
    for x, y in stream(epochs=2).as_numpy_iterator():
        is_extra = y >= 100
        assert is_extra.sum() == 2
        expected = np.where(is_extra, (y + 100) / 255, y / 40)
        np.testing.assert_allclose(x[:, 0, 0, 0], expected, rtol=1e-6)
        places.add(tuple(np.where(is_extra)[0]))
    assert len(places) > 3


def test_an_epoch_is_a_pass_over_the_training_set():
    """20 // 6 steps; extra images do not repeat before all of them were drawn, in 7 batches."""
    train = training_epochs(
        OWN, np.arange(20), 8, extra=extra_images(MORE, np.arange(100, 114), 0.25)
    )
    assert len(train) == 3
    labels = [y for _, y in stream(epochs=3).as_numpy_iterator()]
    first = np.concatenate(labels[:3])
    assert len(set(first[first < 100])) == 18
    drawn = np.concatenate(labels[:7])
    assert sorted(drawn[drawn >= 100]) == list(range(100, 114))


def test_a_stream_resumes_with_them():
    whole = list(stream(epochs=4).as_numpy_iterator())
    rest = list(stream(epochs=4, start_step=5).as_numpy_iterator())
    for (x, y), (x_rest, y_rest) in zip(whole[5:], rest, strict=True):
        np.testing.assert_array_equal(x, x_rest)
        np.testing.assert_array_equal(y, y_rest)
    other = next(stream(seed=1).as_numpy_iterator())[1]
    assert np.any(other != whole[0][1])


def test_a_teacher_labels_them(monkeypatch):
    """By its prediction of images in [0, 1], in batches."""
    monkeypatch.setattr("keras_robust.data.extra._TEACHER_BATCH", 5)
    sizes = []

    def teacher(x):
        sizes.append(len(x))
        return {"logits": tf.stack([0.83 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.83], axis=1)}

    found = extra_images(MORE, teacher=teacher)
    expected = (MORE[:, 0, 0, 0] / 255 > 0.83).astype(int)
    np.testing.assert_array_equal(found.labels, expected)
    assert sizes == [5, 5, 4] and 0 < expected.sum() < 14


def test_a_model_is_a_teacher():
    model = kr.defenses.standard(kr.models.mlp((2, 2, 1), 3), kr.LinfBall(0.1))
    predicted = model(tf.constant(MORE / 255, tf.float32))["logits"].numpy().argmax(axis=1)
    np.testing.assert_array_equal(extra_images(MORE, teacher=model).labels, predicted)


def test_load_passes_them_on():
    more = ExtraImages(np.zeros([40, 8, 8, 1], "float32"), np.full(40, 9), 0.5)
    splits = kr.data.load("digits", batch_size=64, extra=more)
    for batches in (splits.train, splits.stream()):
        x, _ = next(batches.as_numpy_iterator())
        assert (x == 0).all(axis=(1, 2, 3)).sum() == 32
    assert len(splits.train) == splits.info.train_size // 32


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: extra_images(MORE), "expected labels or a teacher; received neither"),
        (lambda: extra_images(MORE, np.zeros(14, int), teacher=id), "received both"),
        (
            lambda: extra_images(MORE, np.zeros(14, int), 1.0),
            "proportion is 1.0; expected a number",
        ),
        (
            lambda: stream(0.01),
            "proportion is 0.01, 0 images of a batch of 8; expected at least one",
        ),
        (lambda: stream(0.95, 20), "there are 14 images; expected at least 19"),
        (lambda: stream(0.25, 40), "batch_size is 40; expected at most"),
        (
            lambda: training_stream(
                OWN[:, :1], np.arange(20), 8, extra=extra_images(MORE, range(14))
            ),
            r"The extra images have shape \(2, 2, 1\); expected \(1, 2, 1\)",
        ),
    ],
)
def test_what_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
