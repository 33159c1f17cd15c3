"""What clients of TensorFlow Serving's REST interface notice of its HTTP and of its JSON reader.

Runs against any server, as `test_conformance.py`. Rows marked as the embedded server's own are the
differences that `serving/tf_serving/README.md` lists with their reasons.
"""

from __future__ import annotations

import dataclasses
import gzip
import http.client
import json
import os
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from keras_robust.serving.server.http_server import Page, RestServer

MODEL = os.environ.get("SERVING_MODEL", "digits")
STATUS, PREDICT = f"/v1/models/{MODEL}", f"/v1/models/{MODEL}:predict"
ORIGIN = {"Origin": "https://example.org"}


def document(served, **more):
    return json.dumps({"instances": served.images(2).tolist(), **more}).encode()


def first_name_counts(served):
    """A wrong document, but for the first of two equal names."""
    return document(served)[:-1] + b', "instances": 3}'


@dataclasses.dataclass(frozen=True)
class Exchange:
    """A request, and the status of its answer."""

    name: str
    status: int
    method: str = "POST"
    path: str = PREDICT
    body: Callable[[Any], Any] = document
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


def nothing(served):
    return None


EXCHANGES = [
    Exchange(
        "chunked", 200, body=lambda served: iter([document(served)[:99], document(served)[99:]])
    ),
    Exchange(
        "gzip",
        200,
        body=lambda served: gzip.compress(document(served)),
        headers={"Content-Encoding": "gzip"},
    ),
    Exchange("not_gzip", 400, headers={"Content-Encoding": "gzip"}),
    Exchange("preflight", 200, "OPTIONS", body=nothing, headers=ORIGIN),
    Exchange("options", 400, "OPTIONS", body=nothing),
    Exchange("patch", 400, "PATCH"),
    Exchange("patch_elsewhere", 404, "PATCH", "/"),
    Exchange("bytes_after", 200, body=lambda served: document(served) + b"} and \xff"),
    Exchange("two_documents", 200, body=lambda served: document(served) + b'{"instances": 3}'),
    Exchange("first_name", 200, body=first_name_counts),
    Exchange("last_name", 400, body=lambda s: b'{"instances": 3, ' + document(s)[1:]),
    Exchange("query", 404, "GET", STATUS + "?x=1", nothing),
    Exchange("query_of_predict", 400, path=PREDICT + "?x=1"),
    Exchange("escaped_colon", 400, path=PREDICT.replace(":", "%3A")),
    Exchange("utf_16", 400, body=lambda served: document(served).decode().encode("utf-16")),
    Exchange("utf_32", 400, body=lambda served: document(served).decode().encode("utf-32-le")),
    Exchange("byte_order_mark", 400, body=lambda served: b"\xef\xbb\xbf" + document(served)),
    Exchange("other_bytes", 200, body=lambda served: b'{"\xff": "\xfe", ' + document(served)[1:]),
    Exchange("version_0", 404, path=f"/v1/models/{MODEL}/versions/0:predict"),
]
OWN = [
    Exchange("deflate", 415, headers={"Content-Encoding": "deflate"}),
    Exchange("escaped_name", 200, "GET", f"/v1/models/%{ord(MODEL[0]):x}{MODEL[1:]}", nothing),
]


def sent(served, exchange):
    """Status and JSON of the answer."""
    connection = http.client.HTTPConnection(served.rest_address, timeout=30)
    try:
        body = exchange.body(served)
        connection.request(exchange.method, exchange.path, body, exchange.headers)
        response = connection.getresponse()
        content = response.read()
        return response.status, json.loads(content) if content else None
    finally:
        connection.close()


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
def test_as_tensorflow_serving_answers(served, exchange):
    status, answer = sent(served, exchange)
    assert status == exchange.status
    if status == 200 and exchange.method == "POST":
        assert len(answer["predictions"]) == 2


@pytest.mark.parametrize("exchange", OWN, ids=lambda exchange: exchange.name)
def test_the_embedded_server_differs(embedded_only, served, exchange):
    assert sent(served, exchange)[0] == exchange.status


def test_a_head_without_a_host_is_refused(embedded_only, served):
    connection = http.client.HTTPConnection(served.rest_address, timeout=30)
    connection.putrequest("GET", STATUS, skip_host=True)
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 400 and "'Host'" in json.loads(response.read())["error"]
    connection.close()


def test_version_0_over_grpc_is_not_found(served, channel):
    """As `ovmsclient` sends it when no version is named."""
    request = served.request()
    request.model_spec.version.value = 0
    with pytest.raises(grpc.RpcError) as caught:
        prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("cors", [False, True])
def test_pages_of_other_origins_are_let_in_by_a_flag(cors):
    pages = {"/page": lambda: Page("text/plain", b"content")}
    server = RestServer(None, ("127.0.0.1", 0), 1, 1, 2**20, cors=cors, pages=pages)
    server.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        for method, path in (("OPTIONS", PREDICT), ("GET", "/page"), ("GET", "/v1/models")):
            connection.request(method, path, headers=ORIGIN)
            response = connection.getresponse()
            response.read()
            assert response.headers["Access-Control-Allow-Origin"] == ("*" if cors else None)
            assert ("POST" in response.headers.get("Access-Control-Allow-Methods", "")) == cors
    finally:
        connection.close()
        assert server.stop(1.0)
