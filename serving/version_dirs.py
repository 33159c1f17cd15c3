"""Version directories: `<model base path>/<version>/`, as TensorFlow Serving watches them."""

from __future__ import annotations

import os
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
