"""The parts of an Lp ball that do not depend on the norm."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy.typing as npt
import tensorflow as tf

from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Images, Radius
from keras_robust.core.validation import check_number, is_number
from keras_robust.threat_models import masks

if TYPE_CHECKING:
    from typing_extensions import Self

_UNITS = " in the units of the images, such as 8 / 255 for images in [0, 1]"


class LpBall:
    """The parts that do not depend on the norm."""

    p: ClassVar[float]
    radius: Radius
    bounds: tuple[float, float]
    mask: masks.Mask | npt.ArrayLike | None

    def __post_init__(self) -> None:
        owner = type(self).__name__
        given = masks.split_radius(owner, self.radius, self.mask, binary=self.p != math.inf)
        for name, value in zip(("radius", "mask"), given, strict=True):
            object.__setattr__(self, name, value)
        _check_radius(f"{owner}: radius", self.radius)
        bounds = self.bounds
        pair = isinstance(bounds, (tuple, list)) and len(bounds) == 2
        if not pair or not bounds[0] < bounds[1]:
            raise ValueError(
                f"{owner}: bounds are {bounds!r}; expected (low, high) with low < high."
            )

    def replace(
        self, *, radius: Radius | None = None, bounds: tuple[float, float] | None = None
    ) -> Self:
        """The same ball with another radius or other bounds.

        Raises:
            ValueError: as for a new ball, or an array of radii.
        """
        if radius is not None:
            _check_radius(f"{type(self).__name__}: radius", radius)
        given = {"radius": radius, "bounds": bounds}
        changes = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def _center(self, x: Images) -> Images:
        """Clean images in the precision of the computation, which the mask is checked to fit."""
        center = upcast_half(x)
        masks.check_mask(self, center.shape)
        return center


def _check_radius(what: str, radius: Any) -> None:
    if is_number(radius) or isinstance(radius, bool):
        check_number(what, radius, hint=_UNITS)
    elif not hasattr(radius, "dtype"):
        raise TypeError(f"{what} is {radius!r}; expected a number, such as 8 / 255.")
    elif getattr(radius, "shape", ()) not in ((), tf.TensorShape(None)):
        shape = tuple(radius.shape)
        raise ValueError(
            f"{what} is an array of shape {shape}; expected a single number or a scalar tensor."
        )
    else:
        # A symbolic tensor has no value yet.
        value = tf.get_static_value(radius) if tf.is_tensor(radius) else radius
        if value is not None:
            check_number(what, float(value), hint=_UNITS)
