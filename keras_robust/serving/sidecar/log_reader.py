"""Reads a log of requests: once, or for as long as it grows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from prometheus_client import CollectorRegistry, Counter

from keras_robust.serving.metrics.request_log import PREVIOUS, parse_line
from keras_robust.serving.metrics.request_record import RequestRecord

POLL_SECONDS = 0.2
# A longer line is not one of a log, or has images that nobody needs here.
MAX_LINE = 2**26


class LogReader:
    """Hands the requests of a log to a function, in the order of the file.

    Args:
        path: the file, which may be replaced by a new one when it is full.
        take: called with each request.
        registry: where the lines are counted.

    Attributes:
        read, malformed: number of lines.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        take: Callable[[RequestRecord], None],
        registry: CollectorRegistry,
    ) -> None:
        self.path, self._take = Path(path), take
        self.read = self.malformed = 0
        self._part = b""
        lines = Counter(
            "keras_robust_log_lines_read",
            "Lines of the request log that the sidecar has read.",
            ("outcome",),
            registry=registry,
        )
        self._counters = {name: lines.labels(name) for name in ("read", "malformed")}

    def read_all(self) -> None:
        """Reads the file once, after the one before if that was kept.

        Raises:
            OSError: the file cannot be read.
        """
        previous = Path(f"{self.path}{PREVIOUS}")
        for path in [previous, self.path] if previous.is_file() else [self.path]:
            with path.open("rb") as file:
                self._read(file)
        self._line(self._part)
        self._part = b""

    def follow(self, stop: threading.Event) -> None:
        """Reads the file and what is appended to it, until the event is set."""
        file: IO[bytes] | None = None
        try:
            while not stop.is_set():
                if file is None or _replaced(file, self.path):
                    if file is not None:
                        self._read(file)  # what came before it was replaced
                        file.close()
                    self._part, file = b"", _opened(self.path)
                if file is None or not self._read(file):
                    stop.wait(POLL_SECONDS)
        finally:
            if file is not None:
                file.close()

    def _read(self, file: IO[bytes]) -> bool:
        """Reads what the file has now; whether it had something."""
        found = False
        while chunk := file.read(2**20):
            found = True
            *lines, self._part = (self._part + chunk).split(b"\n")
            for line in lines:
                self._line(line)
            if len(self._part) > MAX_LINE:
                self._part = b""
                self._count("malformed")
        return found

    def _line(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            record = parse_line(line)
        except ValueError:
            self._count("malformed")
            return
        self._count("read")
        self._take(record)

    def _count(self, outcome: str) -> None:
        setattr(self, outcome, getattr(self, outcome) + 1)
        self._counters[outcome].inc()


def _opened(path: Path) -> IO[bytes] | None:
    try:
        return path.open("rb")
    except OSError:
        return None


def _replaced(file: IO[bytes], path: Path) -> bool:
    """Whether the path is another file by now, or the file was cut off."""
    try:
        now, then = os.stat(path), os.fstat(file.fileno())
    except OSError:
        return False  # for a moment there is none
    return (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino) or now.st_size < file.tell()
