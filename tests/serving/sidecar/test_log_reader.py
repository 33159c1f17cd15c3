"""A log of requests, read once or while it grows and is replaced."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from keras_robust.serving.metrics.request_log import RequestLog
from keras_robust.serving.metrics.request_record import RequestRecord
from keras_robust.serving.sidecar import log_reader
from keras_robust.serving.sidecar.log_reader import LogReader


def record(number):
    one = RequestRecord("grpc", model="digits", signature="detect", images=number)
    one.version, one.outputs = 1, {"detection_score": np.ones(2), "is_adversarial": np.ones(2) > 0}
    return one


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A reader of a log, and the numbers that it has read."""
    monkeypatch.setattr(log_reader, "POLL_SECONDS", 0.01)
    found = []
    take = lambda one: found.append(one.images)  # noqa: E731
    return LogReader(tmp_path / "log", take, CollectorRegistry()), found


def test_a_log_is_read_once_with_the_file_before(reader):
    one, found = reader
    log = RequestLog(one.path, max_mb=3 * 270 / 2**20)
    for number in range(5):
        log.write(record(number))
    with one.path.open("ab") as file:
        file.write(b'{"a line": "of another program"}\n\n{"cut off')
    one.read_all()
    assert found == sorted(found) and found[-1] == 4 and len(found) > 2
    assert (one.read, one.malformed) == (len(found), 2)
    with pytest.raises(FileNotFoundError):
        LogReader("/nowhere", found.append, CollectorRegistry()).read_all()


def test_a_log_is_followed_as_it_grows_and_is_replaced(reader, wait_for):
    one, found = reader
    stop = threading.Event()
    thread = threading.Thread(target=one.follow, args=(stop,))
    thread.start()
    try:
        log = RequestLog(one.path, max_mb=5 * 270 / 2**20)  # it comes later than its reader
        for number in range(12):
            log.write(record(number))
            wait_for(lambda number=number: found[-1:] == [number])
        line = one.path.read_bytes().splitlines(keepends=True)[0]
        with one.path.open("ab") as file:
            file.write(line[:20])
            file.flush()
            count = len(found)
            file.write(line[20:])
        wait_for(lambda: len(found) == count + 1)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive() and one.malformed == 0
    assert found[:12] == list(range(12))


def test_an_endless_line_takes_no_memory(reader, monkeypatch):
    monkeypatch.setattr(log_reader, "MAX_LINE", 2**20)
    one, found = reader
    one.path.write_bytes(b"x" * 2**22)
    one.read_all()
    assert not found and one.malformed >= 1 and len(one._part) <= 2**20
