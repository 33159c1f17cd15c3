"""Images are drawn as they are, perturbations amplified by the factor in the caption."""

from __future__ import annotations

import numpy as np
import pytest

from keras_robust.plots import example_images
from keras_robust.plots.example_images import amplification

KINDS = ["Clean", "Change \N{MULTIPLICATION SIGN} 5", "Attacked"]
LABELS, CORRECT, FOOLED = [0, 1], [0, 1], [0, 2]


def _images(channels, shift=0.1):
    clean = np.random.default_rng(0).uniform(0.2, 0.8, (2, 5, 4, channels))
    signs = np.where(np.indices(clean.shape).sum(0) % 2, 1.0, -1.0)
    return clean, clean + shift * signs


def _drawn(axes):
    return np.asarray(axes.images[0].get_array())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("narrow", [False, True])
def test_pixels_are_those_of_the_images(channels, narrow):
    clean, attacked = _images(channels)
    figure = example_images(clean, attacked, LABELS, CORRECT, FOOLED, narrow=narrow)
    grid = np.array(figure.axes).reshape((2, 3) if narrow else (3, 2))
    grid = grid.T if narrow else grid
    for n in range(2):
        shape = (5, 4, 3) if channels == 3 else (5, 4)
        np.testing.assert_allclose(_drawn(grid[0, n]), clean[n].reshape(shape))
        np.testing.assert_allclose(
            _drawn(grid[1, n]), (0.5 + 5 * (attacked - clean)[n]).reshape(shape), atol=1e-9
        )
        np.testing.assert_allclose(_drawn(grid[2, n]), attacked[n].reshape(shape))
        assert grid[0, n].images[0].get_interpolation() == "none"  # sharp in vector graphics too


def test_gray_runs_from_black_to_white_whatever_the_image():
    figure = example_images(*_images(1), LABELS, CORRECT, FOOLED)
    assert all(axes.images[0].get_clim() == (0.0, 1.0) for axes in figure.axes)


def test_captions_have_the_classes_and_whether_they_are_correct():
    figure = example_images(*_images(1), LABELS, CORRECT, FOOLED, ["cat", "dog", "owl"])
    top, bottom = figure.axes[:2], figure.axes[4:]
    assert [axes.get_title() for axes in top] == ["true: cat", "true: dog"]
    assert [axes.get_xlabel() for axes in top] == ["cat ✓", "dog ✓"]
    assert [axes.get_xlabel() for axes in bottom] == ["cat ✓", "owl ✗"]


def test_the_factor_is_in_the_caption():
    wide = example_images(*_images(1), LABELS, CORRECT, FOOLED)
    narrow = example_images(*_images(1), LABELS, CORRECT, FOOLED, narrow=True)
    assert [axes.get_ylabel() for axes in wide.axes[::2]] == KINDS
    assert [axes.get_title() for axes in narrow.axes[:3]] == KINDS


@pytest.mark.parametrize(
    ("largest", "factor"),
    [(0.1, 5.0), (np.float32(0.1), 5.0), (0.3, 1.6), (8 / 255, 15.0), (0.003, 160.0), (0.8, 1.0)],
)
def test_amplification_has_two_digits_and_clips_nothing(largest, factor):
    clean = np.zeros((1, 2, 2, 1), np.asarray(largest).dtype)
    assert amplification(clean, clean + largest) == factor


def test_identical_images_are_not_amplified():
    clean, _ = _images(1)
    assert amplification(clean, clean) == 1.0
    assert example_images(clean, clean, LABELS, CORRECT, CORRECT).axes


@pytest.mark.parametrize("bounds", [(0, 255), (-1, 1)])
def test_images_of_another_range(bounds):
    low, width = bounds[0], bounds[1] - bounds[0]
    clean, attacked = _images(3)
    expected = example_images(clean, attacked, LABELS, CORRECT, FOOLED)
    scaled = [low + width * images for images in (clean, attacked)]
    found = example_images(*scaled, LABELS, CORRECT, FOOLED, bounds=bounds)
    for one, other in zip(found.axes, expected.axes, strict=True):
        np.testing.assert_allclose(_drawn(one), _drawn(other), atol=1e-9)
    assert found.axes[2].get_ylabel() == expected.axes[2].get_ylabel() == KINDS[1]
    with pytest.raises(ValueError, match=r"expected \[0, 1\]. Pass the range .*bounds="):
        example_images(*scaled, LABELS, CORRECT, FOOLED)


def test_bad_images_are_refused():
    clean, attacked = _images(1)
    with pytest.raises(ValueError, match=r"expected \[n, height, width, 1 or 3"):
        example_images(clean[..., 0], attacked[..., 0], LABELS, CORRECT, FOOLED)
    with pytest.raises(ValueError, match="expected the same"):
        example_images(clean, attacked[:1], LABELS, CORRECT, FOOLED)
    with pytest.raises(ValueError, match="Received 1 labels or predictions; expected 2"):
        example_images(clean, attacked, LABELS, CORRECT, [0])
