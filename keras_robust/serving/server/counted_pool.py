"""A thread pool that knows how many of its calls wait for a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any, TypeVar

T = TypeVar("T")


class CountedPool(futures.ThreadPoolExecutor):
    """A `ThreadPoolExecutor` with a count of the calls that wait.

    Args:
        threads: number of threads.
        name: names them.

    Example:
        >>> pool = CountedPool(1, "example")
        >>> pool.submit(int, "3").result(), pool.waiting
        (3, 0)
        >>> pool.shutdown()
    """

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, name)
        self._count, self._count_lock = 0, threading.Lock()

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a thread."""
        return self._count

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> futures.Future[T]:
        """Runs a function in a free thread, as `ThreadPoolExecutor.submit` does."""

        def started() -> T:
            self._add(-1)
            return fn(*args, **kwargs)

        self._add(1)
        try:
            future = super().submit(started)
        except BaseException:
            self._add(-1)
            raise
        future.add_done_callback(self._done)
        return future

    def _done(self, future: futures.Future[Any]) -> None:
        if future.cancelled():
            self._add(-1)

    def _add(self, number: int) -> None:
        with self._count_lock:
            self._count += number
