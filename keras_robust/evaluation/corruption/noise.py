"""Noise; a corruption takes images in [0, 1], a severity from 1 to 5, and a random generator."""

from __future__ import annotations

import numpy as np


def gaussian_noise(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Adds normal noise to each value."""
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    return x + random.normal(0, deviation, x.shape)


def shot_noise(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Counts photons: a Poisson number of them, whose mean is a multiple of the value."""
    photons = (500, 250, 100, 75, 50)[severity - 1]
    return random.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, severity: int, random: np.random.Generator) -> np.ndarray:
    """Sets a fraction of the values to 0 or 1."""
    fraction = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    draw, salt = random.random(x.shape), random.random(x.shape) < 0.5
    return np.where(draw < fraction, salt, x)
