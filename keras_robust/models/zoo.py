"""Trained models that are part of the package, each with its model card.

A model is a directory `published/<data>/<name>/` with four files: `model.json`, the layers as Keras
serializes them; `weights.npz`, the weights in their order; and the model card, `card.json` and
`card.md`.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import keras
import numpy as np

from keras_robust.core.atomic_files import replacing, write_text
from keras_robust.core.bounded_files import open_arrays
from keras_robust.core.validation import lookup

DIRECTORY = Path(__file__).with_name("published")
_MODEL, _WEIGHTS, _CARD = "model.json", "weights.npz", "card.json"


def available() -> tuple[str, ...]:
    """The names of the trained models that `load` takes, in alphabetical order.

    Example:
        >>> "digits/ibp-linf-0.15" in available()
        True
    """
    cards = DIRECTORY.glob(f"*/*/{_CARD}")
    return tuple(sorted(card.parent.relative_to(DIRECTORY).as_posix() for card in cards))


def load(name: str) -> keras.Model:
    """Loads a trained model of the package.

    Args:
        name: one of `available()`, such as `"mnist/ibp-linf-0.3"`.

    Returns:
        A functional model in float32, `images -> {"logits", "features"}`, of the same name with
        hyphens for slashes.

    Raises:
        ValueError: an unknown name; the message lists the valid ones. Or damaged files, or weights
            that are not those of the model card.

    Example:
        >>> model = load("digits/ibp-linf-0.15")
        >>> model(keras.ops.zeros((1, 8, 8, 1)))["logits"].shape
        TensorShape([1, 10])
    """
    card = json.loads(card_file(name).read_text("utf-8"))
    model = read(DIRECTORY / name)
    found = fingerprint(model)
    if found != card["weights"]:
        raise ValueError(
            f"The weights of {name} are {found}; its model card has {card['weights']}. Install "
            "keras_robust again."
        )
    model.name = name.replace("/", "-")  # the title of a report; Keras refuses slashes
    return model


def card_file(name: str) -> Path:
    """The path of the model card of a trained model, which `keras_robust.evaluation.Card` reads.

    Args:
        name: one of `available()`.

    Raises:
        ValueError: an unknown name; the message lists the valid ones.

    Example:
        >>> card_file("digits/ibp-linf-0.15").name
        'card.json'
    """
    return _directory(name) / _CARD


def weights_file(name: str) -> Path:
    """The path of the weights of a trained model, an `.npz` file.

    Raises:
        ValueError: an unknown name; the message lists the valid ones.
    """
    return _directory(name) / _WEIGHTS


def fingerprint(model: keras.Model) -> str:
    """The SHA-256 of the weights in their order, as model cards have it."""
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(variable.numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def write(model: keras.Model, directory: str | os.PathLike[str], half: bool = False) -> None:
    """Writes the layers and the weights of a model.

    Args:
        model: a functional model.
        directory: created if it does not exist.
        half: store kernels in half precision; biases and the statistics of batch norm, which are
            few and may exceed its range, stay in float32.
    """
    directory = Path(directory)
    arrays = {}
    for key, variable in zip(_keys(model), model.weights, strict=True):
        value = variable.numpy()
        arrays[key] = value.astype("float16") if half and value.ndim > 1 else value
    write_text(directory / _MODEL, model.to_json())
    with replacing(directory / _WEIGHTS) as draft:
        np.savez_compressed(draft, **arrays)


def read(directory: str | os.PathLike[str]) -> keras.Model:
    """Reads the model that `write` wrote, in float32.

    Raises:
        ValueError: files that are damaged, or do not belong together.
    """
    directory = Path(directory)
    try:
        model = keras.models.model_from_json((directory / _MODEL).read_text("utf-8"))
        with open_arrays(directory / _WEIGHTS) as archive:
            arrays = dict(archive)
    except Exception as error:  # damaged files raise errors of many classes
        raise ValueError(f"{directory} holds no readable model: {error}") from error
    if list(arrays) != _keys(model):
        raise ValueError(f"{directory / _WEIGHTS} has other weights than {_MODEL} has.")
    model.set_weights([value.astype("float32") for value in arrays.values()])
    return model


def _directory(name: str) -> Path:
    return DIRECTORY / lookup("trained model", name, available())


def _keys(model: keras.Model) -> list[str]:
    """A name for each weight; with its number, as layers of ensembles may share a name."""
    return [f"{number:03}/{weight.path}" for number, weight in enumerate(model.weights)]
