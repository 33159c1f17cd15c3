"""Atomic writes: a file is complete or absent, even if a program is killed or the power fails.

Also the errors of files that cannot be written: a full disk, a read-only directory, a long path.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Names of temporary files of `replacing` and of saved calibrations.
_DRAFT = re.compile(r"\.[\w-]+\.\d+\.\w+|\.[\w-]+\.json-\w+")
# TensorFlow has its own errors, whose messages end with the system's words.
_CODES = {
    os.strerror(code): code
    for code in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENAMETOOLONG,
    )
}
_SHOWN = 100
# Errors of a disk or a quota that is full.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
    # Its name can be guessed: a link that somebody else left there would be written through.
    draft.unlink(missing_ok=True)
    try:
        yield draft
        sync(draft)
        if previous is not None and path.exists():
            _keep(path, previous)
        os.replace(draft, path)
        sync(path.parent)
    except OSError as error:
        if error.filename is None and error.errno in _FULL:  # a write names no file
            error.filename = os.fspath(path)
        raise
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def write_errors(path: Path, note: str = "") -> Iterator[None]:
    """Turns errors of the system and of TensorFlow's writers into an `OSError` of one sentence.

    Args:
        path: what is written, for the message.
        note: end of the message, such as `" No version was written."`.

    Raises:
        OSError: of the same kind, with the same `errno`; other errors pass unchanged.

    Example:
        >>> with write_errors(Path("runs/a")):
        ...     raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/.b.tmp")
        Traceback (most recent call last):
        OSError: Cannot write runs/a: No space left on device.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # has a sentence already
            raise
        raise _in_words(error, path, note) from error
    except Exception as error:
        message = str(error) if type(error).__module__.startswith("tensorflow.") else ""
        found = [code for words, code in _CODES.items() if words in message]
        if not found:
            raise
        raise _in_words(OSError(found[0], os.strerror(found[0])), path, note) from error


def _in_words(error: OSError, path: Path, note: str) -> OSError:
    shown = str(path)
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}... ({len(shown)} characters)"
    sentence = type(error)(f"Cannot write {shown}: {error.strerror}.{note}")
    sentence.errno = error.errno
    return sentence


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
