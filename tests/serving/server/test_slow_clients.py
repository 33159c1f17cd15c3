"""Clients that send slowly: heads and bodies have deadlines, and give way to other clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import threading

import numpy as np
import pytest

from keras_robust.serving.client.rest_client import RestClient
from keras_robust.serving.server import http_connection, http_places
from keras_robust.serving.server.http_server import Page, RestServer
from keras_robust.serving.server.server import Limits, Server
from keras_robust.serving.status import ServingError

IMAGES = np.full((1, 8, 8, 1), 0.5, np.float32)
PREDICT = "/v1/models/digits:predict"
HEAD = f"POST {PREDICT} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n".encode()


@pytest.fixture(scope="module")
def server(cold_model):
    limits = Limits(threads=2, queue=2)
    with Server("digits", cold_model, port=0, rest_api_port=0, limits=limits) as server:
        yield server


@pytest.fixture
def connect(server):
    """Opens connections that are closed after the test."""
    host, port = server.rest_address.split(":")
    with contextlib.ExitStack() as stack:

        def connect():
            return stack.enter_context(socket.create_connection((host, int(port)), timeout=30))

        yield connect


def trickle(connection, first, seconds=0.05):
    """Sends some bytes, then one at a time until the server answers; returns status and error."""
    answered = threading.Event()

    def send():
        with contextlib.suppress(OSError):
            while not answered.wait(seconds):
                connection.sendall(b"x")

    connection.sendall(first)
    thread = threading.Thread(target=send)
    thread.start()
    try:
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.headers["Connection"] == "close"
        return response.status, json.loads(response.read())["error"]
    finally:
        answered.set()
        thread.join()


@pytest.mark.parametrize("first", [b"GET /", b"GET /v1/models/digits HTTP/1.1\r\nHost: x"])
def test_a_head_has_a_deadline_whatever_arrives(connect, monkeypatch, first):
    monkeypatch.setitem(http_connection.SECONDS, "head", 0.3)
    assert trickle(connect(), first) == (408, "The head of the request did not arrive in time")


def test_the_head_of_a_second_request_has_a_deadline_too(server, connect, monkeypatch):
    monkeypatch.setitem(http_connection.SECONDS, "head", 0.3)
    connection = connect()
    connection.sendall(b"HEAD /v1/models/digits HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"\r\n\r\n" in connection.recv(2**16)
    assert trickle(connection, b"GET /")[0] == 408


def test_a_body_has_a_deadline_whatever_arrives(connect, monkeypatch):
    monkeypatch.setitem(http_connection.SECONDS, "body", 0.3)
    assert trickle(connect(), HEAD) == (408, "The body of the request did not arrive in time")


def test_the_deadline_of_a_body_grows_with_what_has_arrived(connect, monkeypatch):
    monkeypatch.setitem(http_connection.SECONDS, "body", 0.2)
    monkeypatch.setattr(http_connection, "BODY_RATE", 100)
    body = json.dumps({"inputs": IMAGES.tolist()}).encode().ljust(1000)
    connection, pause = connect(), threading.Event()
    connection.sendall(HEAD + body[:400])
    for start in range(400, 1000, 200):
        pause.wait(0.2)
        connection.sendall(body[start : start + 200])
    assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_slow_heads_do_not_shut_others_out(server, connect, monkeypatch, wait_for):
    """All places for connections are taken by clients that send a byte now and then."""
    monkeypatch.setattr(http_places, "LATE_SECONDS", 0.1)
    places, rest = server._rest.places, RestClient(server.rest_address, timeout=30)
    slow = [connect() for _ in range(places.max_connections)]
    for connection in slow:
        connection.sendall(b"G")
    wait_for(lambda: places.connections == places.max_connections)

    def answered():
        for connection in slow:
            with contextlib.suppress(OSError):  # those that have lost their place
                connection.sendall(b"E")
        try:
            return len(rest.predict("digits", IMAGES)["classes"]) == 1
        except ServingError as error:
            assert error.code.name == "UNAVAILABLE"
            return False

    for _ in range(5):
        wait_for(answered, 10)


def test_slow_bodies_do_not_shut_others_out(server, connect, monkeypatch, wait_for):
    """All places for requests are taken by clients that announce a body and do not send it."""
    monkeypatch.setattr(http_places, "LATE_SECONDS", 0.1)
    places, rest = server._rest.places, RestClient(server.rest_address, timeout=30)
    slow = [connect() for _ in range(places.max_requests)]
    for connection in slow:
        connection.sendall(HEAD + b"{")
    wait_for(lambda: places.busy == places.max_requests)

    def answered():
        try:
            return len(rest.predict("digits", IMAGES)["classes"]) == 1
        except ServingError as error:
            assert "Too many requests" in str(error)
            return False

    wait_for(answered, 10)
    # One has lost its place, and is told.
    (refused, *_), _, _ = select.select(slow, [], [], 5)
    response = http.client.HTTPResponse(refused)
    response.begin()
    assert (response.status, response.headers["Connection"]) == (408, "close")


def test_fast_clients_do_not_lose_their_places(server, connect, monkeypatch, wait_for):
    monkeypatch.setattr(http_places, "LATE_SECONDS", 60)
    places = server._rest.places
    wait_for(lambda: not places.busy)
    arriving = [connect() for _ in range(places.max_requests)]
    for connection in arriving:
        connection.sendall(HEAD)
    wait_for(lambda: places.busy == places.max_requests)
    with pytest.raises(ServingError, match="Too many requests"):
        RestClient(server.rest_address, timeout=30).status("digits")
    body = json.dumps({"inputs": IMAGES.tolist()}).encode().ljust(1000)
    for connection in arriving:
        connection.sendall(body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_an_idle_connection_is_closed(connect, monkeypatch):
    monkeypatch.setitem(http_connection.SECONDS, "idle", 0.1)
    assert connect().recv(1) == b""


def test_a_client_that_does_not_read_its_answer_is_dropped(monkeypatch, wait_for):
    """The answer is larger than what the system keeps of it."""
    monkeypatch.setitem(http_connection.SECONDS, "answer", 0.2)
    pages = {"/large": lambda: Page("text/plain", bytes(2**25))}
    server = RestServer(None, ("127.0.0.1", 0), 1, 1, 2**20, pages=pages)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_for(lambda: server.places.connections == 1)
        wait_for(lambda: server.places.connections == 0)
    wait_for(lambda: server.places.busy == 0)  # a turn of the loop later
    assert server.stop(1.0)
