"""Corruptions: numbers by hand where there are any, and what all of them promise."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation import corrupt, corruptions
from keras_robust.evaluation.corruption import digital, weather
from keras_robust.evaluation.corruption.measure import CORRUPTIONS

RANDOM = np.random.default_rng(0)


def photograph(count=3, size=32, channels=3):
    """Smooth images with edges, not noise."""
    place = np.linspace(0, 3, size)
    waves = 0.5 + 0.3 * np.sin(place[:, None, None] * RANDOM.uniform(1, 3, (count, 1, 1, channels)))
    waves = waves + 0.2 * (place[None, None, :, None] > 1.5)
    return np.clip(waves, 0, 1).astype("float32")


X = photograph(2, 20)


def test_there_are_fifteen():
    assert len(CORRUPTIONS) == 15


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_what_all_promise(name):
    for severity in (1, 5):
        found = corrupt(X, name, severity, seed=3)
        assert found.shape == X.shape and found.dtype == X.dtype
        assert found.min() >= 0 and found.max() <= 1 and np.isfinite(found).all()
        assert (found != X).any(axis=(1, 2, 3)).all()
        np.testing.assert_array_equal(found, corrupt(X, name, severity, seed=3))
    mild, severe = (np.abs(corrupt(X, name, severity) - X).mean() for severity in (1, 5))
    if name != "elastic_transform":  # its affine map is the largest in the mildest
        assert severe > mild
    assert mild < 0.25
    again = corrupt(X, name, 5, seed=4)
    is_random = name in {
        "gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow",
        "frost", "fog", "elastic_transform",
    }  # fmt: skip
    assert np.array_equal(again, corrupt(X, name, 5, seed=3)) != is_random


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_other_sizes_channels_and_ranges(name):
    small = photograph(2, 9, 2)
    found = corrupt(small, name, 3)
    assert found.shape == small.shape
    other = corrupt(small * 2 - 1, name, 3, bounds=(-1, 1))
    np.testing.assert_allclose(
        (other + 1) / 2, found, atol=1e-3 if name != "jpeg_compression" else 0.05
    )


def test_noise_has_the_moments_of_its_kind():
    """Values of 0.5: a normal deviation of 0.1; Poisson 0.5 / 50 as variance; 7 % of impulses."""
    x = np.full((1, 100, 100, 3), 0.5)
    assert corrupt(x, "gaussian_noise", 5).std() == pytest.approx(0.1, rel=0.03)
    assert corrupt(x, "shot_noise", 5).var() == pytest.approx(0.5 / 50, rel=0.05)
    changed = corrupt(x, "impulse_noise", 5)
    assert (changed != 0.5).mean() == pytest.approx(0.07, rel=0.05)
    assert set(np.unique(changed)) == {0, 0.5, 1}


def test_contrast_and_brightness_by_hand():
    """Contrast 0.15 around a mean of 0.5: 0.2 is 0.455. The value of (0.2, 0.4) grows to 0.7, and
    both by the factor 1.75."""
    x = np.array([[[[0.2]], [[0.8]]]])
    np.testing.assert_allclose(corrupt(x, "contrast", 5).ravel(), [0.455, 0.545])
    color = np.array([[[[0.2, 0.4, 0.4]]]])
    np.testing.assert_allclose(corrupt(color, "brightness", 5).ravel(), [0.35, 0.7, 0.7])


def test_pixelation_averages_over_boxes():
    """Five columns become int(5 * 0.65) = 3: each 5 / 3 wide; the first covers 1 and 2 / 3."""
    row = np.array([0.0, 0.3, 0.6, 0.9, 0.3]).reshape(1, 1, 5, 1)
    found = digital.pixelate(np.repeat(row, 5, axis=1), 5, RANDOM)[0, 0, :, 0]
    first, second, third = 0.6 * 0.2, 0.6 * (0.1 + 0.6 + 0.3), 0.6 * (0.6 + 0.3)
    np.testing.assert_allclose(found, [first, first, second, third, third])


def test_blur_keeps_a_constant_image():
    x = np.full((2, 16, 16, 3), 0.4)
    for name in ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform"):
        np.testing.assert_allclose(corrupt(x, name, 5), x, atol=1e-9)


def test_fog_keeps_the_brightest_value_and_clouds_fill_the_range():
    cloud = weather._cloud(32, 3.0, np.random.default_rng(1))
    assert cloud.min() == 0 and cloud.max() == 1 and cloud.shape == (32, 32)
    assert corrupt(X, "fog", 5).max() <= X.max() + 1e-6


def test_accuracy_of_each_corruption():
    """A model of the mean value: brightness moves 0.45 beyond 0.5 from severity 2 on."""
    x = np.full((4, 4, 4, 1), 0.45, "float32")

    def model(x):
        value = tf.reduce_mean(x, axis=[1, 2, 3]) - 0.5
        return {"logits": tf.stack([-value, value], axis=1)}

    found = corruptions(model, (x, [0, 0, 0, 1]), ["brightness", "contrast"], (1, 2, 5), limit=4)
    assert found.clean == 0.75 and found.samples == 4
    assert found.accuracy["brightness"][1:] == (0.25, 0.25)
    assert found.accuracy["contrast"] == (0.75, 0.75, 0.75)
    assert "| contrast | 75.0% | 75.0% | 75.0% | 75.0% |" in found.markdown()
    assert found.mean == pytest.approx(np.mean([*found.accuracy["brightness"], 0.75, 0.75, 0.75]))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="There is no corruption 'fogg'.*Did you mean 'fog'"):
        corrupt(X, "fogg")
    with pytest.raises(ValueError, match="severity is 6; expected one of 1, 2, 3, 4, 5"):
        corrupt(X, "fog", 6)
    with pytest.raises(ValueError, match=r"shape \(3, 32\); expected \[batch, height"):
        corrupt(np.zeros((3, 32)), "fog")
    with pytest.raises(ValueError, match="severity is 0"):
        corruptions(kr.models.mlp((2, 2, 1), 3), (X, [0, 1, 2]), severities=[0])
