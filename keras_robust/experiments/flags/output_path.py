"""Checks of the paths that a program writes to, before it does any work."""

from __future__ import annotations

import os
from pathlib import Path

NAME_MAX, PATH_MAX = 255, 4096  # bytes: of Linux, and of most file systems
ROOM = 512  # bytes of a path for the files inside a directory, and for their temporary names


def check_output(
    path: str | os.PathLike[str], flag: str = "output_dir", *, file_prefix: str = ""
) -> Path:
    """Raises unless files can be written into a directory, which may not exist; creates nothing.

    Args:
        path: the directory.
        flag: the flag to change, for the message.
        file_prefix: what the names of files in it start with, such as the name of a run.

    Returns:
        The directory.

    Raises:
        ValueError: a name or a path that is too long.
        NotADirectoryError, PermissionError: the directory cannot be created or written.

    Example:
        >>> check_output("runs/" + 300 * "x")
        Traceback (most recent call last):
        ValueError: --output_dir has a name of 300 bytes; file systems take at most 255. Choose...
    """
    path = Path(path)
    absolute = path.absolute()
    longest = max(len(os.fsencode(part)) for part in absolute.parts)
    if longest > NAME_MAX:
        raise ValueError(
            f"--{flag} has a name of {longest} bytes; file systems take at most {NAME_MAX}. "
            "Choose a shorter one."
        )
    length = len(os.fsencode(absolute))
    if length > PATH_MAX - ROOM:
        raise ValueError(
            f"--{flag} is a path of {length} bytes; expected at most {PATH_MAX - ROOM}. "
            "Choose a shorter one."
        )
    size = len(os.fsencode(file_prefix))
    if size > NAME_MAX // 2:
        raise ValueError(
            f"The names of the files in {path} would start with a name of {size} bytes; expected "
            f"at most {NAME_MAX // 2}. Rename the run or the model."
        )
    there = next(one for one in (path, *absolute.parents) if os.path.lexists(one))
    if not there.is_dir():
        raise NotADirectoryError(
            f"{path} cannot be created: {there} is a file. Choose another --{flag}."
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{path} cannot be written: no permission in {there}. Choose another --{flag}."
        )
    return path
