"""Accuracy under common corruptions, computed here, at five severities."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from keras_robust.core.kept_graphs import compiled_forward
from keras_robust.core.types import Images
from keras_robust.core.validation import check_choice, check_integer, lookup
from keras_robust.evaluation.corruption import blur, digital, noise, weather
from keras_robust.evaluation.rendering.markdown import markdown_table
from keras_robust.evaluation.rendering.tables import Table, corruption_table, table_html
from keras_robust.evaluation.results.corruption_data import CorruptionData
from keras_robust.evaluation.running import attack_runner, batching
from keras_robust.evaluation.running.batching import Data, Model

Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        noise.gaussian_noise,
        noise.shot_noise,
        noise.impulse_noise,
        blur.defocus_blur,
        blur.glass_blur,
        blur.motion_blur,
        blur.zoom_blur,
        weather.snow,
        weather.frost,
        weather.fog,
        weather.brightness,
        digital.contrast,
        digital.elastic_transform,
        digital.pixelate,
        digital.jpeg_compression,
    )
}
SEVERITIES = (1, 2, 3, 4, 5)


def corrupt(
    x: Images,
    name: str,
    severity: int = 3,
    *,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> np.ndarray:
    """Corrupts images as CIFAR-10-C does.

    Args:
        x: images `[batch, height, width, channels]` inside the bounds, float.
        name: one of the 15 corruptions, such as `"fog"`.
        severity: from 1 to 5.
        seed: of the random parts; a corruption and a severity have draws of their own.
        bounds: the range of a pixel.

    Returns:
        Corrupted images of the shape and dtype of `x`, inside the bounds.

    Raises:
        ValueError: an unknown corruption, another severity, or images of another rank.

    Example:
        >>> corrupt(np.full((1, 2, 2, 1), 0.5), "brightness", 5)[0, 0, 0].round(2).tolist()
        [0.8]

    Reference: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
    Corruptions and Perturbations" (2019), with the severities of the authors' code for CIFAR-10.

    Differs: results are not rounded to 8 bits. Frost is drawn, not cut from photographs. Motion
    blur, the enlargements of zoom blur and snow, and affine maps are interpolated linearly, and not
    by the authors' libraries, so that figures are near those of the downloaded data, not equal.
    """
    function = CORRUPTIONS[lookup("corruption", name, CORRUPTIONS)]
    check_choice("corrupt: severity", severity, SEVERITIES)
    check_integer("corrupt: seed", seed)
    images = np.asarray(x)
    if images.ndim != 4:
        raise ValueError(
            f"corrupt: images have the shape {images.shape}; expected [batch, height, width, "
            "channels]."
        )
    low, high = bounds
    random = np.random.default_rng([seed, zlib.crc32(name.encode()), severity])
    unit = (images.astype(np.float64) - low) / (high - low)
    corrupted = np.clip(function(unit, severity, random), 0, 1) * (high - low) + low
    return np.clip(corrupted.astype(images.dtype), low, high)


@dataclasses.dataclass(frozen=True)
class CorruptionAccuracy(CorruptionData):
    """Accuracy under corruptions; see `CorruptionData` for its fields."""

    def table(self) -> Table:
        """One row per corruption, one column per severity, and the means."""
        return corruption_table(self)

    _repr_html_ = table_html

    def markdown(self) -> str:
        """The table as Markdown."""
        return markdown_table(self.table())


def corruptions(
    model: Model,
    data: Data,
    names: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    limit: int | None = None,
    seed: int = 0,
) -> CorruptionAccuracy:
    """Measures accuracy under the 15 corruptions of CIFAR-10-C, which are computed here.

    Args:
        model, data, limit: as for `keras_robust.evaluation.evaluate`.
        names: the corruptions; None for all.
        severities: from 1 to 5.
        bounds: the range of a pixel.
        seed: as for `corrupt`, whatever the batches.

    Returns:
        The accuracy of each corruption and severity.

    Raises:
        ValueError: no data, or as for `corrupt`.

    Example:
        >>> import tensorflow as tf
        >>> x = np.tile([0.0, 0.6], 4).reshape(4, 1, 2, 1).astype("float32")
        >>> model = lambda x: {"logits": tf.reshape(x, [-1, 2])}
        >>> found = corruptions(model, (x, [1, 1, 1, 0]), ["contrast"], [1, 5])
        >>> found.clean, found.accuracy["contrast"]
        (0.75, (0.75, 0.75))

    Reference: Hendrycks and Dietterich (2019); see `corrupt`.
    """
    chosen = tuple(CORRUPTIONS) if names is None else tuple(names)
    for name in chosen:
        lookup("corruption", name, CORRUPTIONS)
    for severity in severities:
        check_choice("corruptions: severity", severity, SEVERITIES)
    x, y, batch_size = batching.arrays(data, limit)
    forward = compiled_forward(model)

    def accuracy(images: np.ndarray) -> float:
        logits = attack_runner.predict_logits(forward, images, batch_size)
        return float(attack_runner.is_correct(logits, y).mean())

    found = {
        name: tuple(
            accuracy(corrupt(x, name, severity, seed=seed, bounds=bounds))
            for severity in severities
        )
        for name in chosen
    }
    return CorruptionAccuracy(found, tuple(severities), accuracy(x), len(x), seed)
