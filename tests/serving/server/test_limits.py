"""Limits of the embedded server on sizes and connections, and junk on both ports."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.client.rest_client import RestClient
from keras_robust.serving.server import http_connection, http_places
from keras_robust.serving.server.server import Limits, Server
from keras_robust.serving.status import ServingError

LIMIT = 2**18
PREDICT = "/v1/models/digits:predict"


@pytest.fixture(scope="module")
def server(cold_model):
    limits = Limits(max_message_mb=0.25, threads=4)
    with Server("digits", cold_model, port=0, rest_api_port=0, limits=limits) as server:
        yield server


@pytest.fixture(autouse=True)
def alive(server):
    yield
    images = np.full((1, 8, 8, 1), 0.5, np.float32)
    with Client(server.grpc_address) as client:
        assert client.predict("digits", images)["classes"].shape == (1,)
    assert RestClient(server.rest_address).predict("digits", images)["classes"].shape == (1,)


def raw(server, *parts, close=False):
    """Sends bytes to the REST port; returns the status and body of the answer."""
    host, port = server.rest_address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
        if close:
            connection.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


def error_of(content):
    body = json.loads(content)
    assert list(body) == ["error"] and "\n" not in body["error"]
    return body["error"]


# --- gRPC ---------------------------------------------------------------------------------------


def test_a_message_too_large(server):
    images = np.zeros((LIMIT // 256 + 1, 8, 8, 1), np.float32)
    with Client(server.grpc_address) as client, pytest.raises(ServingError) as caught:
        client.predict("digits", images)
    assert caught.value.code.name == "RESOURCE_EXHAUSTED"
    with Client(server.grpc_address) as client:
        assert len(client.predict("digits", images[:-8])["classes"]) == len(images) - 8


def test_an_answer_too_large(server):
    """Few bytes in, many out: 1000 images of one value, and 10 probabilities for each."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "digits"
    splat = tf.make_tensor_proto(0.5, tf.float32, shape=[1000, 8, 8, 1])
    request.inputs["images"].CopyFrom(splat)
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert len(stub.Predict(request).outputs["classes"].int64_val) == 1000
        request.inputs["images"].tensor_shape.dim[0].size = 1100
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "declares the shape [1100, 8, 8, 1]" in caught.value.details()


@pytest.mark.parametrize("content", [b"\xff", b"\x0a\xff", bytes(range(256)) * 4])
def test_junk_instead_of_a_message(server, content):
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError) as caught:
            call(content, timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "are not a PredictRequest" in caught.value.details()


@pytest.mark.parametrize(
    "method",
    [
        "PredictionService/Classify",
        "PredictionService/Regress",
        "PredictionService/MultiInference",
        "ModelService/HandleReloadConfigRequest",
    ],
)
def test_other_methods_are_unimplemented(server, method):
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary(f"/tensorflow.serving.{method}")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_http_on_the_grpc_port_and_grpc_on_the_http_port(server):
    with pytest.raises(ServingError, match="does not speak HTTP"):
        RestClient(server.grpc_address).status("digits")
    with Client(server.rest_address, timeout=10) as client, pytest.raises(ServingError) as caught:
        client.status("digits")
    assert caught.value.code.name == "UNAVAILABLE"


def test_a_failure_of_the_server_is_told_without_details(server, monkeypatch, caplog):
    def broken(*_):
        raise KeyError("a secret of the machine")

    monkeypatch.setattr("keras_robust.serving.server.servable.Servable.run", broken)
    images = np.zeros((1, 8, 8, 1), np.float32)
    with Client(server.grpc_address) as client, pytest.raises(ServingError) as over_grpc:
        client.predict("digits", images)
    with pytest.raises(ServingError) as over_rest:
        RestClient(server.rest_address).predict("digits", images)
    monkeypatch.undo()
    for caught in (over_grpc, over_rest):
        assert caught.value.code.name == "INTERNAL"
        assert str(caught.value) == "Internal error; see the server's log."
    assert len(caplog.records) == 2
    assert all("a secret of the machine" in str(record.exc_info) for record in caplog.records)


# --- REST ---------------------------------------------------------------------------------------


def exchange(connection, head):
    """Sends a request without a body; returns the answer's status, headers and body."""
    connection.sendall(head.encode() + b"\r\n\r\n")
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.headers, response.read()


@pytest.mark.parametrize("path", ["/v1/models/digits", "/v1/models/nobody"])
def test_http_1_0_with_keep_alive_is_told_so(server, path):
    """As `ab -k` sends it; without the header the client waits for the end of the connection."""
    host, port = server.rest_address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for value in ("keep-alive", "Keep-Alive"):
            status, headers, _ = exchange(connection, f"GET {path} HTTP/1.0\r\nConnection: {value}")
            assert status == (200 if path.endswith("digits") else 404)
            assert headers["Connection"] == "keep-alive"


@pytest.mark.parametrize(
    "head",
    [
        "GET /v1/models/digits HTTP/1.0",
        "GET /v1/models/digits HTTP/1.0\r\nConnection: close",
        "GET /v1/models/digits HTTP/1.1\r\nHost: h\r\nConnection: close",
        "POST /v1/models/digits:predict HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: x",
        "BREW /v1/models/digits HTTP/1.0\r\nConnection: keep-alive",
    ],
)
def test_the_end_of_a_connection_is_announced_and_comes(server, head):
    host, port = server.rest_address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        _, headers, _ = exchange(connection, head)
        # An answer to HTTP/1.0 ends the connection unless it says otherwise.
        assert headers["Connection"] == ("close" if "HTTP/1.1" in head else None)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def test_a_body_too_large(server):
    body = b'{"instances": [' + b"0," * LIMIT
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    status, content = raw(server, head, body)
    assert status == 413
    assert "expected at most 262144" in error_of(content)
    # Answered before the body is sent, to clients that expect it.
    status, content = raw(server, head[:-2] + b"Expect: 100-continue\r\n\r\n")
    assert status == 413 and "expected at most" in error_of(content)
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: h\r\nContent-Length: {10**17}\r\n\r\n".encode()
    status, content = raw(server, head)
    assert status == 413 and "expected at most" in error_of(content)


def test_an_answer_over_rest_too_large(server):
    body = {"signature_name": "detect", "instances": [[[[0.5]] * 8] * 8] * 650}
    small = json.dumps(body, separators=(",", ":")).encode()
    assert len(small) < LIMIT
    connection = http.client.HTTPConnection(server.rest_address, timeout=10)
    connection.request("POST", PREDICT, small)
    response = connection.getresponse()
    content = response.read()
    assert len(content) < LIMIT and response.status in (200, 429)
    if response.status == 429:
        assert "The answer has" in error_of(content)
    connection.close()


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "1, 2", "٣", "9" * 40, ""])
def test_a_wrong_content_length(server, length):
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
    status, content = raw(server, head.encode(), b"{}")
    assert status == 400
    assert "Content-Length" in error_of(content)


def test_two_content_lengths(server):
    head = (
        b"POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"
        % PREDICT.encode()
    )
    assert raw(server, head)[0] == 400


def test_a_body_that_ends_early(server):
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n".encode()
    status, content = raw(server, head, b'{"instances"', close=True)
    assert status == 400
    assert error_of(content) == "The body ended before its length was reached"


def test_a_body_that_does_not_come(server, monkeypatch):
    monkeypatch.setitem(http_connection.SECONDS, "body", 0.2)
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n".encode()
    for parts in ([head], [head, b"{"]):
        status, content = raw(server, *parts)
        assert status == 408
        assert error_of(content) == "The body of the request did not arrive in time"


def chunked(*chunks):
    """A body in chunks, with its end."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])


CHUNKED = f"POST {PREDICT} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n".encode()


def test_bodies_in_chunks_have_the_same_limits(server, monkeypatch):
    body = json.dumps({"instances": [[[[0.5]] * 8] * 8] * 2}).encode()
    head = CHUNKED + b"\r\n"
    assert raw(server, head, chunked(body[:7], body[7:]))[0] == 200
    status, content = raw(server, head, *[b"8000\r\n" + b" " * 2**15 + b"\r\n"] * 9)
    assert status == 413 and "expected at most 262144" in error_of(content)
    assert raw(server, head, b"zz\r\n")[0] == 400
    status, content = raw(server, head, chunked(body)[:-9], close=True)
    assert status == 400 and "ended before" in error_of(content)
    monkeypatch.setitem(http_connection.SECONDS, "body", 0.1)
    assert raw(server, head, b"2\r\n")[0] == 408


def test_compressed_bodies_are_bounded_by_what_they_unpack_to(server):
    def sent(content, encoding="gzip"):
        fields = f"Content-Encoding: {encoding}\r\nContent-Length: {len(content)}\r\n\r\n"
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: h\r\n{fields}".encode()
        return raw(server, head, content)

    body = json.dumps({"instances": [[[[0.5]] * 8] * 8] * 2}).encode()
    assert sent(gzip.compress(body))[0] == 200
    assert (
        raw(server, CHUNKED + b"Content-Encoding: gzip\r\n\r\n", chunked(gzip.compress(body)))[0]
        == 200
    )
    bomb = gzip.compress(body.ljust(2**24))
    assert len(bomb) < LIMIT
    status, content = sent(bomb)
    assert status == 413 and "expected at most 262144" in error_of(content)
    status, content = sent(b"not gzip")
    assert status == 400 and error_of(content).startswith("The body is malformed: Can not decode")
    assert sent(gzip.compress(body)[:-20])[0] == 400
    status, content = sent(body, "deflate")
    assert status == 415 and "'deflate'; expected gzip" in error_of(content)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("BREW / HTTP/1.1", 501),
        ("TRACE / HTTP/1.1", 501),
        ("PATCH / HTTP/1.1", 404),
        ("GET / HTTP/1.1", 404),
        ("GET /v2/models/digits HTTP/1.1", 404),
        ("GET * HTTP/1.1", 400),
        ("GET /v1/models/digits HTTP/9.9", 505),
        ("GET /v1/models/" + "x" * 70_000 + " HTTP/1.1", 431),
        ("GET two three four five", 400),
        ("one two three four five", 501),
        ("POST /v1/models/digits:classify HTTP/1.1", 501),
        ("POST /v1/models/digits:regress HTTP/1.1", 501),
        ("GET /v1/models/%00%ff%22 HTTP/1.1", 404),
        ("GET /V1/Models/digits HTTP/1.1", 200),
        ("GET http://h:1/v1/models/digits HTTP/1.1", 200),
    ],
)
def test_request_lines(server, request_line, status):
    found, content = raw(server, f"{request_line}\r\nHost: h\r\n\r\n".encode())
    assert found == status
    assert isinstance(json.loads(content), dict)


def test_a_head_request_has_no_body(server):
    connection = http.client.HTTPConnection(server.rest_address, timeout=10)
    for _ in range(2):  # a body would be taken for the next answer
        connection.request("HEAD", "/v1/models/digits")
        response = connection.getresponse()
        assert (response.status, response.read()) == (400, b"")
    connection.close()


def test_connections_are_kept_alive_and_bounded(server, monkeypatch):
    monkeypatch.setattr(server._rest.places, "max_connections", 3)
    monkeypatch.setattr(http_places, "LATE_SECONDS", 60)
    with contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(
                contextlib.closing(http.client.HTTPConnection(server.rest_address, timeout=10))
            )
            for _ in range(3)
        ]
        for connection in held * 2:
            connection.request("GET", "/v1/models/digits")
            assert connection.getresponse().read()
        status, content = raw(server, b"GET /v1/models/digits HTTP/1.1\r\nHost: h\r\n\r\n")
        assert status == 503 and "Too many connections" in error_of(content)
        held[0].request("GET", "/v1/models/digits")
        assert held[0].getresponse().status == 200
    while server._rest.places.connections > 0:
        threading.Event().wait(0.01)
