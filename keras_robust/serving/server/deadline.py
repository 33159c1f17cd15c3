"""Deadlines of requests, and the threads that run requests until their deadline."""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import Callable
from concurrent import futures
from typing import TypeVar

from keras_robust.serving.server.counted_pool import CountedPool
from keras_robust.serving.status import Code, ServingError

T = TypeVar("T")
TIMEOUT_SECONDS = 30.0  # TensorFlow Serving's default for REST


class Deadline:
    """The end of the time that a request may take.

    Args:
        seconds: from now on.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds that are left; 0 after the deadline."""
        return max(0.0, self._at - time.monotonic())

    def exceeded(self) -> ServingError:
        """Makes the error of a request that takes longer."""
        return ServingError(
            Code.DEADLINE_EXCEEDED,
            f"The request was not answered within {self.seconds:.3g} s. Send smaller batches, or "
            "try again when the server has less to do.",
        )


_DEADLINE: contextvars.ContextVar[Deadline | None] = contextvars.ContextVar("deadline")


def current_deadline() -> Deadline | None:
    """The deadline of the request that this thread runs; None outside of requests."""
    return _DEADLINE.get(None)


class Workers:
    """Threads that run requests, in the order in which they come.

    A request that runs cannot be ended from outside: after its deadline its caller stops to wait,
    and it keeps its thread until it ends.

    Args:
        threads: how many requests run at the same time.
        name: names the threads.
        timeout_seconds: time for a request, with its wait for a thread.
    """

    def __init__(self, threads: int, name: str, timeout_seconds: float) -> None:
        self._pool = CountedPool(threads, name)
        self._timeout_seconds = timeout_seconds

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a thread."""
        return self._pool.waiting

    def deadline(self, seconds: float = math.inf) -> Deadline:
        """The deadline of a request that begins now.

        Args:
            seconds: how long its client waits.
        """
        return Deadline(min(self._timeout_seconds, seconds))

    def run(
        self,
        call: Callable[[], T],
        deadline: Deadline,
        abandoned: Callable[[futures.Future[T]], None] = lambda _: None,
    ) -> T:
        """Runs a function in a free thread and returns its result.

        Args:
            call: the function.
            deadline: how long to wait for a thread and for the result.
            abandoned: called with a function that still runs at the deadline.

        Raises:
            ServingError: DEADLINE_EXCEEDED, or an error of the function.
        """
        future = self._pool.submit(_within, deadline, call)
        try:
            return future.result(deadline.remaining())
        except futures.TimeoutError as error:
            if future.done():  # it is the function's own
                return future.result()
            if not future.cancel():
                abandoned(future)
            raise deadline.exceeded() from error

    async def run_async(
        self,
        call: Callable[[], T],
        deadline: Deadline,
        abandoned: Callable[[futures.Future[T]], None] = lambda _: None,
    ) -> T:
        """The same as `run`, for event loops."""
        future = self._pool.submit(_within, deadline, call)
        waiter = asyncio.wrap_future(future)
        done, _ = await asyncio.wait([waiter], timeout=deadline.remaining())
        if not done and not future.cancel():
            waiter.add_done_callback(_retrieve)
            abandoned(future)
        if not done:
            raise deadline.exceeded()
        return waiter.result()

    def stop(self) -> None:
        """Ends the threads, each after the request that it runs."""
        self._pool.shutdown(wait=False)


def _retrieve(waiter: asyncio.Future[T]) -> None:
    """Looks at the error of a request whose client has its answer; asyncio would log it."""
    if not waiter.cancelled():
        waiter.exception()


def _within(deadline: Deadline, call: Callable[[], T]) -> T:
    token = _DEADLINE.set(deadline)
    try:
        if not deadline.remaining():
            raise deadline.exceeded()
        return call()
    finally:
        _DEADLINE.reset(token)
