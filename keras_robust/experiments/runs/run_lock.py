"""One directory has one writer: a lock on it, which ends with the process that holds it."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none; there, two trainings in one directory are not detected
    fcntl = None  # type: ignore[assignment]


class RunLock:
    """The right to write a run directory or a report's, taken at once or refused.

    The kernel releases the lock when the process ends, also by `kill -9`. No file is left behind:
    the directory itself is locked.

    Args:
        path: the directory, which exists.
        activity: what is done with it, for the message.

    Raises:
        BlockingIOError: another process holds the lock.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as path:
        ...     RunLock(Path(path)).release()
    """

    def __init__(self, path: Path, activity: str = "is being trained"):
        self._descriptor: int | None = None
        if fcntl is None:
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise BlockingIOError(
                f"{path} {activity} by another process. Wait for its end, or choose another "
                "--output_dir."
            ) from None
        except OSError:  # a file system without locks
            os.close(descriptor)
            return
        self._descriptor = descriptor

    def release(self) -> None:
        """Gives the right back; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
