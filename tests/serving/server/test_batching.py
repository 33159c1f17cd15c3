"""Batching across requests: the same answers, each signature apart, errors of one's own."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from absl import flags

from keras_robust.cli import serve
from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.client.rest_client import RestClient
from keras_robust.serving.server.batching import Batcher, Batching
from keras_robust.serving.server.deadline import Deadline
from keras_robust.serving.server.server import Limits, Server
from keras_robust.serving.status import Code, ServingError

LONG = Batching(max_batch_size=8, delay_ms=10_000)


class Doubled:
    """A model that doubles its input, rejects negative numbers, and remembers its batches."""

    def __init__(self):
        self.batches, self.go = [], threading.Event()
        self.go.set()

    def __call__(self, arrays, deadline):
        self.batches.append(arrays[0][:, 0].tolist())
        assert self.go.wait(60)
        if (arrays[0] < 0).any():
            raise ServingError(Code.INVALID_ARGUMENT, f"negative: {arrays[0].min():g}")
        return [2 * arrays[0], arrays[0].sum(axis=1)]


def ask(batcher, *requests, deadlines=()):
    """Runs requests in a thread each; their outputs or errors, in order."""
    answers = [None] * len(requests)

    def run(index):
        try:
            array = np.array(requests[index], float)
            deadline = deadlines[index] if deadlines else None
            answers[index] = [output.tolist() for output in batcher.run([array], deadline)]
        except ServingError as error:
            answers[index] = error

    threads = [threading.Thread(target=run, args=[index]) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    return lambda: [thread.join(60) for thread in threads] and answers


def test_requests_that_wait_share_a_run_and_get_their_own_rows():
    model = Doubled()
    answers = ask(Batcher(model, LONG), [[1]], [[2], [3]], [[4]], [[5], [6], [7], [8]])()
    assert answers[0] == [[[2]], [1]]
    assert answers[1] == [[[4], [6]], [2, 3]]
    assert answers[3] == [[[10], [12], [14], [16]], [5, 6, 7, 8]]
    # Eight rows: full, so nobody waited for ten seconds.
    assert [sorted(batch) for batch in model.batches] == [[1, 2, 3, 4, 5, 6, 7, 8]]


def test_a_request_alone_waits_for_the_delay_and_a_large_one_not_at_all():
    model = Doubled()
    begin = time.monotonic()
    assert ask(Batcher(model, Batching(8, delay_ms=50)), [[1]])() == [[[[2]], [1]]]
    assert time.monotonic() - begin > 0.05
    large = [[number] for number in range(9)]
    assert ask(Batcher(model, LONG), large)()[0][1] == list(range(9))
    assert len(model.batches) == 2


def test_the_next_batch_gathers_while_one_runs(wait_for):
    model = Doubled()
    model.go.clear()
    batcher = Batcher(model, Batching(4, delay_ms=0))
    first = ask(batcher, [[1]])
    wait_for(lambda: model.batches)
    second = ask(batcher, *[[[number]] for number in range(2, 8)])
    wait_for(lambda: len(batcher._waiting) == 6)
    model.go.set()
    assert first() == [[[[2]], [1]]]
    assert [answer[1] for answer in second()] == [[number] for number in range(2, 8)]
    assert [len(batch) for batch in model.batches] == [1, 4, 2]


def test_a_batch_that_is_full_when_another_ends_does_not_wait(wait_for):
    model = Doubled()
    model.go.clear()
    batcher = Batcher(model, Batching(4, delay_ms=10_000))
    first = ask(batcher, *[[[number]] for number in range(4)])
    wait_for(lambda: model.batches)
    rest = ask(batcher, *[[[number]] for number in range(4, 12)])
    wait_for(lambda: len(batcher._waiting) == 8)
    begin = time.monotonic()
    model.go.set()
    assert [answer[1] for answer in first() + rest()] == [[number] for number in range(12)]
    assert time.monotonic() - begin < 9
    assert [len(batch) for batch in model.batches] == [4, 4, 4]


@pytest.mark.parametrize("bad", [{0}, {3}, {6}, {1, 2}, {0, 6}, set(range(8))])
def test_a_bad_request_fails_alone(bad):
    model = Doubled()
    requests = [[[-number - 1 if number in bad else number]] for number in range(8)]
    for number, answer in enumerate(ask(Batcher(model, LONG), *requests)()):
        if number in bad:
            assert (answer.code, str(answer)) == (Code.INVALID_ARGUMENT, f"negative: {-number - 1}")
        else:
            assert answer == [[[2 * number]], [number]]
    # In halves: seven runs at most for one bad request, not nine.
    assert len(model.batches) <= (7 if len(bad) == 1 else 15)


def test_rows_of_another_shape_run_apart():
    model = Doubled()
    answers = ask(Batcher(model, Batching(8, delay_ms=100)), [[1]], [[2, 3]], [[4]], [[5, 6]])()
    assert [answer[0] for answer in answers] == [[[2]], [[4, 6]], [[8]], [[10, 12]]]


def test_a_full_queue_refuses(wait_for):
    model = Doubled()
    model.go.clear()
    batcher = Batcher(model, Batching(8, delay_ms=0, queue=2))
    first = ask(batcher, [[1]])
    wait_for(lambda: model.batches)
    waiting = ask(batcher, [[2]], [[3]])
    wait_for(lambda: len(batcher._waiting) == 2)
    (refused,) = ask(batcher, [[4]])()
    assert refused.code is Code.UNAVAILABLE and "queue" in str(refused)
    model.go.set()
    assert [answer[1] for answer in first() + waiting()] == [[1], [2], [3]]


def test_a_request_past_its_deadline_does_not_run(wait_for):
    model = Doubled()
    model.go.clear()
    batcher = Batcher(model, Batching(8, delay_ms=0))
    first = ask(batcher, [[1]])
    wait_for(lambda: model.batches)
    waiting = ask(batcher, [[2]], [[3]], deadlines=[Deadline(0.01), Deadline(60)])
    wait_for(lambda: len(batcher._waiting) == 2)
    time.sleep(0.02)
    model.go.set()
    expired, answered = waiting()
    assert expired.code is Code.DEADLINE_EXCEEDED and answered[1] == [3]
    assert first() and [3] in model.batches


def test_a_fault_of_the_model_fails_all_and_the_next_batch_runs():
    def broken(arrays, deadline):
        raise KeyError("a fault")

    batcher, faults = Batcher(broken, Batching(2, delay_ms=1000)), []

    def run():
        try:
            batcher.run([np.zeros((1, 1))], None)
        except KeyError as error:
            faults.append(error)

    for _ in range(2):
        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(faults) == 4


def test_outputs_of_other_rows_are_a_fault():
    batcher = Batcher(lambda arrays, deadline: [np.zeros(1)], Batching(2, delay_ms=1000))
    faults = []

    def run():
        try:
            batcher.run([np.zeros((1, 1))], None)
        except RuntimeError as error:
            faults.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(faults) == 2 and all("other rows" in fault for fault in faults)


@pytest.mark.parametrize(
    "wrong", [{"max_batch_size": 1}, {"delay_ms": -1}, {"queue": 0}, {"parallel": 0}]
)
def test_numbers_out_of_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Batching(**wrong)


def test_the_flags_turn_it_on():
    values = flags.FlagValues()
    serve.define_flags(values)
    values(["serve"])
    assert serve._batching(values) is None
    values.max_batch_size, values.batch_timeout_in_ms, values.batch_queue = 16, 2.5, 7
    assert serve._batching(values) == Batching(max_batch_size=16, delay_ms=2.5, queue=7)


# --- the server ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batched(cold_model):
    limits = Limits(threads=16)
    batching = Batching(max_batch_size=8, delay_ms=100)
    with Server(
        "digits", cold_model, port=0, rest_api_port=0, limits=limits, batching=batching
    ) as server:
        yield server


def together(calls):
    """The results of functions that run at the same time, each in a thread."""
    results = [None] * len(calls)
    gate = threading.Barrier(len(calls))

    def run(index):
        gate.wait()
        try:
            results[index] = calls[index]()
        except ServingError as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=[index]) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def sizes(server, monkeypatch):
    """The sizes of the batches that each signature runs, as a list that grows."""
    found = []
    for name, batcher in server._versions._current.servable._batchers.items():

        def counted(arrays, deadline, name=name, call=batcher._call):
            found.append((name, len(arrays[0])))
            return call(arrays, deadline)

        monkeypatch.setattr(batcher, "_call", counted)
    return found


def test_answers_are_those_of_requests_by_themselves(batched, embedded, random_images, monkeypatch):
    """Over both interfaces, of two signatures at the same time; equal up to rounding."""
    images, found = random_images(12), sizes(batched, monkeypatch)
    interfaces = {
        one: (Client(one.grpc_address, 60), RestClient(one.rest_address, 60))
        for one in (batched, embedded)
    }

    def call(server, index):
        client, signature = interfaces[server][index % 2], ["detect", "serving_default"][index // 6]
        return lambda: client.predict("digits", images[index : index + 1], signature)

    together_ = together([call(batched, index) for index in range(12)])
    for index, answer in enumerate(together_):
        alone = call(embedded, index)()
        assert set(answer) == set(alone)
        for name, values in alone.items():
            np.testing.assert_allclose(answer[name], values, rtol=0, atol=1e-6)
    assert {name for name, _ in found} == {"detect", "serving_default"}
    assert sum(size for _, size in found) == 12 and len(found) < 12


def test_a_bad_image_fails_its_own_request(batched, random_images, monkeypatch):
    found = sizes(batched, monkeypatch)
    images = random_images(6)
    images[2, 3, 3, 0] = np.nan
    images[4, 0, 0, 0] = 2.0
    clients = [Client(batched.grpc_address, 60), RestClient(batched.rest_address, 60)]
    answers = together(
        [
            lambda index=index: clients[index % 2].predict("digits", images[index : index + 1])
            for index in range(6)
        ]
    )
    for index, answer in enumerate(answers):
        if index in (2, 4):
            assert answer.code is Code.INVALID_ARGUMENT
            assert ("NaN" if index == 2 else "must lie in [0, 1]") in str(answer)
        else:
            assert answer["classes"].shape == (1,)
    assert max(size for _, size in found) > 1


def test_a_bad_file_fails_its_own_request(batched, served):
    client = Client(batched.grpc_address, 60)
    contents = [*served.files(3), b"junk"]
    answers = together(
        [lambda c=c: client.predict("digits", [c], "detect_bytes") for c in contents]
    )
    assert [isinstance(answer, ServingError) for answer in answers] == [False] * 3 + [True]
    assert "PNG or JPEG" in str(answers[3])
