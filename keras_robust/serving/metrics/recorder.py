"""A thread that takes records one after another, so that no request waits for a disk."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from keras_robust.serving.metrics.request_record import RequestRecord

_LOG = logging.getLogger(__name__)
MAX_RECORDS = 10_000
# Of the images of waiting records; a record above it loses its images.
MAX_BYTES = 2**28

# A record with the bytes of its images; what `flush` waits for; the end.
_Item = tuple[RequestRecord, int] | threading.Event | None


class Recorder:
    """Hands records to a function, in a thread of its own.

    Args:
        take: called with each record; its errors are logged.

    Attributes:
        dropped: number of records for which there was no place.
    """

    def __init__(self, take: Callable[[RequestRecord], None]) -> None:
        self._take = take
        self._queue: queue.Queue[_Item] = queue.Queue(MAX_RECORDS)
        self.dropped, self._bytes = 0, 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, record: RequestRecord) -> None:
        """Takes a record, unless 10,000 wait; never waits."""
        size = record.input_bytes
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
                self._thread.start()
            if self._bytes + size > MAX_BYTES:
                record.inputs, size = {}, 0
            try:
                self._queue.put_nowait((record, size))
                self._bytes += size
            except queue.Full:
                self.dropped += 1

    def flush(self, seconds: float = 2.0) -> None:
        """Waits until all records that were put before are taken, or the time is over."""
        if self._thread is None:
            return
        reached = threading.Event()
        try:
            self._queue.put(reached, timeout=seconds)
        except queue.Full:
            return
        reached.wait(seconds)

    def close(self) -> None:
        """Takes what was put before, and ends the thread."""
        if self._thread is not None:
            self.flush()
            self._queue.put(None)
            self._thread.join(1.0)
            self._thread = None

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            record, size = item
            with self._lock:
                self._bytes -= size
            try:
                self._take(record)
            except Exception:  # the next ones are taken all the same
                _LOG.exception("A request could not be recorded.")
