"""Version directories `<model base path>/<version>/`, which TensorFlow Serving watches."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from keras_robust.core.atomic_files import sync
from keras_robust.core.validation import check_integer

try:
    import fcntl
except ImportError:  # Windows, where drafts of stopped exports stay
    fcntl = None  # type: ignore[assignment]

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


def check_base(base: Path) -> None:
    """Raises if versions cannot be below a path.

    Raises:
        NotADirectoryError: the path, or a parent of it, is a file.
    """
    for path in (base, *base.parents):
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(
                f"{path} is a file; expected a directory, the parent of version directories."
            )


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
    """A temporary path on the file system of `base`, removed afterwards.

    Removes what stopped exports to `base` left behind.
    """
    parent = next(path for path in base.parents if path.is_dir())
    if base.is_dir() and _device(base) != _device(parent):
        # `base` is a mounted volume, and no rename leaves it; servers ignore such a name inside.
        parent = base
    prefix = f".{base.name[:50]}-export-"  # a name may be as long as the file system allows
    for directory in {parent, base}:
        _sweep(directory, prefix)
    private, lock = _private_directory(parent, prefix)
    try:
        # One level below: the temporary directory itself is unreadable for other users.
        yield private / "model"
    finally:
        shutil.rmtree(private, ignore_errors=True)
        os.close(lock)


def _private_directory(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new directory, and the descriptor that locks it for as long as this process lives."""
    while True:
        private = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(private, os.O_RDONLY)
            _lock(lock, wait=True)
            if private.is_dir():
                return private, lock
            os.close(lock)
        # Another export's sweep took it before it was locked.


def _sweep(directory: Path, prefix: str) -> None:
    """Removes the temporary directories of exports whose process is gone."""
    name = re.compile(re.escape(prefix) + "[a-z0-9_]{8}")  # as `tempfile` makes them
    with contextlib.suppress(OSError):  # missing, or not ours to read
        found = [path for path in directory.iterdir() if name.fullmatch(path.name)]
        for draft in (path for path in found if path.is_dir() and not path.is_symlink()):
            with contextlib.suppress(OSError):  # another user's
                lock = os.open(draft, os.O_RDONLY)
                try:
                    if _lock(lock, wait=False) and {p.name for p in draft.iterdir()} <= {"model"}:
                        shutil.rmtree(draft, ignore_errors=True)
                finally:
                    os.close(lock)


def _lock(descriptor: int, wait: bool) -> bool:
    """Locks an open directory; False if it is locked, or the file system has no such locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def publish(draft: Path, base: Path, version: int | None) -> Path:
    """Renames a finished directory to a version, atomically.

    The files are synced to disk first, so that no power failure leaves a version with parts of
    them; then the rename is.

    Args:
        draft: the directory, on the file system of `base`.
        base: parent directory of the versions; created if missing.
        version: default the next free one.

    Returns:
        The version directory.

    Raises:
        FileExistsError: the version exists.
    """
    _sync_tree(draft)
    made = [path for path in (base, *base.parents) if not path.is_dir()]
    base.mkdir(parents=True, exist_ok=True)
    for path in made:
        sync(path.parent)
    while True:
        number = max(versions(base), default=0) + 1 if version is None else version
        check_free(base, number)
        try:
            os.rename(draft, base / str(number))
            sync(base)
            return base / str(number)
        except OSError as error:
            # Another export took the number meanwhile: fail for a given version, else try the next.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _sync_tree(directory: Path) -> None:
    """Syncs all files below a directory, then the directories, to disk."""
    for parent, _, names in os.walk(directory, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def _device(path: Path) -> int:
    return path.stat().st_dev
