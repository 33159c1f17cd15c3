"""Files that are whole or not there, whenever a program is killed or the power fails."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What `replacing`, and a calibration that is saved, call their drafts.
_DRAFT = re.compile(r"\.[\w-]+\.\d+\.\w+|\.[\w-]+\.json-\w+")


def write_text(path: Path, text: str) -> None:
    """Writes a file that is either whole or not there."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON file that is either whole or not there."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """A file to write, which takes the place of `path` when it is whole and on the disk.

    Args:
        path: of the file; its directory is made if it is not there.
        previous: where to keep the file that was there, in the same directory; None to lose it.

    Yields:
        Another path in the same directory, with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(path)
    try:
        yield draft
        _flush(draft)
        if previous is not None and path.exists():
            _keep(path, previous)
        os.replace(draft, path)
        _flush(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def is_draft(path: Path) -> bool:
    """Whether a file is what a killed program left of `replacing`.

    Example:
        >>> is_draft(Path("run/.metrics.4711.json")), is_draft(Path("run/metrics.json"))
        (True, False)
    """
    return _DRAFT.fullmatch(path.name) is not None


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")


def _keep(path: Path, previous: Path) -> None:
    """Gives the file a second name, so that there is one under the first at any moment."""
    link = _draft_of(previous)
    try:
        os.link(path, link)
        os.replace(link, previous)
    except OSError:  # a file system without hard links
        os.replace(path, previous)
    finally:
        link.unlink(missing_ok=True)  # still there if both names were those of one file


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a directory, are on the disk."""
    directory = path.is_dir()
    # Some systems cannot open a directory, or not flush it; a file that is not flushed is an error.
    with contextlib.suppress(OSError) if directory else contextlib.nullcontext():
        number = os.open(path, os.O_RDONLY if directory else os.O_RDWR)
        try:
            os.fsync(number)
        finally:
            os.close(number)
