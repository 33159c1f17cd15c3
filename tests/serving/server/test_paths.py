"""No path that a request names is read: names with path characters never reach the file system.

Seen twice: Python's own audit events, and the kernel's (inotify), which also sees what TensorFlow
opens without Python.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import http.client
import json
import os
import shutil
import struct
import sys
from urllib.parse import quote

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.server.server import Server

IMAGES = np.full((1, 8, 8, 1), 0.25, np.float32)
MARK = "canary"
# Events of `sys.audit` that name files; `os.stat` raises none, and reads nothing.
FILE_EVENTS = ("open", "os.", "shutil.", "glob.", "tempfile.", "pathlib.")
IN_ACCESS, IN_OPEN = 0x1, 0x20


class Audit:
    """Records events that name a marked path while it is on; hooks cannot be removed."""

    def __init__(self):
        self.on, self.seen = False, []
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if self.on and event.startswith(FILE_EVENTS) and MARK in repr(arguments):
            self.seen.append((event, arguments))


@pytest.fixture(scope="module")
def audit():
    return Audit()


class Watch:
    """The files of directories that are opened or read, from the kernel's events."""

    def __init__(self, *directories):
        libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
        if not hasattr(libc, "inotify_init1"):
            pytest.skip("this system has no inotify")
        self.descriptor = libc.inotify_init1(os.O_NONBLOCK)
        for directory in directories:
            path = os.fsencode(directory)
            assert libc.inotify_add_watch(self.descriptor, path, IN_ACCESS | IN_OPEN) >= 0

    def events(self):
        try:
            content = os.read(self.descriptor, 2**16)
        except BlockingIOError:
            return []
        names = []
        while content:
            size = struct.unpack("iIII", content[:16])[3]
            names.append(content[16 : 16 + size].rstrip(b"\0").decode())
            content = content[16 + size :]
        return names


@pytest.fixture
def canaries(base):
    """Models and files next to the served one, and every way to name them."""
    beside = base.parent / f"{MARK}-model"
    shutil.copytree(base, beside)
    secret = beside / f"{MARK}-secret"
    secret.write_text("a secret")
    inside = base / f"{MARK}-inside"
    shutil.copytree(base / "1", inside)
    names = [f"../{beside.name}", str(beside), f"/{beside.name}", f"digits/../../{beside.name}"]
    names += [f"1/../../{beside.name}/1", str(secret), os.path.relpath(secret), f"file://{secret}"]
    names += [
        f"../{beside.name}\0",
        f"{secret}\0.png",
        inside.name,
        f"../{base.name}/{inside.name}",
    ]
    names += [quote(name, safe="") for name in names]
    return names, Watch(beside, beside / "1", inside)


def test_the_watches_see_what_they_should(audit, canaries):
    names, watch = canaries
    assert not watch.events()
    audit.on = True
    tf.io.read_file(names[5]).numpy()
    assert watch.events() and not audit.seen  # TensorFlow's own reading has no audit event
    with open(names[5]):
        pass
    audit.on = False
    assert audit.seen
    audit.seen.clear()


def predict_requests(name):
    """Requests with the name in every field that takes one, and their correct codes."""
    fields = {
        "model": "NOT_FOUND",
        "label": "INVALID_ARGUMENT",
        "signature": "FAILED_PRECONDITION",
        "input": "INVALID_ARGUMENT",
        "output": "INVALID_ARGUMENT",
        "file": "INVALID_ARGUMENT",
    }
    for field, code in fields.items():
        request = predict_pb2.PredictRequest()
        request.model_spec.name = name if field == "model" else "digits"
        request.model_spec.signature_name = name if field == "signature" else "detect"
        if field == "label":
            request.model_spec.version_label = name
        alias, value = (name, IMAGES) if field == "input" else ("images", IMAGES)
        if field == "file":
            request.model_spec.signature_name = "detect_bytes"
            alias, value = "image_bytes", [name.encode()]
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
        if field == "output":
            request.output_filter.append(name)
        yield request, code


def ask_over_grpc(address, name):
    def code(method, request):
        try:
            channel.unary_unary(f"/tensorflow.serving.{method}")(
                request.SerializeToString(), timeout=20
            )
        except grpc.RpcError as error:
            return error.code().name
        return "OK"

    spec = {"name": name}
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec)
    metadata.metadata_field.append("signature_def")
    status = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
    with grpc.insecure_channel(address) as channel:
        for request, right in predict_requests(name):
            assert code("PredictionService/Predict", request) == right
        assert code("PredictionService/GetModelMetadata", metadata) == "NOT_FOUND"
        assert code("ModelService/GetModelStatus", status) == "NOT_FOUND"


def ask_over_rest(address, name):
    connection = http.client.HTTPConnection(address, timeout=20)

    def status(method, path, body=None):
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        assert set(json.loads(response.read())) == {"error"}
        return response.status

    images = IMAGES.tolist()
    paths = [f"/{name}", f"/v1/models/{name}", f"/v1/models/digits/versions/{name}"]
    paths += [f"/v1/models/{name}/metadata", f"/v1/models/digits/labels/{name}"]
    for path in paths:
        for method in ("GET", "POST"):
            assert status(method, quote(path, safe="/%")) in (400, 404)
            assert status(method, quote(path, safe="/%") + ":predict", {"inputs": 1}) in (400, 404)
            assert status(method, "/v1/models/" + quote(path, safe="")) in (400, 404)
    predict = "/v1/models/digits:predict"
    assert status("POST", predict, {"signature_name": name, "inputs": images}) == 400
    assert status("POST", predict, {"inputs": {name: images}}) == 400
    for value in (name, {"b64": name}):
        body = {"signature_name": "detect_bytes", "instances": [value]}
        assert status("POST", predict, body) == 400


def test_no_path_that_a_request_names_is_read(base, audit, canaries):
    names, watch = canaries
    with Server("digits", base, port=0, rest_api_port=0) as server:
        watch.events()
        audit.on = True
        for name in names:
            ask_over_grpc(server.grpc_address, name)
            ask_over_rest(server.rest_address, name)
        audit.on = False
        with Client(server.grpc_address) as client:
            assert client.predict("digits", IMAGES)
    assert not audit.seen
    assert not watch.events()
