"""Norms, projections and rounding in NumPy, written from their definitions, in float64."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from property_draws import PIXELS, TINY, ends, exact, spacing

import keras_robust as kr

BALLS = {"linf": kr.LinfBall, "l2": kr.L2Ball, "l1": kr.L1Ball}
ORDER = {kr.LinfBall: np.inf, kr.L2Ball: 2, kr.L1Ball: 1}


def wide(dtype):
    """The dtype that a ball computes in: float32 for half precision."""
    return tf.float32 if dtype.size < 4 else dtype


def flat(values):
    return exact(values).reshape(-1, PIXELS)


def norm(kind, values):
    """The norm of each row; the largest entry is factored out, against overflow."""
    values = flat(values)
    largest = np.abs(values).max(axis=1, initial=0)
    safe = np.where(largest > 0, largest, 1.0)
    return safe * np.linalg.norm(values / safe[:, None], ORDER[kind], axis=1)


def nearest(kind, delta, radius):
    """The nearest point of the ball around 0 to each row of `delta`.

    In L2 and Linf it is a formula; in L1 the soft threshold is found by bisection, which shares
    nothing with the sorting of the library.
    """
    if kind is kr.LinfBall:
        return np.clip(delta, -radius, radius)
    length = norm(kind, delta)[:, None]
    inside = length <= radius
    if kind is kr.L2Ball:
        return np.where(inside, delta, delta / np.where(inside, 1.0, length) * radius)
    size = np.abs(delta)
    top = size.max(axis=1, keepdims=True, initial=0)
    # Thresholds are counted down from the top, where nothing cancels.
    near, far = np.zeros_like(top), np.minimum(radius, top)
    gap = top - size
    for _ in range(200):
        middle = (near + far) / 2
        over = np.maximum(middle - gap, 0).sum(axis=1, keepdims=True) > radius
        near, far = np.where(over, near, middle), np.where(over, middle, far)
    return np.where(inside, delta, np.sign(delta) * np.maximum(near - gap, 0))


def pixel_slack(x, x_adv, dtype):
    """How far out of the ball rounding alone may move each pixel.

    Half a unit of the last place of the result, as the sum is rounded to the nearest number (for
    half precision in float32, and then toward the clean image), and the least normal number, below
    which a processor may count 0.
    """
    size = np.maximum(np.abs(flat(x)), np.abs(flat(x_adv)))
    return spacing(size, wide(dtype)) / 2 + TINY[wide(dtype)]


def pixel_error(x, x_adv, dtype):
    """How far rounding alone may move each pixel: in half precision a unit of the last place."""
    size = np.maximum(np.abs(flat(x)), np.abs(flat(x_adv)))
    slack = pixel_slack(x, x_adv, dtype)
    return slack if dtype.size >= 4 else slack + spacing(size, dtype)


def length_slack(kind, dtype):
    """The relative error of the length of a projected perturbation, before pixels are rounded.

    With u = eps / 2 and d pixels: in Linf the radius is rounded, u. In L2 a direction is divided
    by its length, whose sum of squares is off by at most d u, and five further roundings. In L1 the
    threshold comes from a sum of at most d + 1 radii in d additions, off by (d + 1) u (1 + 2 / d),
    and is taken off d pixels: (d + 2)^2 u.
    """
    unit = float(np.finfo(wide(dtype).as_numpy_dtype).eps) / 2
    terms = {kr.LinfBall: 2, kr.L2Ball: PIXELS + 8, kr.L1Ball: (PIXELS + 2) ** 2}
    return terms[kind] * unit


def assert_inside(ball, radius, x_adv, x, dtype):
    """In the bounds exactly; in the ball but for rounding, see above."""
    kind = type(ball)
    assert np.isfinite(flat(x_adv)).all()
    low, high = ends(ball.bounds, dtype)
    assert ((low <= flat(x_adv)) & (flat(x_adv) <= high)).all()
    moved = norm(kind, flat(x_adv) - flat(x))
    allowed = radius * (1 + length_slack(kind, dtype))
    allowed = allowed + norm(kind, pixel_slack(x, x_adv, dtype))
    worst = np.argmax(moved - allowed) if len(moved) else 0
    assert (moved <= allowed).all(), (kind, radius, moved[worst], allowed[worst])
