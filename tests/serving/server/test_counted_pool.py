"""The number of calls that wait for a thread."""

from __future__ import annotations

import threading

import pytest

from keras_robust.serving.server.counted_pool import CountedPool


def test_it_counts_those_that_wait_and_none_twice(wait_for):
    pool, go = CountedPool(2, "test"), threading.Event()
    calls = [pool.submit(go.wait) for _ in range(5)]
    wait_for(lambda: pool.waiting == 3)
    assert calls[4].cancel() and not calls[0].cancel()
    assert pool.waiting == 2
    go.set()
    assert all(call.result() for call in calls[:4]) and pool.waiting == 0
    pool.shutdown()
    with pytest.raises(RuntimeError):
        pool.submit(go.wait)
    assert pool.waiting == 0


def test_errors_of_calls_are_kept():
    pool = CountedPool(1, "test")
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result()
    assert pool.waiting == 0
    pool.shutdown()
