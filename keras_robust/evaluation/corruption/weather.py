"""Weather; see `noise` for the arguments."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from keras_robust.evaluation.corruption.blur import along_line, zoomed

_GRAY = np.array([0.299, 0.587, 0.114])  # of red, green and blue


def snow(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Whitens the image, and adds falling flakes from two sides."""
    mean, deviation, zoom, least, radius, sigma, keep = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[severity - 1]
    flakes = zoomed(random.normal(mean, deviation, (*x.shape[:3], 1)), zoom)
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)
    flakes = along_line(flakes, int(radius), sigma, random.uniform(-135, -45, len(x)))
    white = np.maximum(x, 1.5 * gray(x) + 0.5)
    return keep * x + (1 - keep) * white + flakes + flakes[:, ::-1, ::-1]


def gray(x: np.ndarray) -> np.ndarray:
    """The brightness of each pixel, `[batch, height, width, 1]`."""
    return (x @ _GRAY)[..., None] if x.shape[3] == 3 else x.mean(axis=3, keepdims=True)


def frost(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Adds bright crystals, with thin branches at random angles."""
    keep, strength = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[severity - 1]
    shape = (*x.shape[:3], 1)
    crystals = np.zeros(shape)
    for angle in (0, 60, 120):
        seeds = (random.random(shape) < 0.04).astype(np.float64)
        branches = along_line(seeds, 6, 3.0, angle + random.uniform(-15, 15, len(x)))
        crystals = np.maximum(crystals, branches)
    haze = ndimage.gaussian_filter(random.random(shape), (0, 2, 2, 0), mode="wrap")
    layer = np.clip(4 * crystals + 0.5 + 2 * (haze - 0.5), 0, 1)
    return keep * x + strength * layer


def fog(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Adds a random cloud, and keeps the brightest value."""
    amount, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[severity - 1]
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    clouds = np.stack([_cloud(max(x.shape[1:3]), decay, random) for _ in x])
    clouds = clouds[:, : x.shape[1], : x.shape[2], None]
    return (x + amount * clouds) * brightest / (brightest + amount)


def _cloud(size: int, decay: float, random: np.random.Generator) -> np.ndarray:
    """A fractal height map in [0, 1], at least `size` wide, by the diamond-square algorithm."""
    extent = 2 ** max(int(np.ceil(np.log2(size))), 1)
    height, step, noise = np.zeros((extent, extent)), extent, 1.0

    def near(points: np.ndarray) -> np.ndarray:
        return points / 4 + noise * random.uniform(-1, 1, points.shape)

    while step >= 2:
        half = step // 2
        corners = height[::step, ::step]
        sums = corners + np.roll(corners, -1, axis=0)
        height[half::step, half::step] = near(sums + np.roll(sums, -1, axis=1))
        middle, corners = height[half::step, half::step], height[::step, ::step]
        height[::step, half::step] = near(
            middle + np.roll(middle, 1, axis=0) + corners + np.roll(corners, -1, axis=1)
        )
        height[half::step, ::step] = near(
            middle + np.roll(middle, 1, axis=1) + corners + np.roll(corners, -1, axis=0)
        )
        step, noise = half, noise / decay
    height -= height.min()
    return height / max(height.max(), np.finfo(float).tiny)


def brightness(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Raises the value of HSV: the largest channel, and the others in proportion."""
    del random
    more = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    value = x.max(axis=3, keepdims=True)
    raised = np.minimum(value + more, 1)
    return np.where(value > 0, x * raised / np.where(value > 0, value, 1), raised)
