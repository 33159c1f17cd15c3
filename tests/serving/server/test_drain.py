"""Stopping: running requests are answered, new ones rejected, and the program always ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from tensorflow_serving.apis import predict_pb2

from keras_robust.cli import serve
from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.client.rest_client import RestClient
from keras_robust.serving.server import version_manager
from keras_robust.serving.server.servable import Servable
from keras_robust.serving.server.server import Limits, Server
from keras_robust.serving.server.version_manager import VersionManager
from keras_robust.serving.status import ServingError

IMAGES = np.full((2, 8, 8, 1), 0.25, np.float32)


class Gate:
    """Holds requests inside the server until it is opened."""

    def __init__(self, monkeypatch):
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        original = Servable.run

        def run(servable, signature, inputs):
            self.entered.release()
            assert self.open.wait(60)
            return original(servable, signature, inputs)

        monkeypatch.setattr(Servable, "run", run)


def start_requests(server, results, each=1):
    """Sends requests from threads, `each` times over gRPC and over REST; results by name."""
    client = Client(server.grpc_address, timeout=60)
    clients = {"grpc": client, "rest": RestClient(server.rest_address, timeout=60)}

    def ask(name, client):
        try:
            results[name] = client.predict("digits", IMAGES)["classes"].shape
        except ServingError as error:
            results[name] = error

    threads = [
        threading.Thread(target=ask, args=(f"{kind} {index}", client))
        for kind, client in clients.items()
        for index in range(each)
    ]
    for thread in threads:
        thread.start()
    return threads


def refuses(call):
    try:
        call()
    except ServingError as error:
        assert error.code.name == "UNAVAILABLE"
        return True
    return False


def test_a_stop_lets_requests_end_and_refuses_new_ones(cold_model, monkeypatch, wait_for):
    """Also queued requests: one of each interface runs, two wait."""
    limits = Limits(threads=1, drain_seconds=60)
    server = Server("digits", cold_model, port=0, rest_api_port=0, limits=limits)
    server.start()
    kept = http.client.HTTPConnection(server.rest_address, timeout=10)
    kept.request("GET", "/v1/models/digits")
    assert kept.getresponse().read()
    grpc_address, rest_address = server.grpc_address, server.rest_address
    gate, results = Gate(monkeypatch), {}
    threads = start_requests(server, results, each=3)
    assert all(gate.entered.acquire(timeout=60) for _ in range(2))
    wait_for(lambda: server._rest.places.busy == 3)
    wait_for(lambda: server._grpc._server._state.active_rpc_count == 3)
    stopped = []
    stopper = threading.Thread(target=lambda: stopped.append(server.stop()))
    stopper.start()
    wait_for(lambda: server._rest.places.draining)
    rest = RestClient(rest_address, timeout=5)
    wait_for(lambda: refuses(lambda: rest.status("digits")))
    with Client(grpc_address, timeout=5) as client:
        wait_for(lambda: refuses(lambda: client.status("digits")))
    kept.request("POST", "/v1/models/digits:predict", b"{}")  # on a connection from before
    refusal = kept.getresponse()
    assert (refusal.status, refusal.headers["Connection"]) == (503, "close")
    assert "shutting down" in json.loads(refusal.read())["error"]
    assert stopper.is_alive() and not results
    gate.open.set()
    stopper.join(60)
    for thread in threads:
        thread.join()
    assert results == {f"{kind} {i}": (2,) for kind in ("grpc", "rest") for i in range(3)}
    assert stopped == [True]
    assert server.version is None
    assert server.stop()  # twice does nothing


def test_connections_that_were_made_but_not_accepted_are_answered(cold_model):
    server = Server("digits", cold_model, port=0, rest_api_port=0)
    server.start()
    go = threading.Event()
    server._rest._loop.call_soon_threadsafe(
        go.wait
    )  # the system completes connections all the same
    connection = http.client.HTTPConnection(server.rest_address, timeout=10)
    connection.request("GET", "/v1/models/digits")
    stopped = []
    stopper = threading.Thread(target=lambda: stopped.append(server.stop()))
    stopper.start()
    go.set()
    assert connection.getresponse().status in (200, 503)
    stopper.join()
    assert stopped == [True]


def test_a_stop_does_not_wait_for_ever(cold_model, monkeypatch, wait_for):
    limits = Limits(drain_seconds=0.1)
    server = Server("digits", cold_model, port=0, rest_api_port=0, limits=limits)
    server.start()
    gate, results = Gate(monkeypatch), {}
    threads = start_requests(server, results)
    assert all(gate.entered.acquire(timeout=60) for _ in threads)
    assert not server.stop()
    wait_for(lambda: "grpc 0" in results)
    assert isinstance(results["grpc 0"], ServingError)
    gate.open.set()
    for thread in threads:
        thread.join()


def test_a_request_that_its_client_gave_up_is_waited_for(cold_model, monkeypatch):
    """gRPC cancels it, but its thread still uses the model."""
    server = Server("digits", cold_model, port=0, rest_api_port=0)
    server.start()
    gate, request = Gate(monkeypatch), predict_pb2.PredictRequest()
    request.model_spec.name = "digits"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(IMAGES))
    with grpc.insecure_channel(server.grpc_address) as channel:
        predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        asked = predict.future(request.SerializeToString(), timeout=60)
        assert gate.entered.acquire(timeout=60)
        asked.cancel()
        threading.Timer(0.3, gate.open.set).start()
        assert server.stop()
    assert gate.open.is_set()


def test_a_stop_does_not_wait_for_a_load(tmp_path, monkeypatch, wait_for):
    monkeypatch.setattr(version_manager, "STOP_SECONDS", 0.1)
    loading, go, closed = threading.Event(), threading.Event(), threading.Event()

    class Slow:
        version = 1
        close = closed.set

    def load(path, version):
        loading.set()
        assert go.wait(20)
        return Slow()

    served = VersionManager("digits", tmp_path, load, poll_wait_seconds=0.01)
    served.start()
    (tmp_path / "1").mkdir()
    assert loading.wait(20)
    assert not served.stop()
    go.set()
    assert closed.wait(20)  # a version that arrives too late is given back
    assert served.current is None
    assert served.stop()


# --- the program --------------------------------------------------------------------------------


def endless_request(value):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "endless"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([value], tf.float32))
    return request.SerializeToString()


def test_the_program_says_that_requests_are_left(monkeypatch, caplog):
    values, ends = flags.FlagValues(), []
    serve.define_flags(values)
    values(["serve", "--model_name=digits", "--model_base_path=x"])
    monkeypatch.setattr(serve, "serve", lambda *_: False)
    monkeypatch.setattr(serve, "log_to_stderr", lambda: None)
    monkeypatch.setattr(serve.signal, "signal", lambda *_: None)
    monkeypatch.setattr(serve.os, "_exit", ends.append)
    serve.run(values)
    assert ends == [1]
    assert "took longer than --drain_seconds" in caplog.text


@pytest.mark.slow
def test_the_program_ends_though_a_request_runs_for_ever(endless_model, wait_for):
    command = [sys.executable, "-m", "serving.serve", "--model_name=endless", "--port=0"]
    command += [f"--model_base_path={endless_model}", "--rest_api_port=0", "--drain_seconds=0.5"]
    command += ["--threads=1", "--queue=1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=dict(os.environ), **pipes)
    try:
        address = re.search(r"gRPC (\S+),", process.stdout.readline())[1]
        with grpc.insecure_channel(address) as channel:
            predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            assert predict(endless_request(-1.0), timeout=60)
            running, waiting = [predict.future(endless_request(1.0), timeout=60) for _ in range(2)]

            def full():
                asked = predict.future(endless_request(-1.0), timeout=1)
                return asked.code().name == "RESOURCE_EXHAUSTED"

            wait_for(full)
            process.send_signal(signal.SIGTERM)
            err = process.communicate(timeout=60)[1]  # raises when it does not end
            assert running.code().name in ("UNAVAILABLE", "CANCELLED")
            assert waiting.code().name in ("UNAVAILABLE", "CANCELLED")
    finally:
        process.kill()
    assert process.returncode == 1
    assert "took longer than --drain_seconds" in err
