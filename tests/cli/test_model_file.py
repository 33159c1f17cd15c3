"""Loading a user's own Keras model file with data."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.cli.model_file import load_model_file


def test_a_classifier_with_a_softmax_becomes_logits(model_file, data_file, digits_model):
    loaded = load_model_file(model_file, str(data_file), norm="l2", radius=0.5, batch_size=7)
    images, labels = loaded.test_images(5)
    logits = loaded.model(images)["logits"]
    np.testing.assert_allclose(keras.ops.softmax(logits), digits_model(images), atol=1e-6)
    assert labels.shape == (5,)
    assert float(loaded.ball().radius) == 0.5 and "L2" in type(loaded.ball()).__name__
    assert loaded.attack("pgd:steps=3").steps == 3
    assert loaded.detector is None
    assert loaded.title == str(model_file)
    assert loaded.class_names == tuple("0123456789")
    assert [len(x) for x, _ in loaded.splits.test][:2] == [7, 7]


def test_a_robust_model(robust_file, digits_model):
    loaded = load_model_file(robust_file, "digits", radius=0.1)
    images, _ = loaded.test_images(5)
    logits = loaded.model(images)["logits"]
    np.testing.assert_allclose(keras.ops.softmax(logits), digits_model(images), atol=1e-6)
    assert loaded.config.defense.name == "Adversarial (RobustModel)"
    assert loaded.splits.info.name == "digits"


def test_a_detector_is_calibrated_on_the_validation_images(model_file, data_file):
    loaded = load_model_file(model_file, str(data_file)).with_detector("entropy", 0.1)
    (images, _), *_ = loaded.validation
    assert loaded.detector.samples == 100
    assert loaded.detector.is_adversarial(images).numpy().sum() == 10


def test_a_score_for_ensembles(model_file, data_file):
    loaded = load_model_file(model_file, str(data_file))
    with pytest.raises(ValueError, match="expected those of an ensemble") as caught:
        loaded.with_detector("disagreement", 0.1)
    assert "\n" not in str(caught.value)


def test_without_validation_images(model_file, data_file, tmp_path):
    with np.load(data_file) as arrays:
        np.savez(tmp_path / "test.npz", x=arrays["x"], y=arrays["y"])
    loaded = load_model_file(model_file, str(tmp_path / "test.npz")).with_detector("entropy", 0.1)
    with pytest.raises(ValueError, match=r"test.npz has no validation images.*x_validation"):
        loaded.detector  # noqa: B018


def test_the_pixel_range_of_the_model(digits_model, data_file, tmp_path):
    """A model of pixels in [-1, 1] is attacked on images in [0, 1] all the same."""
    inputs = keras.Input((8, 8, 1))
    shifted = keras.layers.Rescaling(0.5, offset=0.5)(inputs)
    keras.Model(inputs, digits_model(shifted)).save(tmp_path / "shifted.keras")
    loaded = load_model_file(tmp_path / "shifted.keras", str(data_file), pixel_range=(-1.0, 1.0))
    images, _ = loaded.test_images(5)
    logits = loaded.model(images)["logits"]
    np.testing.assert_allclose(keras.ops.softmax(logits), digits_model(images), atol=1e-5)


def test_a_robust_model_of_another_pixel_range(digits_model, data_file, tmp_path):
    """It is right on pixels of 0 to 255 alone."""
    inputs = keras.Input((8, 8, 1))
    byte = kr.models.adapt(
        keras.Model(inputs, digits_model(keras.layers.Rescaling(1 / 255)(inputs)))
    )
    model = kr.defenses.pgd_at(byte, kr.LinfBall(25, bounds=(0, 255)), steps=2)
    model.compile("adam")
    model.save(tmp_path / "byte.keras")
    with pytest.raises(ValueError, match=r"within 0,255, but the pixel range is 0,1. Pass --pix"):
        load_model_file(tmp_path / "byte.keras", str(data_file))
    loaded = load_model_file(tmp_path / "byte.keras", str(data_file), pixel_range=(0, 255))
    images, _ = loaded.test_images(5)
    logits = loaded.model(images)["logits"]
    np.testing.assert_allclose(keras.ops.softmax(logits), digits_model(images), atol=1e-5)


def test_files_that_are_not_models(tmp_path):
    path = tmp_path / "my.keras"
    with pytest.raises(FileNotFoundError, match=r"my.keras does not exist; expected a Keras model"):
        load_model_file(path, "digits")
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"my.keras cannot be loaded as a Keras model: ") as caught:
        load_model_file(path, "digits")
    assert "\n" not in str(caught.value)


def test_a_class_that_is_not_registered(tmp_path):
    class Custom(keras.layers.Layer):
        def call(self, x):
            return x

    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(Custom()(inputs)))
    keras.Model(inputs, outputs).save(tmp_path / "custom.keras")
    with pytest.raises(ValueError, match="cannot be loaded.*Could not locate class 'Custom'"):
        load_model_file(tmp_path / "custom.keras", "digits")


def test_data_that_does_not_fit(model_file, tmp_path):
    with pytest.raises(ValueError, match=r"takes images of shape \(8, 8, 1\); those of toy have"):
        load_model_file(model_file, "toy")
    two = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    two.save(tmp_path / "two.keras")
    with pytest.raises(ValueError, match=r"two.keras has 2 classes; digits has 10"):
        load_model_file(tmp_path / "two.keras", "digits")
