"""Atomic writes: a file is complete or absent, even if a program is killed or the power fails."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Names of temporary files of `replacing` and of saved calibrations.
_DRAFT = re.compile(r"\.[\w-]+\.\d+\.\w+|\.[\w-]+\.json-\w+")


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON file atomically."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path, whose file replaces `path` once it is written and synced to disk.

    Args:
        path: the file; missing directories are created.
        previous: where to keep an existing file, in the same directory; None to overwrite it.

    Yields:
        A path in the same directory, with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _temporary(path)
    try:
        yield draft
        sync(draft)
        if previous is not None and path.exists():
            _keep(path, previous)
        os.replace(draft, path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def is_draft(path: Path) -> bool:
    """Whether a file is a temporary file that a killed program left behind.

    Example:
        >>> is_draft(Path("run/.metrics.4711.json")), is_draft(Path("run/metrics.json"))
        (True, False)
    """
    return _DRAFT.fullmatch(path.name) is not None


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")


def _keep(path: Path, previous: Path) -> None:
    """Links the file to a second name, so that the first one never disappears."""
    link = _temporary(previous)
    try:
        os.link(path, link)
        os.replace(link, previous)
    except OSError:  # a file system without hard links
        os.replace(path, previous)
    finally:
        link.unlink(missing_ok=True)  # left if both names linked to the same file


def sync(path: Path) -> None:
    """Syncs a file, or the entries of a directory, to disk."""
    directory = path.is_dir()
    # Some systems cannot open or sync a directory; failing to sync a file is an error.
    with contextlib.suppress(OSError) if directory else contextlib.nullcontext():
        number = os.open(path, os.O_RDONLY if directory else os.O_RDWR)
        try:
            os.fsync(number)
        finally:
            os.close(number)
