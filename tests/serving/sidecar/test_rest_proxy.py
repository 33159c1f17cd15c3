"""The proxy passes requests and answers unchanged, and reads the detection outputs of answers."""

from __future__ import annotations

import gzip
import http.client
import http.server
import json
import threading
import urllib.request

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from keras_robust.serving.metrics.telemetry import Monitoring, Telemetry
from keras_robust.serving.sidecar import upstream
from keras_robust.serving.sidecar.metrics_server import MetricsServer
from keras_robust.serving.sidecar.rest_proxy import RestProxy

STATUS = {
    "model_version_status": [
        {"version": "4", "state": "AVAILABLE", "status": {"error_code": "OK"}},
        {"version": "5", "state": "LOADING", "status": {"error_code": "OK"}},
    ]
}
METADATA = {"metadata": {"signature_def": {"signature_def": {"detect": {}, "serving_default": {}}}}}
ROW = {"detection_score": 0.5, "is_adversarial": True, "classes": 1}


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers as TensorFlow Serving does."""

    protocol_version = "HTTP/1.1"
    seen: list = []

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.command, self.path, body, dict(self.headers)))
        status, document = self._document(body)
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Kept", "yes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = _answer

    def _document(self, body):
        path = self.path.split("?")[0]
        if path.endswith("/metadata"):
            return 200, METADATA
        if path.endswith(("digits", "stable")):
            return 200, STATUS
        if path == "/redirect":
            return 301, {}
        if "digits" not in path:
            return 404, {"error": "Servable not found"}
        if b"junk" in body:
            return 200, {"predictions": "junk"}
        rows = json.loads(body).get("instances", [])
        return 200, {"predictions": [ROW] * len(rows)}

    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def behind():
    """The address of a model server, and the requests that it has seen."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"127.0.0.1:{server.server_port}", Upstream.seen
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def proxied(behind):
    """Sends a request through a proxy: `(method, path, body, headers)`; its metrics."""
    telemetry = Telemetry(Monitoring())
    proxy = RestProxy(behind[0], ("127.0.0.1", 0), telemetry, 10_000)
    proxy.start()

    def send(method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    send.telemetry, send.port = telemetry, proxy.port
    yield send
    proxy.stop()
    telemetry.close()


def counted(telemetry, name, **labels):
    return sum(
        one.value
        for family in text_string_to_metric_families(telemetry.text().decode())
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    )


def detect(count=2, **more):
    return json.dumps({"signature_name": "detect", "instances": [0] * count, **more}).encode()


def test_requests_and_answers_pass_unchanged(proxied, behind):
    path, body = "/v1/models/digits:predict?a=%2F", detect()
    status, headers, content = proxied("POST", path, body, {"X-Token": "t", "Connection": "close"})
    assert status == 200 and json.loads(content) == {"predictions": [ROW] * 2}
    assert headers["X-Kept"] == "yes" and headers.get_all("Content-Length") == [str(len(content))]
    method, seen, received, sent = next(one for one in behind[1] if one[0] == "POST")
    assert (method, seen, received) == ("POST", path, body)
    assert sent["X-Token"] == "t" and sent["Host"] == behind[0]
    assert proxied("GET", "/v1/models/none")[0] == 404
    assert proxied("PATCH", "/v1/models/digits")[0] == 200
    assert proxied("GET", "/redirect")[0] == 301  # and is not followed


def test_detection_outputs_of_answers_are_counted(proxied):
    for path in ("digits", "digits/versions/4", "digits/labels/stable"):
        assert proxied("POST", f"/v1/models/{path}:predict", detect(3))[0] == 200
    packed = gzip.compress(detect(1))
    headers = {"Content-Encoding": "gzip"}
    assert proxied("POST", "/v1/models/digits:predict", packed, headers)[0] == 200
    telemetry = proxied.telemetry
    labels = {"model": "digits", "version": "4"}
    assert counted(telemetry, "keras_robust_detection_images_total", **labels) == 10
    assert counted(telemetry, "keras_robust_detection_flagged_total", **labels) == 10
    ok = {"method": "Predict", "model": "digits", "signature": "detect", "status": "OK"}
    assert counted(telemetry, "keras_robust_requests_total", **ok) == 4
    version = {"version": "5", "state": "LOADING", "status": "OK", "model": "digits"}
    assert counted(telemetry, "keras_robust_model_version", **version) == 1


def test_what_clients_invent_adds_no_series(proxied):
    proxied("POST", "/v1/models/invented:predict", detect())
    proxied("POST", "/v1/models/digits:predict", detect(signature_name="invented"))
    proxied("POST", "/v1/models/digits:predict", b'{"junk": 1}')
    proxied("GET", "/invented")
    assert b"invented" not in proxied.telemetry.text()
    failed = {"status": "NOT_FOUND", "model": ""}
    assert counted(proxied.telemetry, "keras_robust_requests_total", **failed) == 2


def test_errors_of_the_proxy_are_json(proxied):
    status, _, content = proxied("POST", "/v1/models/digits:predict", b"x" * 20_000)
    assert status == 429 and "expected at most 10000" in json.loads(content)["error"]
    telemetry = Telemetry(Monitoring())
    gone = RestProxy("127.0.0.1:9", ("127.0.0.1", 0), telemetry)
    gone.start()
    try:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{gone.port}/v1/models/a", timeout=10)
    finally:
        gone.stop()
    assert caught.value.code == 503
    assert "127.0.0.1:9 cannot be reached" in json.loads(caught.value.read())["error"]
    assert counted(telemetry, "keras_robust_requests_total", status="UNAVAILABLE") == 1


def test_ports_that_are_taken(proxied):
    with pytest.raises(OSError):
        RestProxy("127.0.0.1:1", ("127.0.0.1", proxied.port), Telemetry(Monitoring())).start()
    with pytest.raises(OSError, match="Choose another port"):
        MetricsServer(proxied.telemetry, "127.0.0.1", proxied.port)


def test_the_metrics_have_a_port_of_their_own(proxied):
    with (
        MetricsServer(proxied.telemetry, "127.0.0.1", 0) as metrics,
        urllib.request.urlopen(f"http://{metrics.address}/metrics", timeout=10) as response,
    ):
        assert b"keras_robust_build_info" in response.read()


def test_a_model_server_that_answers_nonsense_is_survived(behind):
    assert upstream._state("x") is None and upstream._state({"version": "new"}) is None
    assert upstream._signatures({"metadata": 3}) == frozenset()


def test_in_front_of_the_embedded_server(embedded, served, cold_model):
    telemetry = Telemetry(Monitoring(alarm_every=1000), cold_model)
    proxy = RestProxy(embedded.rest_address, ("127.0.0.1", 0), telemetry)
    proxy.start()
    try:
        body = {"signature_name": "detect", "instances": served.images(20).tolist()}
        path = f"http://127.0.0.1:{proxy.port}/v1/models/digits:predict"
        with urllib.request.urlopen(path, json.dumps(body).encode(), timeout=30) as response:
            answers = json.loads(response.read())["predictions"]
    finally:
        proxy.stop()
    flagged = sum(row["is_adversarial"] for row in answers)
    assert counted(telemetry, "keras_robust_detection_images_total", version="1") == 20
    assert counted(telemetry, "keras_robust_detection_flagged_total", version="1") == flagged
    assert np.isfinite(counted(telemetry, "keras_robust_detection_alarm_evidence", version="1"))
