"""Requests become metrics, alarms and lines of the log; what a client sends cannot add series."""

from __future__ import annotations

import asyncio
import json
import threading

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from keras_robust.serving.metrics import recorder
from keras_robust.serving.metrics.recorder import Recorder
from keras_robust.serving.metrics.request_record import RequestRecord, current_record
from keras_robust.serving.metrics.telemetry import Monitoring, Telemetry
from keras_robust.serving.status import Code, ServingError


def values(text):
    """`{name{label="value",...}: value}` of a text in Prometheus' format."""
    return {
        one.name + "".join(f",{key}={one.labels[key]}" for key in sorted(one.labels)): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def answer(record, count=2, score=0.5):
    record.model, record.signature = "digits", "detect"
    outputs = {
        "detection_score": np.full(count, score, np.float32),
        "is_adversarial": np.full(count, score > 1),
        "probabilities": np.zeros((count, 10)),
    }
    record.answered(7, {"images": np.zeros((count, 8, 8, 1), np.float32)}, outputs)


@pytest.fixture
def telemetry(tmp_path):
    log = tmp_path / "log"
    telemetry = Telemetry(Monitoring(request_log=log, alarm_every=1000))
    yield telemetry
    telemetry.close()


class HttpError(Exception):
    status = 413


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ServingError(Code.NOT_FOUND, "no"), "NOT_FOUND"), (HttpError(), "RESOURCE_EXHAUSTED"),
        (KeyError("bug"), "INTERNAL"), (asyncio.CancelledError(), "CANCELLED"),
    ],
)  # fmt: skip
def test_an_error_becomes_the_status(telemetry, error, status):
    with pytest.raises(type(error)), telemetry.request("rest", "Predict"):
        raise error
    found = values(telemetry.text().decode())
    labels = f",interface=rest,method=Predict,model=,signature=,status={status}"
    assert found[f"keras_robust_requests_total{labels}"] == 1
    assert found["keras_robust_requests_running,interface=rest"] == 0
    assert json.loads(telemetry.monitoring.request_log.read_text())["status"] == status


def test_an_answered_request_is_counted_with_its_images(telemetry):
    with telemetry.request("grpc", "Predict") as record:
        running = values(telemetry.text().decode())
        assert running["keras_robust_requests_running,interface=grpc"] == 1
        assert current_record() is None
        with record.active():
            answer(current_record())
    found = values(telemetry.text().decode())
    labels = ",interface=grpc,method=Predict,model=digits,signature=detect,status=OK"
    assert found[f"keras_robust_requests_total{labels}"] == 1
    assert found["keras_robust_request_images_sum,model=digits,signature=detect"] == 2
    assert found["keras_robust_detection_images_total,model=digits,version=7"] == 2
    assert found["keras_robust_request_log_lines_total,outcome=written"] == 1
    assert not any("_created" in name for name in found)
    assert found["process_resident_memory_bytes"] > 2**20
    (line,) = telemetry.monitoring.request_log.read_text().splitlines()
    assert json.loads(line)["detection_score"] == [0.5, 0.5] and "inputs" not in json.loads(line)


def test_a_version_may_withhold_scores_or_flags(telemetry):
    for version, name in ((1, "detection_score"), (2, "is_adversarial")):
        with telemetry.request("grpc") as record:
            answer(record)
            record.version = version
            del record.outputs[name]
    found = values(telemetry.text().decode())
    for version in (1, 2):
        labels = f",model=digits,version={version}"
        assert found[f"keras_robust_detection_images_total{labels}"] == 2
    bucket = "keras_robust_detection_score_bucket,le=+Inf,model=digits,version="
    assert (found[f"{bucket}1"], found[f"{bucket}2"]) == (0, 2)


def test_given_clean_scores_raise_the_alarm(tmp_path):
    np.save(tmp_path / "clean.npy", np.linspace(0, 1, 200))
    telemetry = Telemetry(Monitoring(clean_scores=tmp_path / "clean.npy", alarm_every=1000))
    for _ in range(20):
        with telemetry.request("rest") as record:
            answer(record, score=2.0)
    found = values(telemetry.text().decode())
    assert found["keras_robust_detection_alarms_total,model=digits,version=7"] >= 1
    assert found["keras_robust_detection_flagged_ratio,model=digits,version=7"] == 1
    telemetry.close()
    assert telemetry.text()  # also of a server that has stopped


def test_settings_that_are_out_of_range():
    for options in ({"alarm_every": 1}, {"sampling_rate": 1.5}, {"log_max_mb": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            Monitoring(**options)
    with pytest.raises(FileNotFoundError):
        Telemetry(Monitoring(clean_scores="/nowhere.npy"))


def test_a_slow_disk_delays_no_request(monkeypatch):
    monkeypatch.setattr(recorder, "MAX_BYTES", 1000)
    go, taken = threading.Event(), []

    def take(record):
        assert go.wait(10)
        taken.append(record)
        if record.images == 1:
            raise OSError("the disk is gone")

    slow = Recorder(take)
    slow._queue.maxsize = 4
    records = [RequestRecord("grpc", images=number) for number in range(8)]
    for record in records:
        record.inputs = {"images": np.zeros(100, np.float32)}
        slow.put(record)
    assert slow.dropped in (3, 4)  # one may be with `take` already
    go.set()
    slow.flush()
    assert taken == records[: 8 - slow.dropped]
    # Three times 400 bytes are too many.
    assert [bool(record.inputs) for record in taken[:2]] == [True, True]
    assert not all(record.inputs for record in taken)
    slow.close()
    assert slow._bytes == 0
