"""Loading of Keras model files, with errors that say what is wrong with the file."""

from __future__ import annotations

import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import h5py
import keras

from keras_robust.core.bounded_files import (
    MAX_TEXT,
    check_archive,
    check_unpacked,
    parse_json,
    size_text,
)

_PARTS = ("config.json", "model.weights")  # beginnings of names
# What reads a file that the configuration names, or runs code. Keras's safe mode refuses some of
# them, in some releases, and a program may have turned it off for files of its own.
_REFUSED = ("TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__lambda__")


def load_model(path: str | os.PathLike[str], compile: bool = False) -> keras.Model:
    """Loads a model file as `keras.saving.load_model` does, always in its safe mode.

    The file may be a stranger's: no code in it runs, and no other file is read. The memory of its
    layers is not bounded.

    Args:
        path: a `.keras`, `.h5` or `.hdf5` file.
        compile: whether to compile the model as it was when it was saved.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated or damaged, lacks a part, is not a Keras model, would
            unpack to too much, or refers to other files; the message names it.

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
        if path.suffix != ".keras":
            with path.open("rb") as file:
                _check_hdf5(file, path.stat().st_size)
        return keras.saving.load_model(path, compile=compile, safe_mode=True)
    except Exception as error:  # damaged files raise errors of many classes
        raise ValueError(f"{path} cannot be loaded as a Keras model: {_reason(error)}") from error


def _check_archive(path: Path) -> None:
    """Raises ValueError unless the file is a complete archive of a model."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path.stat().st_size)
            names = archive.namelist()
            damaged = archive.testzip()
            if not damaged:
                _check_parts(archive)
    except ValueError as error:
        raise ValueError(f"{path} cannot be loaded as a Keras model: {error}") from error
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be loaded as a Keras model: the file is truncated or damaged, or not "
            f"of the .keras format ({error}). Copy or save it again."
        ) from error
    missing = [part for part in _PARTS if not any(name.startswith(part) for name in names)]
    if missing or damaged:
        what = f"it has no {' and no '.join(missing)}" if missing else f"its {damaged} is damaged"
        raise ValueError(f"{path} cannot be loaded as a Keras model: {what}. Save it again.")


def _check_parts(archive: zipfile.ZipFile) -> None:
    """Raises ValueError for a configuration or weights that refer to what is not in the archive."""
    for entry in archive.infolist():
        if entry.filename.endswith(".json") and entry.file_size > MAX_TEXT:
            raise ValueError(f"its {entry.filename} takes {size_text(entry.file_size)}.")
        if entry.filename == "config.json":
            for name in _class_names(parse_json(archive.read(entry))):
                if name in _REFUSED:
                    what = "Python lambda" if name == "__lambda__" else name
                    raise ValueError(
                        f"it has a {what}, which would run code that is not Keras's. Build the "
                        "model in Python instead, and load its weights."
                    )
        if entry.filename.endswith(".h5"):
            packed = entry.compress_type != zipfile.ZIP_STORED  # seeking would unpack it again
            with archive.open(entry) as part:
                _check_hdf5(io.BytesIO(part.read()) if packed else part, entry.file_size)


def _class_names(config: Any) -> Iterator[Any]:
    """The names of all classes in a configuration."""
    waiting = [config]
    while waiting:  # not by recursion, whose depth somebody else would choose
        part = waiting.pop()
        if isinstance(part, dict):
            yield part.get("class_name")
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _check_hdf5(file: IO[bytes], size: int) -> None:
    """Raises ValueError if weights are in other files, or larger than their own.

    Older releases of Keras follow such links: a model could read any file of its user.
    """
    try:
        opened = h5py.File(file, "r")
    except OSError:
        return  # not HDF5, which Keras says
    with opened as weights:
        declared, waiting, seen = 0, [weights], set()
        while waiting:
            group = waiting.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"its weights {name!r} are a link to other weights.")
                item = group[name]
                if item.id in seen:
                    continue
                seen.add(item.id)
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                elif isinstance(item, h5py.Dataset):
                    if item.external or item.is_virtual:
                        raise ValueError(f"its weights {name!r} are in another file.")
                    declared += item.size * item.dtype.itemsize
        check_unpacked(size, declared)


def _reason(error: Exception) -> str:
    """The first line of an error, or the custom class that it cannot find."""
    custom = re.search(r"Could not locate class '[^']+'", str(error))
    if custom:
        return f"{custom[0]}. Import the class and use the model in Python instead."
    return (str(error).strip() or type(error).__name__).splitlines()[0]
