"""The embedded server as a whole: warm-up, errors of its start, the program."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from keras_robust.cli import serve
from keras_robust.core.quiet_tensorflow import LEVEL
from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.client.rest_client import RestClient
from keras_robust.serving.server.servable import Servable
from keras_robust.serving.server.server import Limits, Server
from keras_robust.serving.status import ServingError

IMAGES = np.full((2, 8, 8, 1), 0.25, np.float32)


def test_warm_up_requests_are_replayed(exported_model, monkeypatch):
    seen = []
    original = Servable.predict

    def predict(self, request):
        seen.append(request.model_spec.signature_name)
        return original(self, request)

    monkeypatch.setattr(Servable, "predict", predict)
    Servable(exported_model / "1", 1, 2**20).close()
    assert set(seen) == {"serving_default", "detect", "serving_bytes", "detect_bytes"}
    monkeypatch.setattr("keras_robust.serving.server.servable.MAX_REQUESTS", len(seen) - 1)
    with pytest.raises(ValueError, match=r"warm-up requests; expected at most"):
        Servable(exported_model / "1", 1, 2**20)
    monkeypatch.setattr(
        "keras_robust.serving.server.servable.read_warmup", lambda path: [_wrong_request()]
    )
    with pytest.raises(ServingError, match="not found"):
        Servable(exported_model / "1", 1, 2**20)


def _wrong_request():
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = "guess"
    return request


def test_served_equals_local(embedded, classifier):
    images = np.random.default_rng(0).random((5, 8, 8, 1), np.float32)
    local = tf.nn.softmax(classifier(images)["logits"]).numpy()
    with Client(embedded.grpc_address) as client:
        served = client.predict("digits", images)["probabilities"]
    over_rest = RestClient(embedded.rest_address).predict("digits", images)["probabilities"]
    np.testing.assert_allclose(served, local, atol=1e-5)
    np.testing.assert_allclose(over_rest, local, atol=1e-5)


# --- errors of the start ------------------------------------------------------------------------


def test_a_port_in_use(cold_model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for ports in ({"port": port, "rest_api_port": 0}, {"port": 0, "rest_api_port": port}):
            server = Server("digits", cold_model, **ports)
            with pytest.raises(OSError, match=rf"127.0.0.1:{port}: .*in use.* Choose another port"):
                server.start()
            with pytest.raises(ValueError, match="not started"):
                print(server.grpc_address)


def test_a_host_that_is_not_of_this_machine(cold_model):
    server = Server("digits", cold_model, port=0, rest_api_port=0, host="192.0.2.1")
    with pytest.raises(OSError, match=r"Cannot listen on 192.0.2.1:0"):
        server.start()


def test_a_base_path_without_a_model(tmp_path):
    (tmp_path / "1").mkdir()
    with pytest.raises(ServingError, match=r"Version 1 of model digits in .* failed to load"):
        Server("digits", tmp_path, port=0, rest_api_port=0).start()
    with pytest.raises(FileNotFoundError, match="is not a directory"):
        Server("digits", tmp_path / "none", port=0, rest_api_port=0).start()


@pytest.mark.parametrize("name", ["", "a/b", "a:predict", "a b", "a?", "a#"])
def test_names_that_cannot_stand_in_a_path(name):
    with pytest.raises(ValueError, match="model_name"):
        Server(name, "exported")


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_message_mb": 0},
        {"max_message_mb": 2048},
        {"threads": 0},
        {"poll_wait_seconds": -1},
        {"drain_seconds": float("nan")},
        {"drain_seconds": float("inf")},
    ],
)
def test_limits_have_to_be_positive(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)


def test_ports_out_of_range():
    with pytest.raises(ValueError, match="port is 65536"):
        Server("digits", "exported", port=65536)


def test_ipv6(cold_model):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with Server("digits", cold_model, port=0, rest_api_port=0, host="::1") as server:
        assert server.rest_address.startswith("[::1]:")
        assert RestClient(server.rest_address).status("digits") == {1: "AVAILABLE"}
        with Client(server.grpc_address) as client:
            assert client.status("digits") == {1: "AVAILABLE"}


# --- the program --------------------------------------------------------------------------------


def parsed(*arguments):
    values = flags.FlagValues()
    serve.define_flags(values)
    values(["serve", *arguments])
    return values


def test_run_says_when_it_waits_for_a_version(tmp_path, capfd):
    stop = threading.Event()
    stop.set()
    values = parsed(
        "--model_name=digits", f"--model_base_path={tmp_path}", "--port=0", "--rest_api_port=0"
    )
    serve.serve(values, stop)
    ready = (
        rf"Serving digits \(no version yet under {tmp_path}\): gRPC 127.0.0.1:\d+, REST http://.*\n"
    )
    assert re.fullmatch(ready, capfd.readouterr().out)


def test_a_typo_in_a_flag_names_the_valid_one():
    with pytest.raises(flags.UnrecognizedFlagError, match="Did you mean: rest_api_port"):
        parsed("--model_name=digits", "--model_base_path=x", "--rest_api_prt=1")
    with pytest.raises(flags.IllegalFlagValueError, match="port"):
        parsed("--model_name=digits", "--model_base_path=x", "--port=70000")


def test_the_program_serves_until_it_is_told_to_stop(exported_model):
    command = [sys.executable, "-m", "serving.serve", "--model_name=digits"]
    command += [f"--model_base_path={exported_model}", "--port=0", "--rest_api_port=0"]
    environment = {name: value for name, value in os.environ.items() if name != LEVEL}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, **pipes)
    try:
        ready = process.stdout.readline()
        found = re.fullmatch(
            r"Serving digits version 1: gRPC 127.0.0.1:(\d+), "
            r"REST http://(127.0.0.1:\d+)/v1/models/digits\n",
            ready,
        )
        assert found, (ready, process.stderr.read())
        assert RestClient(found[2]).predict("digits", IMAGES)["classes"].shape == (2,)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 2 and all("INFO" in line and "digits version 1" in line for line in lines)
