"""`/metrics` of a server, over both of its interfaces."""

from __future__ import annotations

import http.client
import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from keras_robust.serving.metrics.telemetry import METRICS_PATHS, Monitoring
from keras_robust.serving.server.server import Server


def get(address, path):
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type"), response.read().decode()
    finally:
        connection.close()


def samples(text):
    return [one for family in text_string_to_metric_families(text) for one in family.samples]


def value(text, name, **labels):
    found = [
        one.value
        for one in samples(text)
        if one.name == name and labels.items() <= one.labels.items()
    ]
    return sum(found)


def test_both_paths_have_the_metrics_in_text_format(embedded):
    for path in METRICS_PATHS:
        status, kind, text = get(embedded.rest_address, path)
        assert status == 200 and kind.startswith("text/plain; version=0.0.4")
        assert value(text, "keras_robust_model_version", version="1", state="AVAILABLE") == 1
    assert get(embedded.rest_address, "/metricss")[0] == 404


@pytest.mark.parametrize("interface", ["grpc", "rest"])
def test_requests_over_both_interfaces(embedded, served, channel, interface):
    def counted(name, **labels):
        return value(embedded.metrics, name, **labels)

    labels = {"interface": interface, "method": "Predict"}
    ok = labels | {"status": "OK", "signature": "detect", "model": "digits"}
    bad = labels | {"status": "INVALID_ARGUMENT", "signature": "detect"}
    unknown = labels | {"status": "NOT_FOUND", "signature": "", "model": ""}
    before = [counted("keras_robust_requests_total", **one) for one in (ok, bad, unknown)]
    images = counted("keras_robust_detection_images_total", model="digits", version="1")
    seconds = counted("keras_robust_request_seconds_count", interface=interface, signature="detect")
    ask(served, channel, interface, served.images())
    ask(served, channel, interface, 7 + served.images())
    ask(served, channel, interface, served.images(), model="a-name-that-a-client-invents")
    after = [counted("keras_robust_requests_total", **one) for one in (ok, bad, unknown)]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 1]
    assert counted("keras_robust_detection_images_total") - images == 3
    assert counted("keras_robust_batch_images_sum", signature="detect") >= 3
    assert (
        counted("keras_robust_request_seconds_count", interface=interface, signature="detect")
        == seconds + 2
    )
    assert "invents" not in embedded.metrics


def ask(served, channel, interface, images, model="digits"):
    """Sends a request that may fail."""
    if interface == "rest":
        body = {"signature_name": "detect", "instances": images.tolist()}
        served.rest("POST", f"/v1/models/{model}:predict", body)
        return
    request = served.request("detect", {"images": images})
    request.model_spec.name = model
    method = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    method.future(request.SerializeToString()).exception()


def test_a_log_and_no_metrics(tmp_path):
    log = tmp_path / "requests.jsonl"
    (tmp_path / "base").mkdir()
    monitoring = Monitoring(metrics=False, request_log=log)
    with Server(
        "digits", tmp_path / "base", port=0, rest_api_port=0, monitoring=monitoring
    ) as server:
        assert get(server.rest_address, "/metrics")[0] == 404
        assert get(server.rest_address, "/v1/models/digits")[0] == 404
    statuses = [json.loads(line)["method"] for line in log.read_text().splitlines()]
    assert statuses == ["", "GetModelStatus"]
