"""Batching across requests: one run of the model for those that wait at the same time."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from keras_robust.core.validation import check_integer, check_number
from keras_robust.serving.server.deadline import Deadline
from keras_robust.serving.status import Code, ServingError

Arrays = Sequence[np.ndarray]
# Runs the model on the inputs of a batch, until a deadline.
Call = Callable[[Arrays, Deadline | None], Arrays]


@dataclasses.dataclass(frozen=True)
class Batching:
    """How requests are joined to batches.

    Args:
        max_batch_size: most rows of a batch. A request with as many or more runs alone.
        delay_ms: how long the first request of a batch waits for others, in milliseconds.
        queue: requests of a signature that wait for a batch; further ones get UNAVAILABLE.
        parallel: batches of a signature that run at the same time.

    Raises:
        ValueError: a number out of range.
    """

    max_batch_size: int = 32
    delay_ms: float = 1.0
    queue: int = 128
    parallel: int = 1

    def __post_init__(self) -> None:
        check_integer("max_batch_size", self.max_batch_size, 2)
        check_number("delay_ms", self.delay_ms, 0, 10_000)
        check_integer("queue", self.queue, 1)
        check_integer("parallel", self.parallel, 1)


class Batcher:
    """Joins the requests of a signature to batches.

    There is no thread of its own. The first request that waits gathers others for a while, runs
    the batch in its thread, and hands the next batch to the first request that waits then. So the
    threads of the requests are taken until their batch ends, as without batching.

    Args:
        call: runs a batch: arrays `[rows, ...]` to arrays `[rows, ...]`.
        batching: sizes and times.
    """

    def __init__(self, call: Call, batching: Batching) -> None:
        self._call = call
        self._batching = batching
        self._lock = threading.Lock()
        self._waiting: deque[_Request] = deque()
        self._gathering: _Request | None = None
        self._running = 0

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a batch."""
        return len(self._waiting)

    def run(self, arrays: Arrays, deadline: Deadline | None) -> Arrays:
        """Runs a request, with others if there are any.

        Args:
            arrays: its inputs, `[rows, ...]` each.
            deadline: its deadline; it does not begin afterwards.

        Returns:
            Its outputs.

        Raises:
            ServingError: UNAVAILABLE, the queue is full; DEADLINE_EXCEEDED; or its own error.
        """
        rows = set(map(len, arrays))
        if len(rows) > 1 or rows.pop() >= self._batching.max_batch_size:
            return self._call(arrays, deadline)
        request = _Request(arrays, deadline)
        if not self._join(request):
            request.turn.acquire()
        if not request.done:
            self._lead(request)
        if request.error is not None:
            raise request.error
        return request.outputs

    def _join(self, request: _Request) -> bool:
        """Enters the queue; returns whether the request gathers the next batch."""
        with self._lock:
            if len(self._waiting) >= self._batching.queue:
                raise ServingError(
                    Code.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; "
                    f"{len(self._waiting)} requests are waiting. Try again later.",
                )
            self._waiting.append(request)
            if self._gathering is None and self._running < self._batching.parallel:
                self._gathering = request
                return True
            gathering = self._gathering
            if gathering is not None and self._rows() >= self._batching.max_batch_size:
                gathering.full.set()
        return False

    def _rows(self) -> int:
        return sum(request.rows for request in self._waiting)

    def _lead(self, leader: _Request) -> None:
        """Gathers a batch whose first request is the leader, and runs it."""
        left = leader.joined + self._batching.delay_ms / 1000 - time.monotonic()
        if left > 0:
            leader.full.wait(left)
        with self._lock:
            batch = self._take()
            self._gathering = None
            self._running += 1
            following = self._next()
        _wake(following)
        try:
            self._answer(batch)
        except BaseException as error:
            for request in batch:
                if not request.outputs:
                    request.error = request.error or error
            raise
        finally:
            with self._lock:
                self._running -= 1
                following = self._next()
            _wake(following)
            for request in batch:
                request.done = True
                if request is not leader:
                    request.turn.release()

    def _take(self) -> list[_Request]:
        """The requests at the head of the queue that fit in a batch."""
        batch = [self._waiting.popleft()]
        rows = batch[0].rows
        while self._waiting and self._waiting[0].shapes == batch[0].shapes:
            rows += self._waiting[0].rows
            if rows > self._batching.max_batch_size:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _next(self) -> _Request | None:
        """Chooses who gathers the next batch, if one may run and somebody waits."""
        free = self._gathering is None and self._running < self._batching.parallel
        if not free or not self._waiting:
            return None
        self._gathering = self._waiting[0]
        if self._rows() >= self._batching.max_batch_size:
            self._gathering.full.set()
        return self._gathering

    def _answer(self, batch: Sequence[_Request]) -> None:
        """Runs requests together; if that fails, in halves, so that a bad one fails alone."""
        batch = [request for request in batch if request.begins()]
        if not batch:
            return
        whole = [np.concatenate(parts) for parts in zip(*(r.arrays for r in batch), strict=True)]
        try:
            outputs = self._call(whole, _latest(batch))
        except ServingError as error:
            if len(batch) == 1 or error.code is Code.DEADLINE_EXCEEDED:
                for request in batch:
                    request.error = error
                return
            half = len(batch) // 2
            self._answer(batch[:half])
            self._answer(batch[half:])
            return
        if len(batch) > 1 and any(len(output) != len(whole[0]) for output in outputs):
            raise RuntimeError("The outputs of the model have other rows than its inputs.")
        start = 0
        for request in batch:
            end = start + request.rows
            request.outputs = [output[start:end] for output in outputs]
            start = end


class _Request:
    """A request that waits for its batch, or gathers it."""

    def __init__(self, arrays: Arrays, deadline: Deadline | None) -> None:
        self.arrays = arrays
        self.deadline = deadline
        self.rows = len(arrays[0])
        self.shapes = [array.shape[1:] for array in arrays]
        self.joined = time.monotonic()
        self.turn = threading.Lock()  # free when the request is answered, or is to gather a batch
        self.turn.acquire()
        self.full = threading.Event()
        self.done = False
        self.outputs: Arrays = ()
        self.error: BaseException | None = None

    def begins(self) -> bool:
        """Whether there is time left; fails the request otherwise."""
        if self.deadline is not None and not self.deadline.remaining():
            self.error = self.deadline.exceeded()
        return self.error is None


def _wake(request: _Request | None) -> None:
    if request is not None:
        request.turn.release()


def _latest(batch: Sequence[_Request]) -> Deadline | None:
    deadlines = [request.deadline for request in batch]
    return max(deadlines, key=lambda one: math.inf if one is None else one.remaining())
