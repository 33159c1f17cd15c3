"""Blur; see `noise` for the arguments."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage


def gaussian(x: np.ndarray, sigma: float) -> np.ndarray:
    """Blurs rows and columns of `[batch, height, width, channels]`."""
    return ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")


def defocus_blur(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Averages over a disk with smooth edges."""
    del random
    radius, smooth = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[severity - 1]
    place = np.arange(-3, 4)
    disk = (place[:, None] ** 2 + place**2 <= radius**2).astype(np.float64)
    # A kernel of 3 x 3 pixels, as in the authors' code.
    disk = ndimage.gaussian_filter(disk / disk.sum(), smooth, radius=1)
    return ndimage.convolve(x, (disk / disk.sum())[None, :, :, None], mode="mirror")


def glass_blur(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Blurs, swaps each pixel with a neighbor, and blurs again."""
    sigma, reach, rounds = (
        (0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2),
    )[severity - 1]  # fmt: skip
    x = gaussian(x, sigma)
    count, height, width = x.shape[:3]
    image = np.arange(count)
    for _ in range(rounds):
        for row in range(height - 1 - reach, reach - 1, -1):
            for column in range(width - 1 - reach, reach - 1, -1):
                down, right = random.integers(-reach, reach, (2, count))
                here, there = (image, row, column), (image, row + down, column + right)
                x[here], x[there] = x[there].copy(), x[here].copy()
    return gaussian(x, sigma)


def motion_blur(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Averages along a line at a random angle of up to 45 degrees."""
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    return along_line(x, radius, sigma, random.uniform(-45, 45, len(x)))


def along_line(x: np.ndarray, radius: int, sigma: float, angles: np.ndarray) -> np.ndarray:
    """The mean of an image and its copies, shifted along a line; half a Gaussian weighs them.

    Args:
        x: `[batch, height, width, channels]`.
        radius: the number of copies.
        sigma: the standard deviation of the Gaussian, in pixels.
        angles: of the line, in degrees, one per image.
    """
    weights = np.exp(-(np.arange(radius + 1) ** 2) / (2 * sigma**2))
    result = np.zeros_like(x)
    for image, angle in enumerate(np.deg2rad(angles)):
        for shift, weight in enumerate(weights / weights.sum()):
            move = (shift * math.sin(angle), shift * math.cos(angle), 0)
            result[image] += weight * ndimage.shift(x[image], move, order=1, mode="nearest")
    return result


def zoom_blur(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Averages the image and enlargements of it."""
    del random
    last = (6, 11, 16, 21, 26)[severity - 1]
    factors = 1 + 0.01 * np.arange(last)
    return (x + sum(zoomed(x, factor) for factor in factors)) / (last + 1)


def zoomed(x: np.ndarray, factor: float) -> np.ndarray:
    """Enlarges the middle of each image, by linear interpolation."""
    height, width = x.shape[1:3]
    middle = np.array([0, (height - 1) / 2, (width - 1) / 2, 0])
    scale = np.array([1, 1 / factor, 1 / factor, 1])
    return ndimage.affine_transform(x, scale, middle - scale * middle, order=1, mode="nearest")
