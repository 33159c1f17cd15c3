"""Masks: which pixels an attacker may change, and how far.

A mask has the shape of one image or broadcasts to it: 0 where a pixel may not change, 1 where it
may. In Linf it holds any fractions, and the radius of a pixel is the radius of the ball times its
fraction. Everything here leaves a ball without a mask as it is.
"""

from __future__ import annotations

import base64
import hashlib
import math
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.core.config import register
from keras_robust.core.types import Images, PerExample

_LARGEST = 2**27  # entries of a mask that is read from a file
_STORED: dict[str, Any] = {
    "bool": np.dtype("u1"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
}


@register
class Mask:
    """A constant array of fractions in [0, 1] that compares, hashes and serializes.

    `np.asarray(mask)` gives the numbers; `repr` shows the shape and a fingerprint of them. Attacks
    respect a `Mask` that a ball of your own has as its member `mask`, if the ball's methods do.

    Args:
        values: an array of numbers or booleans, not 0 everywhere.
        what: the argument, for messages.

    Raises:
        TypeError: not an array of numbers.
        ValueError: values outside [0, 1], or 0 everywhere.

    Example:
        >>> Mask([[1, 1], [0, 0]])
        Mask(2x2, 2 of 4 allowed, 9a0016ab4629)
        >>> Mask([[1, 1], [0, 0]]) == Mask(np.array([[True, True], [False, False]]))
        True
    """

    def __init__(self, values: Any, what: str = "mask"):
        array = numbers_of(values)
        if array is None or array.ndim == 0 or array.size == 0:
            raise TypeError(
                f"{what} is {_short(values)}; expected an array of numbers in [0, 1] of the shape "
                "of one image."
            )
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # NaN is refused too
            hint = " Divide a mask of 8 bits by 255." if 1 < high <= 255 else ""
            raise ValueError(f"{what} has values from {low:g} to {high:g}; expected [0, 1].{hint}")
        if high == 0:
            raise ValueError(
                f"{what} is 0 everywhere, so that no pixel may change; expected 1 where it may."
            )
        self._values = array + 0.0  # a copy, without negative zeros
        self._values.setflags(write=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return self._values.shape

    @property
    def is_binary(self) -> bool:
        """Whether all values are 0 or 1."""
        return bool(np.isin(self._values, (0, 1)).all())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values, float64 by default."""
        return np.array(self._values, dtype, copy=True) if copy else self._values.astype(dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and np.array_equal(self._values, other._values)

    def __hash__(self) -> int:
        return hash((self.shape, self._values.tobytes()))

    def __repr__(self) -> str:
        content = f"{self.shape}".encode() + self._values.astype("<f8").tobytes()
        shape = "x".join(map(str, self.shape))
        allowed = f"{np.count_nonzero(self._values)} of {self._values.size} allowed"
        return f"Mask({shape}, {allowed}, {hashlib.sha256(content).hexdigest()[:12]})"

    def get_config(self) -> dict[str, Any]:
        """The shape, and the values as text: bits, or the shortest floats that hold them."""
        if self.is_binary:
            dtype, data = "bool", np.packbits(self._values.astype(bool)).tobytes()
        else:
            exact = np.array_equal(self._values.astype(np.float32), self._values)
            dtype = "float32" if exact else "float64"
            data = self._values.astype(_STORED[dtype]).tobytes()
        text = base64.b64encode(data).decode()
        return {"shape": list(self.shape), "dtype": dtype, "data": text}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Mask:
        """Rebuilds the mask from the result of `get_config`."""
        shape = tuple(map(int, config["shape"]))
        size = math.prod(shape)
        if not (0 < size <= _LARGEST and min(shape) > 0):
            raise ValueError(f"A mask of shape {shape} cannot be read.")
        data = base64.b64decode(config["data"], validate=True)
        values: np.ndarray = np.frombuffer(data, _STORED[config["dtype"]])
        if config["dtype"] == "bool":
            values = np.unpackbits(values)[:size]
        return cls(values.reshape(shape))

    def fractions(self, dtype: tf.DType) -> tf.Tensor:
        """The values as a tensor, which broadcasts over images."""
        return tf.constant(self._values, dtype)

    def allowed(self) -> tf.Tensor:
        """Where a pixel may change: bool, broadcasts over images."""
        return tf.constant(self._values > 0)

    def count(self, x: Images) -> int | tf.Tensor:
        """The number of pixels of an image of the batch `x` that may change."""
        pixels = x.shape[1:].num_elements()
        if pixels is None:
            pixels = tf.reduce_prod(tf.shape(x)[1:])
        return pixels * int(np.count_nonzero(self._values)) // self._values.size

    def check(self, shape: tf.TensorShape) -> None:
        """Raises ValueError unless the mask broadcasts to images of a shape `[batch, ...]`."""
        if shape.rank is None:
            return
        image = tuple(shape[1:])
        pairs = zip(self.shape, image, strict=False)
        fits = len(image) == len(self.shape) and all(m in (1, i) or i is None for m, i in pairs)
        if fits:
            return
        text = str(image).replace("None", "?")
        hint = ""
        if len(self.shape) == len(image) - 1 and self.shape == image[:-1]:
            hint = " Add the axis of the channels: `mask[..., None]`."
        elif self.shape[1:] == image:
            hint = " A ball has one mask for all images."
        raise ValueError(
            f"The mask of the ball has shape {self.shape}, but an image has {text}; expected that "
            f"shape, with 1 where all entries share a value.{hint}"
        )


def numbers_of(values: Any) -> np.ndarray | None:
    """An array or nested list of numbers as float64; None for anything else."""
    try:
        array = np.asarray(values)
        if array.dtype.kind in "OSUMmc":
            return None
        return array.astype(np.float64)
    except (TypeError, ValueError, NotImplementedError):  # ragged; a symbolic tensor
        return None


def mask_of(ball: Any) -> Mask | None:
    """The mask of a ball; None for a ball without one."""
    mask = getattr(ball, "mask", None)
    return mask if isinstance(mask, Mask) else None


def support_of(ball: Any) -> Mask | None:
    """The mask that allows the same pixels any change; None for a ball without a mask."""
    mask = mask_of(ball)
    return None if mask is None else Mask(np.asarray(mask) > 0)


def check_mask(ball: Any, shape: tf.TensorShape) -> None:
    """Raises ValueError unless the mask of a ball, if any, fits images of a shape `[batch, ...]`.

    Example:
        >>> from keras_robust import L2Ball
        >>> check_mask(L2Ball(1.0, mask=np.ones([2, 2])), tf.TensorShape([None, 2, 2, 3]))
        Traceback (most recent call last):
        ...
        ValueError: The mask of the ball has shape (2, 2), but an image has (2, 2, 3); expected \
that shape, with 1 where all entries share a value. Add the axis of the channels: `mask[..., None]`.
    """
    mask = mask_of(ball)
    if mask is not None:
        mask.check(tf.TensorShape(shape))


def without_masked(ball: Any, values: tf.Tensor) -> tf.Tensor:
    """Gradients or directions, with 0 where pixels may not change.

    Args:
        ball: the threat model.
        values: `[..., *image]`.
    """
    mask = mask_of(ball)
    return values if mask is None else tf.where(mask.allowed(), values, tf.zeros_like(values))


def in_fractions(ball: Any, delta: tf.Tensor) -> tf.Tensor:
    """A perturbation in units of the fractions; 0 where no pixel may change."""
    mask = mask_of(ball)
    if mask is None:
        return delta
    return tf.math.divide_no_nan(delta, mask.fractions(delta.dtype))


def restored(ball: Any, x_adv: Images, x: Images) -> Images:
    """`x_adv`, with the pixels of `x` where they may not change; both of one dtype."""
    mask = mask_of(ball)
    return x_adv if mask is None else tf.where(mask.allowed(), x_adv, x)


def infinite_outside(ball: Any, distance: PerExample, delta: tf.Tensor) -> PerExample:
    """The distance, infinite where a pixel has changed that may not."""
    mask = mask_of(ball)
    if mask is None:
        return distance
    forbidden = tf.not_equal(delta, 0) & ~mask.allowed()
    outside = tf.reduce_any(forbidden, axis=list(range(1, delta.shape.rank)))
    return tf.where(outside, tf.constant(math.inf, distance.dtype), distance)


def pixels_of(ball: Any, x: Images) -> int | tf.Tensor:
    """The number of values per image of the batch `x` that may change; an int if it is known."""
    mask = mask_of(ball)
    if mask is not None:
        return mask.count(x)
    known = x.shape[1:].num_elements()
    return tf.reduce_prod(tf.shape(x)[1:]) if known is None else known


def split_radius(owner: str, radius: Any, mask: Any, binary: bool) -> tuple[Any, Mask | None]:
    """The radius and the mask of a ball; an array of radii is a radius times a mask.

    Args:
        owner: the class of the ball, for messages.
        radius: a number, a scalar tensor, or an array of radii.
        mask: an array, a `Mask`, or None.
        binary: whether the mask may hold 0 and 1 only.

    Raises:
        TypeError, ValueError: not a mask; radii and a mask; radii that are no multiple of a mask.
    """
    if mask is not None:
        mask = mask if isinstance(mask, Mask) else Mask(mask, f"{owner}: mask")
    if getattr(radius, "shape", ()) not in ((), tf.TensorShape(None)):
        radius, radii = _largest_radius(owner, radius)
        if mask is not None:
            raise ValueError(
                f"{owner}: radius is an array of shape {radii.shape}, and there is a mask as well; "
                "expected a single number as radius, or no mask."
            )
        if binary and not np.isin(radii, (0, radius)).all():
            raise ValueError(
                f"{owner}: radius is an array of shape {radii.shape} with several values above 0; "
                "expected a single number, or an array of zeros and one other value. Only in Linf "
                "has each pixel a radius of its own."
            )
        mask = Mask(radii / radius)
    if binary and mask is not None and not mask.is_binary:
        raise ValueError(
            f"{owner}: mask has values between 0 and 1; expected 0 and 1 only. Fractions of the "
            "radius are defined in Linf only."
        )
    return radius, mask


def _largest_radius(owner: str, given: Any) -> tuple[float, np.ndarray]:
    """The largest of an array of radii, and the array."""
    shape = tuple(given.shape)
    radii = numbers_of(given)
    if radii is None or radii.size == 0:
        raise ValueError(
            f"{owner}: radius is an array of shape {shape} without known numbers; expected a "
            "single number or a scalar tensor, or an array of numbers."
        )
    low, high = float(radii.min()), float(radii.max()) + 0.0
    if not (low >= 0 and math.isfinite(high)):
        raise ValueError(
            f"{owner}: radius is an array of shape {shape} with values from {low:g} to {high:g}; "
            "expected a single number, or an array of finite numbers >= 0."
        )
    if high == 0:
        raise ValueError(
            f"{owner}: radius is an array of zeros of shape {shape}; expected a number above 0 in "
            "it, or `radius=0.0` and a mask."
        )
    return high, radii


def _short(value: Any) -> str:
    """The `repr` of a value on one line, cut to 60 characters."""
    shape = getattr(value, "shape", None)
    if shape:
        return f"an array of shape {tuple(shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
