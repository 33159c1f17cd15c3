"""Detectors by the names of their scores, for recipes, flags and files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import keras

from keras_robust.core.types import Forward
from keras_robust.core.validation import did_you_mean, lookup
from keras_robust.detection.conformal import BASES, Conformal
from keras_robust.detection.detector import Detector
from keras_robust.detection.fitted import FittedDetector, read_fitted
from keras_robust.losses import uncertainty as scores

FITTED: dict[str, type[FittedDetector]] = {**BASES, Conformal.NAME: Conformal}
NAMES = (*scores.SCORES, *FITTED)


def build(name: str, model: keras.Model | Forward, **options: Any) -> Detector:
    """A detector by the name of its score, neither fitted nor calibrated.

    Args:
        name: a name of `keras_robust.detection.scores`, or `"mahalanobis"`,
            `"relative_mahalanobis"`, `"nearest_neighbors"`, `"lid"`, `"feature_squeezing"`,
            `"layer_inconsistency"` or `"conformal"`.
        model: as for `Detector`.
        **options: fields of the detector's class, such as `k=10` of `"nearest_neighbors"`.

    Raises:
        TypeError: the model is not callable.
        ValueError: an unknown name or option, or an invalid value.

    Example:
        >>> build("nearest_neighbors", lambda x: {"logits": x, "features": x}, k=10).k
        10
    """
    check_options(name, options)
    if name not in FITTED:
        return Detector(model, scored_by=name)
    return FITTED[name](model, **options)


def check_options(name: str, options: Iterable[str], kind: str = "score") -> None:
    """Raises ValueError for an unknown score, or an option that it does not have.

    Args:
        name: the name of the score.
        options: the names of the options.
        kind: what the name is, for the message.
    """
    valid = option_names(lookup(kind, name, NAMES))
    for option in options:
        if option not in valid:
            there = did_you_mean(option, valid) if valid else "none."
            raise ValueError(f"The score {name!r} has no option {option!r}; there are {there}")


def option_names(name: str) -> tuple[str, ...]:
    """The options of a score.

    Example:
        >>> option_names("lid"), option_names("entropy")
        (('k', 'bank'), ())
    """
    return tuple(FITTED[name].option_defaults()) if name in FITTED else ()


def load(path: str | os.PathLike[str], model: keras.Model | Forward) -> Detector:
    """Reads a fitted and calibrated detector of a model, as its `save` wrote it.

    Args:
        path: the file.
        model: the model for which the detector was fitted.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else.
    """
    options, calibration, statistics = read_fitted(path)
    detector = build(calibration.score, model, **options)
    if not isinstance(detector, FittedDetector):
        raise ValueError(f"{path} is of the score {calibration.score!r}, which is not fitted.")
    return detector.restored(calibration, statistics)
