"""Reads what a model server answered, over REST, as records."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_robust.core.bounded_files import parse_json
from keras_robust.serving.metrics.request_record import FLAGS, RECORDED, SCORES

_PREDICT = re.compile(
    r"/v1/models/(?P<label>(?P<model>[^/:?]+)(?:/labels/[^/:?]+)?)"
    r"(?:/versions/(?P<version>\d{1,19}))?:predict(?:\?.*)?",
    re.ASCII | re.IGNORECASE,
)
_SIGNATURE = re.compile(rb'"signature_name"\s*:\s*"([^"\\]{1,200})"')
_KINDS = {SCORES: np.float64, FLAGS: bool}


class Target(NamedTuple):
    """What a predict path names.

    Attributes:
        model: the model, as it is written in the path.
        label: the same with the label of a version, if there is one: the path of its status.
        version: the number of the version; None for the newest, or that of the label.
    """

    model: str
    label: str
    version: int | None


def predict_target(path: str) -> Target | None:
    """What a predict path names; None for other paths.

    Example:
        >>> predict_target("/v1/models/digits/versions/3:predict")
        Target(model='digits', label='digits', version=3)
        >>> predict_target("/v1/models/digits/labels/stable:predict").label
        'digits/labels/stable'
        >>> predict_target("/v1/models/digits")
    """
    match = _PREDICT.fullmatch(path)
    if match is None:
        return None
    version = None if match["version"] is None else int(match["version"])
    return Target(match["model"], match["label"], version)


def signature_of(body: bytes) -> str:
    """The signature that a request names; `serving_default` without one.

    The body is searched and not parsed, since it holds the images: compare the result with the
    names of the model before you rely on it.

    Example:
        >>> signature_of(b'{"signature_name": "detect", "instances": [0.1]}')
        'detect'
    """
    found = _SIGNATURE.search(body)
    return found[1].decode("utf-8", "replace") if found else "serving_default"


def outputs_of(content: bytes) -> dict[str, np.ndarray]:
    """The classes, scores and flags of an answer, in the format of rows or of columns.

    Returns:
        `{name: [batch]}`, without those that the answer lacks.

    Raises:
        ValueError: the content is not an answer of TensorFlow Serving.

    Example:
        >>> outputs_of(b'{"predictions": [{"detection_score": 0.5, "probabilities": [1.0]}]}')
        {'detection_score': array([0.5])}
    """
    document = parse_json(content)
    if isinstance(document, dict) and isinstance(rows := document.get("predictions"), list):
        return _columns({name: [row[name] for row in rows] for name in _named(rows)})
    if isinstance(document, dict) and isinstance(columns := document.get("outputs"), dict):
        return _columns({name: columns[name] for name in RECORDED if name in columns})
    raise ValueError("The content has neither predictions nor outputs.")


def _named(rows: list[Any]) -> list[str]:
    """The names that all rows have; none if the signature has one output alone."""
    if not all(isinstance(row, dict) for row in rows):
        return []
    return [name for name in RECORDED if rows and all(name in row for row in rows)]


def _columns(values: Mapping[str, list[Any]]) -> dict[str, np.ndarray]:
    try:
        arrays = {name: np.asarray(value, _KINDS.get(name)) for name, value in values.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"The outputs are not numbers: {error}") from error
    sizes = {array.shape for array in arrays.values()}
    if any(len(shape) != 1 for shape in sizes) or len(sizes) > 1:
        raise ValueError(f"The outputs have the shapes {sorted(sizes)}; expected one batch.")
    return arrays
