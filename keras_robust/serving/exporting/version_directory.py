"""Version directories `<model base path>/<version>/`, which TensorFlow Serving watches."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from keras_robust.core.validation import check_integer

# TensorFlow Serving reads a version as a signed 64-bit integer.
LARGEST = 2**63 - 1


def versions(model_base_path: str | os.PathLike[str]) -> dict[int, Path]:
    """Lists the version directories of a model in ascending order; ignores other names.

    Args:
        model_base_path: their parent directory; it need not exist.

    Returns:
        `{version: directory}`.
    """
    base = Path(model_base_path)
    named = {
        int(path.name): path
        for path in (base.iterdir() if base.is_dir() else ())
        if path.name.isascii() and path.name.isdecimal() and path.is_dir()
    }
    return {number: named[number] for number in sorted(named) if number <= LARGEST}


def check_version(version: int) -> int:
    """Returns a valid version number.

    Raises:
        ValueError: not a positive integer of at most 63 bits.

    Example:
        >>> check_version(3)
        3
    """
    check_integer("version", version, 1)
    return int(version)


def find_version(model_base_path: str | os.PathLike[str], version: int | None = None) -> Path:
    """Finds the directory of a version, by default the latest.

    Raises:
        FileNotFoundError: the version does not exist.
    """
    found = versions(model_base_path)
    if not found:
        raise FileNotFoundError(
            f"{model_base_path} holds no version of a model; expected directories named 1, 2, ... "
            "Write one with `keras-robust export`."
        )
    number = max(found) if version is None else version
    if number not in found:
        raise FileNotFoundError(
            f"{model_base_path} holds no version {number}; it holds {sorted(found)}."
        )
    return found[number]


def check_free(base: Path, version: int) -> None:
    """Raises if a version exists already.

    Raises:
        FileExistsError: the version exists.
    """
    if version in versions(base) or os.path.lexists(base / str(version)):
        raise FileExistsError(
            f"{base} already holds version {version}, and a served version is never overwritten. "
            "Omit --version to use the next free one, or remove that directory first."
        )


@contextlib.contextmanager
def workspace(base: Path) -> Iterator[Path]:
    """A temporary path on the file system of `base`, removed afterwards."""
    parent = next(path for path in base.parents if path.is_dir())
    if base.is_dir() and _device(base) != _device(parent):
        # `base` is a mounted volume, and no rename leaves it; servers ignore such a name inside.
        parent = base
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{base.name}-export-") as private:
        # One level below: the temporary directory itself is unreadable for other users.
        yield Path(private) / "model"


def publish(draft: Path, base: Path, version: int | None) -> Path:
    """Renames a finished directory to a version, atomically.

    Args:
        draft: the directory, on the file system of `base`.
        base: parent directory of the versions; created if missing.
        version: default the next free one.

    Returns:
        The version directory.

    Raises:
        FileExistsError: the version exists.
    """
    base.mkdir(parents=True, exist_ok=True)
    while True:
        number = max(versions(base), default=0) + 1 if version is None else version
        check_free(base, number)
        try:
            os.rename(draft, base / str(number))
            return base / str(number)
        except OSError as error:
            # Another export took the number meanwhile: fail for a given version, else try the next.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _device(path: Path) -> int:
    return path.stat().st_dev
