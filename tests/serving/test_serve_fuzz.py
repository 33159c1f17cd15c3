"""Requests mutated at random, always the same ones: each is answered, and the server goes on."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import logging
import random
import socket

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from serving.client import Client, RestClient
from serving.server import Limits, Server

ROUNDS = 250
IMAGES = np.full((2, 8, 8, 1), 0.25, np.float32)
FILE = tf.io.encode_png(np.full((8, 8, 1), 100, np.uint8)).numpy()
SANE_CODES = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED",
    "UNIMPLEMENTED",
}
SANE_STATUSES = {200, 400, 404, 408, 411, 413, 414, 415, 417, 429, 431, 501, 505}


@pytest.fixture(scope="module")
def server(exported_model):
    limits = Limits(max_message_mb=0.5)
    with Server("digits", exported_model, port=0, rest_api_port=0, limits=limits) as server:
        yield server


@pytest.fixture(autouse=True)
def healthy(server, caplog):
    """After each test the server answers as before, and has logged no failure of its own."""
    with Client(server.grpc_address) as client:
        before = client.predict("digits", IMAGES, "detect")
        yield
        after = client.predict("digits", IMAGES, "detect")
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])
    assert RestClient(server.rest_address).status("digits") == {1: "AVAILABLE"}
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def mutated(content, dice):
    """A few random edits: bits flipped, bytes replaced, removed, repeated, cut off."""
    content = bytearray(content)
    for _ in range(dice.choice([1, 1, 1, 2, 4, 16])):
        at = dice.randrange(len(content) + 1)
        size = dice.choice([1, 1, 2, 8, 64])
        edit = dice.randrange(6)
        if edit == 0 and at < len(content):
            content[at] ^= 1 << dice.randrange(8)
        elif edit == 1:
            content[at : at + size] = dice.randbytes(size)
        elif edit == 2:
            del content[at : at + size]
        elif edit == 3:
            content[at:at] = content[at : at + size] * dice.choice([1, 2, 50])
        elif edit == 4:
            del content[at:]
        else:
            token = dice.choice(
                [b"-1", b"1e999", b"NaN", b"null", b"[", b"}", b'"', b"\x80\x80\x01"]
            )
            content[at:at] = token
    return bytes(content)


def predict_request(signature, inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "digits"
    request.model_spec.signature_name = signature
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return request


def messages():
    spec = {"name": "digits", "version": {"value": 1}}
    return [
        ("PredictionService/Predict", predict_request("detect", {"images": IMAGES})),
        ("PredictionService/Predict", predict_request("detect_bytes", {"image_bytes": [FILE]})),
        (
            "PredictionService/GetModelMetadata",
            get_model_metadata_pb2.GetModelMetadataRequest(
                model_spec=spec, metadata_field=["signature_def"]
            ),
        ),
        (
            "ModelService/GetModelStatus",
            get_model_status_pb2.GetModelStatusRequest(model_spec=spec),
        ),
    ]


def call(channel, method, content):
    """The code of the answer."""
    try:
        channel.unary_unary(f"/tensorflow.serving.{method}")(content, timeout=20)
    except grpc.RpcError as error:
        assert "\n" not in error.details()
        return error.code().name
    return "OK"


@pytest.mark.parametrize(("method", "message"), messages(), ids=lambda value: str(value)[:24])
def test_bytes_of_messages(server, method, message):
    dice = random.Random(method + str(message))
    content = message.SerializeToString()
    with grpc.insecure_channel(server.grpc_address) as channel:
        assert call(channel, method, content) == "OK"
        codes = {call(channel, method, mutated(content, dice)) for _ in range(ROUNDS)}
    assert codes <= SANE_CODES | {"OK"}
    assert codes & SANE_CODES


def test_fields_of_tensors(server):
    """Well-formed messages whose tensors contradict themselves."""
    dice = random.Random(1)
    codes = set()
    numbers = [-(2**62), -1, 0, 1, 2, 7, 8, 9, 64, 10**6, 2**31, 2**40, 2**62]
    with grpc.insecure_channel(server.grpc_address) as channel:
        for _ in range(ROUNDS):
            request = predict_request("detect", {"images": IMAGES})
            tensor = request.inputs["images"]
            for _ in range(dice.choice([1, 1, 2, 3])):
                edit = dice.randrange(6)
                if edit == 0:
                    tensor.tensor_shape.dim.add(size=dice.choice(numbers))
                elif edit == 1 and tensor.tensor_shape.dim:
                    dice.choice(tensor.tensor_shape.dim).size = dice.choice(numbers)
                elif edit == 2:
                    tensor.dtype = dice.choice([0, 1, 2, 3, 7, 10, 19, 23, 101, 9999, -1])
                elif edit == 3:
                    tensor.ClearField("tensor_content")
                    tensor.float_val.extend([0.5] * dice.choice([0, 1, 5, 128, 129]))
                elif edit == 4:
                    tensor.tensor_content = dice.randbytes(dice.choice([0, 3, 512, 513]))
                else:
                    tensor.string_val.append(b"x")
            codes.add(call(channel, "PredictionService/Predict", request.SerializeToString()))
    assert codes == {"OK", "INVALID_ARGUMENT"}


def exchange(server, content):
    """Sends bytes and ends; gives the status of the answer, or None when there is none."""
    host, port = server.rest_address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(content)
        # The server may have closed already, having seen enough.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(connection)
        try:
            response.begin()
            body = response.read()
        except (http.client.HTTPException, ConnectionError):
            return None
    assert isinstance(json.loads(body), dict)
    return response.status


def bodies():
    files = [{"b64": base64.b64encode(FILE).decode()}]
    return [
        {"signature_name": "detect", "instances": IMAGES[:1].tolist()},
        {"signature_name": "detect_bytes", "inputs": {"image_bytes": files}},
    ]


@pytest.mark.parametrize("body", bodies(), ids=["images", "files"])
def test_bodies(server, body):
    dice = random.Random(2)
    content = json.dumps(body).encode()
    statuses = set()
    for _ in range(ROUNDS):
        changed = mutated(content, dice)
        head = f"POST /v1/models/digits:predict HTTP/1.1\r\nContent-Length: {len(changed)}\r\n\r\n"
        statuses.add(exchange(server, head.encode() + changed))
    assert {200, 400} <= statuses <= {200, 400, 413}


def test_heads(server):
    dice = random.Random(3)
    body = json.dumps(bodies()[1]).encode()
    head = (
        "POST /v1/models/digits/versions/1:predict HTTP/1.1\r\nHost: digits\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    assert exchange(server, head + body) == 200
    statuses = {exchange(server, mutated(head, dice) + body) for _ in range(ROUNDS)}
    assert 400 in statuses
    assert statuses <= SANE_STATUSES | {None}
