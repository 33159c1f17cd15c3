"""Version directories: `<model base path>/<version>/`, as TensorFlow Serving watches them."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# TensorFlow Serving reads the name of a version into a signed 64-bit integer.
LARGEST = 2**63 - 1


def versions(model_base_path: str | os.PathLike[str]) -> dict[int, Path]:
    """The version directories of a model, in ascending order; whatever has another name is ignored.

    Args:
        model_base_path: the directory that holds them; it need not exist.

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


def check_version(version: Any) -> int:
    """Refuses what cannot name a version.

    Raises:
        ValueError: when it is not a positive integer of at most 63 bits.

    Example:
        >>> check_version(3)
        3
    """
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= LARGEST:
        raise ValueError(
            f"version={version!r} was received; expected a positive integer such as 1. "
            "Leave it out to take the next free one."
        )
    return version


def version_dir(model_base_path: str | os.PathLike[str], version: int | None = None) -> Path:
    """The directory of a version, by default of the latest.

    Raises:
        FileNotFoundError: when there is no such version.
    """
    found = versions(model_base_path)
    if not found:
        raise FileNotFoundError(
            f"{model_base_path} holds no version of a model; expected directories named 1, 2, ... "
            "Make one with `python -m serving.export`."
        )
    wanted = max(found) if version is None else version
    if wanted not in found:
        raise FileNotFoundError(
            f"{model_base_path} holds no version {wanted}; it holds {sorted(found)}."
        )
    return found[wanted]


def check_free(base: Path, version: int) -> None:
    """Refuses a version that exists.

    Raises:
        FileExistsError: when it does.
    """
    if version in versions(base) or os.path.lexists(base / str(version)):
        raise FileExistsError(
            f"{base} already holds version {version}; a served version is never written over. "
            "Leave --version out to take the next free one, or remove that directory first."
        )


@contextlib.contextmanager
def workspace(base: Path) -> Iterator[Path]:
    """A path to write a version at, on the file system of `base`; what is left there is removed."""
    parent = next(path for path in base.parents if path.is_dir())
    if base.is_dir() and _device(base) != _device(parent):
        # A mounted volume: no rename crosses its border, and servers ignore such a name in it.
        parent = base
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{base.name}-export-") as closed:
        # One below: the temporary directory itself is closed to other users, such as a server's.
        yield Path(closed) / "model"


def publish(draft: Path, base: Path, version: int | None) -> Path:
    """Gives a finished directory the name of a version, in one atomic step.

    Args:
        draft: the directory, on the file system of `base`.
        base: where the versions are; made if need be.
        version: by default the next free one.

    Returns:
        The version directory.

    Raises:
        FileExistsError: when the version exists.
    """
    base.mkdir(parents=True, exist_ok=True)
    while True:
        number = max(versions(base), default=0) + 1 if version is None else version
        check_free(base, number)
        try:
            os.rename(draft, base / str(number))
            return base / str(number)
        except OSError as error:
            # Another export took the number since: refused if asked for, else the next is tried.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _device(path: Path) -> int:
    return path.stat().st_dev
