"""Loading of Keras model files, with errors that say what is wrong with the file."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from pathlib import Path

import keras

_PARTS = ("config.json", "model.weights")  # beginnings of names


def load_model(path: str | os.PathLike[str], compile: bool = False) -> keras.Model:
    """Loads a model file as `keras.saving.load_model` does, in its safe mode.

    Args:
        path: a `.keras`, `.h5` or `.hdf5` file.
        compile: whether to compile the model as it was when it was saved.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated or damaged, lacks a part, or is not a Keras model; the
            message names it.

    Example:
        >>> load_model("nowhere.keras")
        Traceback (most recent call last):
        ...
        FileNotFoundError: nowhere.keras does not exist; expected a Keras model file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a Keras model file.")
    if path.suffix == ".keras":
        _check_archive(path)
    try:
        return keras.saving.load_model(path, compile=compile)
    except Exception as error:  # damaged files raise errors of many classes
        raise ValueError(f"{path} cannot be loaded as a Keras model: {_reason(error)}") from error


def _check_archive(path: Path) -> None:
    """Raises ValueError unless the file is a complete archive of a model."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be loaded as a Keras model: the file is truncated or damaged, or not "
            f"of the .keras format ({error}). Copy or save it again."
        ) from error
    missing = [part for part in _PARTS if not any(name.startswith(part) for name in names)]
    if missing or damaged:
        what = f"it has no {' and no '.join(missing)}" if missing else f"its {damaged} is damaged"
        raise ValueError(f"{path} cannot be loaded as a Keras model: {what}. Save it again.")


def _reason(error: Exception) -> str:
    """The first line of an error, or the custom class that it cannot find."""
    custom = re.search(r"Could not locate class '[^']+'", str(error))
    if custom:
        return f"{custom[0]}. Import the class and use the model in Python instead."
    return (str(error).strip() or type(error).__name__).splitlines()[0]
