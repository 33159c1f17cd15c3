"""Bounded reading of files that somebody else may have written.

A few kilobytes can stand for gigabytes (a compressed archive, a shape in a header) or for
thousands of nested lists, and a link can lead anywhere. The functions here look at what a file
declares before they read it, and raise a ValueError of one sentence.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

MAX_TEXT = 64 * 2**20  # bytes of a JSON or text file; parsed JSON takes up to 24 times as much
MAX_UNPACKED = 2**30  # bytes of an unpacked archive; more if it is at most MAX_RATIO times its file
MAX_RATIO = 20  # a model's weights hardly shrink when packed; a bomb shrinks up to 1,000 times
_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_text(path: str | os.PathLike[str]) -> str:
    """Reads a UTF-8 file of at most `MAX_TEXT` bytes.

    Raises:
        ValueError: it is larger, or not UTF-8.
    """
    with open(path, "rb") as file:
        content = file.read(MAX_TEXT + 1)
    if len(content) > MAX_TEXT:
        raise ValueError(f"{path} is larger than {size_text(MAX_TEXT)}, the most that is read.")
    return content.decode("utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file of at most `MAX_TEXT` bytes.

    Raises:
        ValueError: it is larger, not JSON, or nested too deeply.
    """
    return parse_json(read_text(path))


def parse_json(text: str | bytes) -> Any:
    """Parses JSON; text that is nested too deeply is a ValueError like other invalid text.

    Example:
        >>> parse_json("[" * 100_000)
        Traceback (most recent call last):
        ValueError: JSON text is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON text is nested too deeply.") from None


def open_arrays(file: str | os.PathLike[str] | IO[bytes]) -> Any:
    """Opens an `.npz` archive as `numpy.load` does, or reads an `.npy` file; never unpickles.

    Args:
        file: a path, or an open file.

    Returns:
        A `numpy.lib.npyio.NpzFile`, a mapping and context manager; or an array.

    Raises:
        ValueError: it would unpack to too much, or an array is larger than the bytes there are.
        OSError, EOFError, zipfile.BadZipFile: it cannot be read.
    """
    opened: IO[bytes] = open(file, "rb") if isinstance(file, (str, os.PathLike)) else file  # type: ignore[arg-type]  # noqa: SIM115
    try:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(0)
        if opened.read(4) == b"PK\x03\x04":
            with zipfile.ZipFile(opened) as archive:
                check_archive(archive, size)
                for entry in archive.infolist():
                    with archive.open(entry) as part:
                        _check_array(part, entry.file_size)
        else:
            opened.seek(0)
            _check_array(opened, size)
    finally:
        if opened is file:
            opened.seek(0)
        else:
            opened.close()
    return np.load(file, allow_pickle=False)


def check_archive(archive: zipfile.ZipFile, size: int) -> None:
    """Raises ValueError if a zip archive would unpack to too much.

    Python reads no more of an entry than its declared size.

    Args:
        archive: the archive.
        size: bytes of its file.
    """
    check_unpacked(size, sum(entry.file_size for entry in archive.infolist()))


def check_unpacked(size: int, unpacked: int) -> None:
    """Raises ValueError if something would unpack to too many bytes.

    Args:
        size: the bytes that there are.
        unpacked: the bytes that they are said to unpack to.
    """
    if unpacked > max(MAX_UNPACKED, MAX_RATIO * size):
        raise ValueError(
            f"{size_text(size)} would unpack to {size_text(unpacked)}; at most "
            f"{size_text(MAX_UNPACKED)}, or {MAX_RATIO} times its size, are read."
        )


def check_links(root: Path, names: Iterable[str]) -> None:
    """Raises ValueError if a path below a directory is a link that leads out of it.

    Args:
        root: the directory, which may itself be reached by links.
        names: files and directories in it; missing ones are skipped.
    """
    for name in names:
        path = root / name
        below = (Path(parent, one) for parent, dirs, files in os.walk(path) for one in dirs + files)
        for link in filter(Path.is_symlink, (path, *below)):
            if not link.resolve().is_relative_to(root.resolve()):
                raise ValueError(
                    f"{link} is a link to {os.readlink(link)}, outside {root}; links that lead out "
                    "of a directory are not followed. Replace it by the file or the directory "
                    "that you trust."
                )


def size_text(size: float) -> str:
    """A number of bytes.

    Example:
        >>> size_text(3 * 2**20)
        '3.0 MiB'
    """
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _check_array(part: IO[bytes], size: int) -> None:
    """Raises ValueError if the header of an `.npy` file declares more bytes than there are."""
    if part.read(6) != b"\x93NUMPY":
        return  # not an array: bytes, of a bounded number
    version = part.read(2)
    read = _READ_HEADER.get((version[0], version[1])) if len(version) == 2 else None
    if read is None:
        raise ValueError("An array has an unknown format version.")
    shape, _, dtype = read(part)
    # Python's integers: those of NumPy would overflow.
    declared = dtype.itemsize
    for length in shape:
        declared *= length
    if dtype.hasobject or not 0 <= declared <= size:
        what = "Python objects" if dtype.hasobject else f"{dtype} of shape {list(shape)}"
        raise ValueError(f"An array of {what} is declared in {size_text(size)}; expected numbers.")
