"""The queue: bounded, with the correct code when it is full, and small in memory."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import predict_pb2

from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.client.rest_client import RestClient
from keras_robust.serving.server import http_places
from keras_robust.serving.server.servable import Servable
from keras_robust.serving.server.server import Limits, Server
from keras_robust.serving.status import ServingError

IMAGES = np.zeros((1, 8, 8, 1), np.float32)
PREDICT = "/v1/models/digits:predict"


@pytest.fixture
def held(monkeypatch):
    """A function that makes requests wait inside the model, and the event that ends it."""
    go, original = threading.Event(), Servable.run

    def slow(self, signature, inputs):
        assert go.wait(60)
        return original(self, signature, inputs)

    yield lambda: monkeypatch.setattr(Servable, "run", slow), go
    go.set()


@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_a_full_queue_refuses_and_answers_all_that_waited(cold_model, held, wait_for, kind):
    limits = Limits(threads=2, queue=3)
    answers, refused, (hold, go) = [], [], held
    with Server("digits", cold_model, port=0, rest_api_port=0, limits=limits) as server:
        clients = {"grpc": Client(server.grpc_address, 60), "rest": RestClient(server.rest_address)}
        client = clients[kind]
        client.timeout = 60
        hold()

        def ask():
            try:
                answers.append(client.predict("digits", IMAGES)["classes"].shape)
            except ServingError as error:
                refused.append((error.code.name, str(error)))

        threads = [threading.Thread(target=ask) for _ in range(9)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(refused) == 4)
        if kind == "rest":  # HTTP's own status, and a connection that the client may not reuse
            connection = http.client.HTTPConnection(server.rest_address, timeout=10)
            connection.request("POST", PREDICT, json.dumps({"inputs": IMAGES.tolist()}))
            response = connection.getresponse()
            assert (response.status, response.headers["Connection"]) == (503, "close")
            assert "Too many requests" in json.loads(response.read())["error"]
            connection.close()
        assert not answers
        go.set()
        for thread in threads:
            thread.join()
        assert answers == [(1,)] * 5
        code = {"grpc": "RESOURCE_EXHAUSTED", "rest": "UNAVAILABLE"}[kind]
        assert [found for found, _ in refused] == [code] * 4
        assert client.predict("digits", IMAGES)  # and there is room again
        clients["grpc"].close()


def test_only_so_many_requests_run_at_a_time(cold_model, monkeypatch):
    lock, running, most = threading.Lock(), [0], [0]
    original = Servable.run

    def counted(self, signature, inputs):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        try:
            threading.Event().wait(0.01)
            return original(self, signature, inputs)
        finally:
            with lock:
                running[0] -= 1

    limits = Limits(threads=2)
    with Server("digits", cold_model, port=0, rest_api_port=0, limits=limits) as server:
        monkeypatch.setattr(Servable, "run", counted)
        for client in (Client(server.grpc_address, 60), RestClient(server.rest_address, 60)):
            most[0] = 0
            threads = [
                threading.Thread(target=client.predict, args=("digits", IMAGES)) for _ in range(12)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert most[0] == 2


@pytest.mark.parametrize("queue", [0, -1, 1.5])
def test_a_queue_has_a_whole_and_positive_length(queue):
    with pytest.raises(ValueError, match=f"queue is {queue}; expected an integer >= 1"):
        Limits(queue=queue)


def test_large_bodies_wait_for_each_other(cold_model, monkeypatch):
    monkeypatch.setattr(http_places, "LARGE_BODY", 10)
    monkeypatch.setattr(http_places, "LARGE_SECONDS", 0.1)
    images = np.zeros((2, 8, 8, 1), np.float32)
    with Server("digits", cold_model, port=0, rest_api_port=0) as server:
        rest = RestClient(server.rest_address)
        assert rest.predict("digits", images)
        with contextlib.ExitStack() as stack:
            for _ in range(http_places.LARGE_BODIES):
                held = server._rest.places.hold(stack)
                asyncio.run_coroutine_threadsafe(held, server._rest._loop).result()
            with pytest.raises(ServingError, match="Too many large requests") as caught:
                rest.predict("digits", images)
            assert caught.value.code.name == "UNAVAILABLE"
            # The body was not read, and must not be taken for the connection's next request.
            connection = http.client.HTTPConnection(server.rest_address, timeout=10)
            connection.request(
                "POST", PREDICT, b"GET /v1/models/digits HTTP/1.1\r\nHost: h\r\n\r\n" + b"0" * 99
            )
            response = connection.getresponse()
            assert (response.status, response.headers["Connection"]) == (503, "close")
            connection.close()


# The gRPC front end alone, with a model that waits for a line on standard input, and stand-ins for
# what would import TensorFlow, which takes seconds.
SERVER = """
import sys, threading
from types import ModuleType, SimpleNamespace

def module(name, **contents):
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(contents)

class Message:
    DESCRIPTOR = SimpleNamespace(name="Message")
    FromString = staticmethod(lambda content: bytes(memoryview(content)))
    SerializeToString = staticmethod(bytes)

messages = SimpleNamespace(
    PredictRequest=Message, GetModelMetadataRequest=Message, GetModelStatusRequest=Message
)
module("keras_robust.serving.server.prediction_service", PredictionService=object)
module("tensorflow_serving")
names = ("get_model_metadata_pb2", "get_model_status_pb2", "predict_pb2")
module("tensorflow_serving.apis", **dict.fromkeys(names, messages))

from keras_robust.serving.server.grpc_service import GrpcServer

assert "tensorflow" not in sys.modules
go = threading.Event()
def wait(request):
    go.wait()
    return Message
api = SimpleNamespace(predict=wait, get_model_metadata=wait, get_model_status=wait)
server = GrpcServer(api, "127.0.0.1:0", threads=1, queue=16, max_message_bytes=2**24)
server.start()
print(server.port, flush=True)
sys.stdin.readline()
go.set()
sys.stdin.readline()
"""


def resident(process):
    with open(f"/proc/{process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the memory from /proc")
def test_requests_that_wait_do_not_hold_their_messages_in_memory(wait_for):
    """All over one connection, which would buffer them all if its windows could grow."""
    size, waiting = 15 * 2**20, 16
    request = predict_pb2.PredictRequest()
    request.inputs["x"].tensor_content = bytes(size)
    pipes = {"stdout": subprocess.PIPE, "stdin": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", SERVER], **pipes)
    try:
        address = f"127.0.0.1:{int(process.stdout.readline())}"
        with grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
            predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            content, before = request.SerializeToString(), resident(process)
            asked = [predict.future(content, timeout=60) for _ in range(1 + waiting)]
            wait_for(lambda: predict.future(b"", timeout=9).code().name == "RESOURCE_EXHAUSTED")
            threading.Event().wait(1.0)
            grown = resident(process) - before
            process.stdin.write("\n")
            process.stdin.flush()
            assert {each.code().name for each in asked} == {"OK"}
    finally:
        process.kill()
        process.wait()
    # The one that runs: as received, joined, parsed, and a margin. All 17 would be 255 MiB.
    assert grown < 6 * size
