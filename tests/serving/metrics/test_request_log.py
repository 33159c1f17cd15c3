"""The log of requests: what a line has, what it does not have, and files that cannot be written."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from keras_robust.serving.metrics.request_log import PREVIOUS, RequestLog, as_json, parse_line
from keras_robust.serving.metrics.request_record import RequestRecord


def record(images=2, **fields):
    outputs = {
        "classes": np.arange(images),
        "detection_score": np.linspace(0, 1, images, dtype=np.float32),
        "is_adversarial": np.arange(images) > 0,
        "probabilities": np.full((images, 10), 0.1),
    }
    one = RequestRecord("grpc", "Predict", model="digits", signature="detect", **fields)
    one.answered(3, {"images": np.full((images, 2, 2, 1), 0.25, np.float32)}, outputs)
    return one


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_has_the_verdicts_and_no_image(tmp_path):
    log = RequestLog(tmp_path / "deep" / "requests.jsonl")
    log.write(record())
    (line,) = lines(log.path)
    assert line["classes"] == [0, 1] and line["is_adversarial"] == [False, True]
    assert line["detection_score"] == [0.0, 1.0] and line["version"] == 3
    assert not {"inputs", "probabilities"} & set(line)
    assert "0.25" not in log.path.read_text()


def test_images_are_logged_where_they_are_wanted(tmp_path):
    log = RequestLog(tmp_path / "log", images=True)
    log.write(record())
    stored = lines(log.path)[0]["inputs"]["images"]
    array = np.frombuffer(base64.b64decode(stored["base64"]), stored["dtype"])
    np.testing.assert_array_equal(array.reshape(stored["shape"]), np.full((2, 2, 2, 1), 0.25))
    files = record()
    files.inputs = {"image_bytes": np.array([b"\x89PNG", b"\xff\xd8"], object)}
    assert as_json(files, True)["inputs"]["image_bytes"]["files"] == ["iVBORw==", "/9g="]


def test_the_rate_is_the_share_of_requests(tmp_path):
    log = RequestLog(tmp_path / "log", 0.25, seed=0)
    for _ in range(400):
        log.write(record())
    assert 70 < len(lines(log.path)) == log.written < 130
    nothing = RequestLog(tmp_path / "none", 0.0)
    nothing.write(record())
    assert nothing.path.read_text() == ""
    with pytest.raises(ValueError, match="sampling_rate is 2"):
        RequestLog(tmp_path / "log", 2)


def test_a_full_file_is_kept_once_and_no_line_is_cut(tmp_path):
    log = RequestLog(tmp_path / "log", max_mb=2000 / 2**20)
    for _ in range(30):
        log.write(record())
    assert log.path.stat().st_size <= 2000
    kept = lines(tmp_path / f"log{PREVIOUS}")
    assert len(kept) > 1 and {path.name for path in tmp_path.iterdir()} == {"log", "log.1"}


def test_a_disk_that_is_full_loses_lines_and_no_request(tmp_path, monkeypatch, caplog):
    log = RequestLog(tmp_path / "log")

    def full(self, mode):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(log.path), "open", full)
    for _ in range(3):
        log.write(record())
    assert (log.written, log.failed) == (0, 3)
    assert caplog.text.count("The request log cannot be written") == 1


def test_a_line_is_read_back():
    written = record(status="OK", seconds=0.25)
    written.outputs["detection_score"] = np.array([0.5, np.nan])
    text = json.dumps(as_json(written), allow_nan=False)  # other programs read it too
    read = parse_line(text)
    assert (read.model, read.version, read.signature, read.images) == ("digits", 3, "detect", 2)
    assert read.seconds == 0.25 and read.started == pytest.approx(written.started, abs=1e-3)
    np.testing.assert_array_equal(read.outputs["detection_score"], [0.5, np.nan])
    np.testing.assert_array_equal(read.outputs["is_adversarial"], [False, True])


@pytest.mark.parametrize(
    "change",
    [
        {"time": 3}, {"time": "yesterday"}, {"model": ["digits"]}, {"version": "new"},
        {"detection_score": 3}, {"detection_score": ["high"]}, {"is_adversarial": [True]},
        {"images": None}, {"seconds": {}},
    ],
)  # fmt: skip
def test_other_lines_are_refused(change):
    with pytest.raises(ValueError, match="not one of a request log"):
        parse_line(json.dumps(as_json(record()) | change))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", "[" * 100_000])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(ValueError, match="not one of a request log"):
        parse_line(text)
