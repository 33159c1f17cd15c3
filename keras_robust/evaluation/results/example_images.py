"""Example images of a report, and their encoding in JSON."""

from __future__ import annotations

import base64
import dataclasses
import math
import zlib
from typing import Any

import numpy as np

from keras_robust.core.bounded_files import check_unpacked
from keras_robust.evaluation.results.fields import integer, set_fields


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleImages:
    """A few test images, clean and attacked, with the predictions.

    Args:
        clean: `[n, height, width, channels]` scaled to [0, 1], with 1 or 3 channels.
        adversarial: the attacked images, the same shape.
        labels: `[n]` true classes.
        clean_predictions: `[n]` predicted classes of the clean images.
        adversarial_predictions: `[n]` predicted classes of the attacked images.

    Raises:
        ValueError: shapes or lengths that disagree.
    """

    clean: np.ndarray
    adversarial: np.ndarray
    labels: tuple[int, ...]
    clean_predictions: tuple[int, ...]
    adversarial_predictions: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("clean", "adversarial"):
            images = np.array(getattr(self, name), dtype=np.float32)
            images.flags.writeable = False  # frozen all the way down
            set_fields(self, **{name: images})
        if self.clean.ndim != 4 or self.clean.shape[-1] not in (1, 3) or not len(self.clean):
            raise ValueError(
                f"Example images have shape {self.clean.shape}; expected "
                "[n, height, width, 1 or 3] with at least one image."
            )
        if self.adversarial.shape != self.clean.shape:
            raise ValueError(
                f"Attacked examples have shape {self.adversarial.shape}, clean examples "
                f"{self.clean.shape}; expected the same."
            )
        for name in ("labels", "clean_predictions", "adversarial_predictions"):
            values = tuple(integer(name, value) for value in getattr(self, name))
            if len(values) != len(self.clean):
                raise ValueError(
                    f"{len(values)} {name} for {len(self.clean)} example images; expected one each."
                )
            set_fields(self, **{name: values})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExampleImages):
            return NotImplemented
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))
        return all(np.array_equal(mine, theirs) for mine, theirs in pairs)

    def __hash__(self) -> int:
        return hash((self.clean.tobytes(), self.adversarial.tobytes(), self.labels))


def in_unit_range(bounds: tuple[float, float], *images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Arrays of images scaled from the bounds of a ball to [0, 1]; without bounds, from their own.

    Example:
        >>> [x.tolist() for x in in_unit_range((-1, 1), np.array([-1.0, 0.0, 1.0]))]
        [[0.0, 0.5, 1.0]]
    """
    low, high = bounds
    if (low, high) == (0, 1):
        return images
    if not np.isfinite(high - low):
        low, high = min(x.min() for x in images), max(x.max() for x in images)
    return tuple((x - low) / ((high - low) or 1.0) for x in images)


def encode_images(images: np.ndarray) -> dict[str, Any]:
    """Images as JSON values, lossless: little-endian float32, zlib, base64, with the shape."""
    packed = zlib.compress(np.ascontiguousarray(images, dtype="<f4").tobytes(), level=9)
    return {"shape": list(images.shape), "float32_zlib_base64": base64.b64encode(packed).decode()}


def decode_images(document: dict[str, Any]) -> np.ndarray:
    """The images that `encode_images` encoded.

    Raises:
        ValueError: they would unpack to more than their shape says, or to too much.
    """
    packed = base64.b64decode(document["float32_zlib_base64"])
    size = 4 * math.prod(document["shape"])
    check_unpacked(len(packed), size)
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(packed, size + 1)  # + 1, since 0 is no limit
    return np.frombuffer(content, dtype="<f4").reshape(document["shape"])
