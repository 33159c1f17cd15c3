"""Deadlines of requests: the answer comes in time, and work that goes on keeps its place."""

from __future__ import annotations

import http.client
import json
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.client.rest_client import RestClient
from keras_robust.serving.server.deadline import Workers, current_deadline
from keras_robust.serving.server.servable import Servable
from keras_robust.serving.server.server import Limits, Server
from keras_robust.serving.status import Code, ServingError

IMAGES = np.zeros((1, 8, 8, 1), np.float32)
SHORT = Limits(threads=1, rest_timeout_seconds=0.3, grpc_timeout_seconds=0.3, drain_seconds=0.1)
LONG = Limits(threads=1)


class Gate:
    """Holds the requests in the model until it is opened."""

    def __init__(self, monkeypatch):
        self.deadlines, self.open, original = [], threading.Event(), Servable.run

        def run(servable, signature, inputs):
            self.deadlines.append(current_deadline())
            assert self.open.wait(60)
            return original(servable, signature, inputs)

        monkeypatch.setattr(Servable, "run", run)


@pytest.fixture
def gate(monkeypatch):
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


@pytest.fixture(scope="module")
def short(cold_model):
    with Server("digits", cold_model, port=0, rest_api_port=0, limits=SHORT) as server:
        yield server


@pytest.fixture(scope="module")
def long(cold_model):
    with Server("digits", cold_model, port=0, rest_api_port=0, limits=LONG) as server:
        yield server


def clients(server):
    return {"grpc": Client(server.grpc_address, 60), "rest": RestClient(server.rest_address, 60)}


def running(server):
    """The requests that have a thread, or wait for one, over gRPC and over REST."""
    return server._grpc._running._value, server._rest.places.busy


@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_the_answer_comes_at_the_deadline_and_the_thread_stays_taken(short, gate, wait_for, kind):
    client = clients(short)[kind]

    def exceeds():
        with pytest.raises(ServingError, match=r"not answered within 0\.3 s") as caught:
            client.predict("digits", IMAGES)
        assert caught.value.code is Code.DEADLINE_EXCEEDED

    while not gate.deadlines:  # a machine that is busy may not have begun
        exceeds()
    exceeds()  # waits for the thread of the one that has
    assert len(gate.deadlines) == 1
    taken = {"grpc": (1, 0), "rest": (0, 1)}[kind]
    wait_for(lambda: running(short) == taken)  # the one that runs on
    gate.open.set()
    wait_for(lambda: running(short) == (0, 0))

    def answered():
        try:
            return client.predict("digits", IMAGES)["classes"].shape == (1,)
        except ServingError as error:  # on a machine that is busy
            assert error.code is Code.DEADLINE_EXCEEDED
            return False

    wait_for(answered)


def test_the_status_of_http_is_504(short, gate, wait_for):
    connection = http.client.HTTPConnection(short.rest_address, timeout=60)
    connection.request("POST", "/v1/models/digits:predict", json.dumps({"inputs": [1]}))
    assert connection.getresponse().read()
    body = json.dumps({"inputs": IMAGES.tolist()})
    connection.request("POST", "/v1/models/digits:predict", body)
    response = connection.getresponse()
    assert response.status == 504
    assert "not answered within 0.3 s" in json.loads(response.read())["error"]
    connection.request("GET", "/v1/models/nobody")  # the connection stays in use
    assert connection.getresponse().status in (404, 504)
    connection.close()
    gate.open.set()
    wait_for(lambda: running(short) == (0, 0))


def test_a_stop_tells_of_work_that_goes_on_after_its_answer(cold_model, gate):
    for kind in ("grpc", "rest"):
        server = Server("digits", cold_model, port=0, rest_api_port=0, limits=SHORT)
        server.start()
        client, before = clients(server)[kind], len(gate.deadlines)
        while len(gate.deadlines) == before:
            with pytest.raises(ServingError, match="not answered within"):
                client.predict("digits", IMAGES)
        assert not server.stop()


@pytest.mark.parametrize(("client_seconds", "expected"), [(20.0, 20.0), (1e5, 30.0)])
def test_the_earlier_deadline_counts_over_grpc(long, gate, client_seconds, expected):
    gate.open.set()
    with Client(long.grpc_address, client_seconds) as client:
        client.predict("digits", IMAGES)
    assert expected - 10 < gate.deadlines[0].seconds <= expected


def test_a_request_whose_client_has_given_up_does_not_run(long, gate, wait_for):
    patient, hurried = Client(long.grpc_address, 60), Client(long.grpc_address, 0.2)
    answers = []
    first = threading.Thread(target=lambda: answers.append(patient.predict("digits", IMAGES)))
    first.start()
    wait_for(lambda: gate.deadlines)
    with pytest.raises(ServingError) as caught:
        hurried.predict("digits", IMAGES)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    gate.open.set()
    first.join()
    patient.predict("digits", IMAGES)  # comes after the one that waited
    assert len(answers) == 1 and len(gate.deadlines) == 2
    patient.close()
    hurried.close()


def test_tensorflow_ends_a_run_after_its_deadline(endless_model, wait_for):
    """The only thread is free again, though the model never returns."""
    limits = Limits(threads=1, grpc_timeout_seconds=0.5)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "endless"

    def code(value):
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([value], tf.float32))
        return predict.future(request.SerializeToString(), timeout=60).code().name

    server = Server("endless", endless_model, port=0, rest_api_port=0, limits=limits)
    with server, grpc.insecure_channel(server.grpc_address) as channel:
        predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        assert code(1.0) == "DEADLINE_EXCEEDED"
        wait_for(lambda: code(-1.0) == "OK")


# --- the threads --------------------------------------------------------------------------------


def test_workers_return_and_raise_what_the_function_does():
    workers = Workers(2, "test", 60)
    assert workers.run(lambda: 3, workers.deadline()) == 3
    with pytest.raises(TimeoutError, match="its own"):
        workers.run(lambda: (_ for _ in ()).throw(TimeoutError("its own")), workers.deadline())
    assert workers.run(current_deadline, workers.deadline(5)).seconds == 5
    assert current_deadline() is None
    workers.stop()


def test_work_that_has_not_begun_is_dropped_and_other_work_is_handed_over():
    workers, go, ran, abandoned = Workers(1, "test", 0.1), threading.Event(), [], []
    while not abandoned:
        with pytest.raises(ServingError):
            workers.run(lambda: go.wait(60), workers.deadline(), abandoned.append)
    with pytest.raises(ServingError):
        workers.run(lambda: ran.append(1), workers.deadline(), abandoned.append)
    go.set()
    assert abandoned[0].result(60) and len(abandoned) == 1
    workers.stop()
    time.sleep(0.05)
    assert not ran


@pytest.mark.parametrize("name", ["rest_timeout_seconds", "grpc_timeout_seconds", "max_megapixels"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_of_time_and_pixels(name, value):
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})
