"""Notices a training that ended where it started: at the accuracy of a guess."""

from __future__ import annotations

import math
from collections.abc import Mapping

from keras_robust.data import DatasetInfo


def chance_warning(row: Mapping[str, float], info: DatasetInfo) -> str | None:
    """A sentence about a network that is no better than a guess; None for a better one.

    Args:
        row: the metrics of the last epoch; accuracy is that of validation images, if there are any.
        info: the data.

    Returns:
        The sentence, if the accuracy of clean images is at most twice that of a guess, and no more
        than a tenth above it, or within two standard deviations of it.

    Example:
        >>> from keras_robust.data import DatasetInfo
        >>> info = DatasetInfo("digits", "", (8, 8, 1), 10, (), 1222, 215, 360, "test")
        >>> print(chance_warning({"val_accuracy": 0.16}, info))
        The network is near chance after the training: 16.0 % of 215 clean validation images are \
classified correctly, and a guess among 10 classes is right for 10.0 %.
        >>> chance_warning({"val_accuracy": 0.97}, info)
    """
    held_out = "val_accuracy" in row
    accuracy = row.get("val_accuracy", row.get("accuracy"))
    images = info.validation_size if held_out else info.train_size
    if accuracy is None or not images:
        return None
    guess = 1 / info.classes
    noise = 2 * math.sqrt(guess * (1 - guess) / images)
    if accuracy > max(guess + noise, min(2 * guess, guess + 0.1)):
        return None
    kind = "validation" if held_out else "training"
    return (
        f"The network is near chance after the training: {100 * accuracy:.1f} % of {images} clean "
        f"{kind} images are classified correctly, and a guess among {info.classes} classes is "
        f"right for {100 * guess:.1f} %."
    )
