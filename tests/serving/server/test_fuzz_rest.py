"""Randomly malformed REST requests: each gets its correct status, and the server keeps running.

As `test_serve_fuzz.py`: every draw has a seed of its own, and what is right is worked out here.
"""

from __future__ import annotations

import base64
import binascii
import collections
import contextlib
import copy
import http.client
import json
import logging
import random
import re
import socket

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.serving.client.rest_client import RestClient
from keras_robust.serving.server.server import Limits, Server

LIMIT = 2**19
IMAGES = np.full((2, 8, 8, 1), 0.25, np.float32)
PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
FILES = [tf.io.encode_png(PIXELS).numpy(), tf.io.encode_jpeg(PIXELS).numpy()]
OF_IMAGES, OF_FILES = {"", "serving_default", "detect"}, {"serving_bytes", "detect_bytes"}
PATH = "/v1/models/digits:predict"
NAMES = ["nobody", "digits%20", "Digits", "..%2fdigits", "%2e%2e", "a%00b", "%ff", "x" * 999]
# The possible statuses for bytes that were a head: never 500; None when no head is left.
OF_HEADS = {None, 200, 400, 404, 408, 413, 415, 431, 501, 505}
ANSWERS: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)


@pytest.fixture(scope="module")
def server(cold_model):
    limits = Limits(max_message_mb=LIMIT / 2**20)
    with Server("digits", cold_model, port=0, rest_api_port=0, limits=limits) as server:
        yield server
    for kind, counts in ANSWERS.items():
        print(f"{kind}: {dict(counts)}")


@pytest.fixture(autouse=True)
def unharmed(server, caplog):
    """After each test the same request has the same answer, and no failure was logged."""
    client = RestClient(server.rest_address)
    before = client.predict("digits", IMAGES, "detect")
    yield
    after = client.predict("digits", IMAGES, "detect")
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


FIRST_NAME_WINS = json.JSONDecoder(object_pairs_hook=lambda pairs: dict(pairs[::-1]))


# --- what is right ------------------------------------------------------------------------------


def right_of(content):
    """The status of the answer to any body of a predict request."""
    if len(content) > LIMIT:
        return 413
    try:
        text = content.decode("utf-8", "surrogateescape").lstrip(" \t\n\r")
        document, _ = FIRST_NAME_WINS.raw_decode(text)
    except (ValueError, RecursionError):
        return 400
    if not isinstance(document, dict) or ("instances" in document) == ("inputs" in document):
        return 400
    name = document.get("signature_name", "")
    if not isinstance(name, str) or name not in OF_IMAGES | OF_FILES:
        return 400
    alias = "images" if name in OF_IMAGES else "image_bytes"
    if "inputs" in document:
        value = document["inputs"]
        if isinstance(value, dict) and not is_base64(value):
            value = value[alias] if set(value) == {alias} else None
    else:
        value = document["instances"]
        named = isinstance(value, list) and value and isinstance(value[0], dict)
        if named and not is_base64(value[0]):
            good = all(isinstance(row, dict) and set(row) == {alias} for row in value)
            value = [row[alias] for row in value] if good else None
    judge = images_are_good if alias == "images" else files_are_good
    return 200 if judge(value) else 400


def is_base64(value):
    return set(value) == {"b64"} and isinstance(value["b64"], str)


def images_are_good(value):
    def fits(value, shape):
        if shape:
            right = isinstance(value, list) and len(value) == shape[0]
            return right and all(fits(item, shape[1:]) for item in value)
        if type(value) not in (int, float):
            return False
        try:
            return 0 <= np.float32(value) <= 1
        except OverflowError:
            return False

    with np.errstate(over="ignore"):
        return isinstance(value, list) and bool(value) and fits(value, (len(value), 8, 8, 1))


def files_are_good(value):
    return isinstance(value, list) and bool(value) and all(map(file_is_good, value))


def file_is_good(value):
    """Text is never a PNG or JPEG file: both start with a byte that is invalid in UTF-8."""
    if not isinstance(value, dict) or not is_base64(value):
        return False
    try:
        text = re.sub(r"[ \t\n\v\f\r]", "", value["b64"])
        if "=" not in text:
            text += "=" * (-len(text) % 4)
        elif len(text) % 4 or text.endswith("==="):
            return False
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
        if width * height > 2**24:
            return False
    elif not content.startswith(b"\xff\xd8\xff"):
        return False
    try:
        tf.io.decode_image(content, channels=1, expand_animations=False)
    except tf.errors.InvalidArgumentError:
        return False
    return True


# --- what is sent: (bytes, right status or statuses) --------------------------------------------


def encoded(content):
    return {"b64": base64.b64encode(content).decode()}


def documents():
    images, files = IMAGES.tolist(), [encoded(file) for file in FILES]
    return [
        {"signature_name": "detect", "instances": images},
        {"instances": [{"images": image} for image in images]},
        {"signature_name": "serving_default", "inputs": {"images": images}},
        {"signature_name": "serving_bytes", "instances": files},
        {"signature_name": "detect_bytes", "inputs": {"image_bytes": files}},
    ]


def post(content, path=PATH, right=None):
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content, {right_of(content) if right is None else right}


def mutated_bodies(dice, mutate):
    return post(mutate(json.dumps(dice.choice(documents())).encode(), dice))


def junk(dice, mutate):
    return post(dice.randbytes(dice.choice([0, 1, 9, 500])))


def image_bytes(dice, mutate):
    files = [encoded(mutate(dice.choice(FILES), dice)) for _ in range(dice.choice([1, 1, 2]))]
    if dice.random() < 0.2:  # text that is not quite base64
        files[0]["b64"] = mutate(files[0]["b64"].encode(), dice).decode("latin-1")
    return post({"signature_name": "detect_bytes", dice.choice(["instances", "inputs"]): files})


HOSTILE = [None, True, [], {}, "", "0.5", 0, 1, 2, -1, 0.5, 1e-9, 10**400, [[]], [0.5], [[0.5]]]
HOSTILE += [{"b64": ""}, {"b64": "?"}, {"b64": 1}, {"images": 1}, float("nan"), float("inf")]


def edited_documents(dice, mutate):
    """Documents that are JSON, with values replaced, added or removed anywhere in them."""
    document = copy.deepcopy(dice.choice(documents()))
    for _ in range(dice.choice([1, 1, 2, 3])):
        node = document
        while dice.random() < 0.75 and (inner := containers(node)):
            node = dice.choice(inner)
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys or dice.random() < 0.2:
            new = copy.deepcopy(dice.choice(HOSTILE))
            if isinstance(node, dict):
                node[dice.choice(["b64", "images", "x"])] = new
            else:
                node.append(new)
        elif dice.random() < 0.3:
            del node[dice.choice(keys)]
        else:
            node[dice.choice(keys)] = copy.deepcopy(dice.choice(HOSTILE))
    return post(document)


def containers(node):
    inner = node.values() if isinstance(node, dict) else node
    return [item for item in inner if isinstance(item, (dict, list))]


def values(dice, mutate):
    """The one wrong number among right ones, as text: JSON has more numbers than Python writes."""
    good = ["0", "1", "-0.0", "1e-400", "0.5e0", "1.00000001"]
    bad = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1.001", "-0.1", "255", "9" * 5000]
    bad += ["null", "true", '"0.5"', "[0.5]", "{}"]
    spoil = dice.random() < 0.8
    text = json.dumps({"instances": IMAGES.tolist()})
    parts = text.split("0.25")
    chosen = ["0.25"] * (len(parts) - 1)
    chosen[dice.randrange(len(chosen))] = dice.choice(good)
    if spoil:
        chosen[dice.randrange(len(chosen))] = dice.choice(bad)
    text = parts[0] + "".join(map(str.__add__, chosen, parts[1:]))
    return post(text.encode(), right=400 if spoil else 200)


def shapes(dice, mutate):
    shape = [2, 8, 8, 1]
    edit = dice.randrange(5)
    if edit == 0:
        shape[dice.randrange(4)] = 0
    elif edit == 1:
        shape[1 + dice.randrange(3)] = dice.choice([2, 7, 9, 500])
    elif edit == 2:
        del shape[dice.randrange(4) :]
    elif edit == 3:
        depth = dice.choice([5, 50, 900, 100_000])
        return post(b'{"instances": ' + b"[" * depth + b"0" + b"]" * depth + b"}", right=400)
    else:
        return post(b'{"instances": [' + b"0," * (LIMIT // 2) + b"0]}", right=413)
    return post({dice.choice(["instances", "inputs"]): np.full(shape, 0.5).tolist()}, right=400)


def names(dice, mutate):
    name = dice.choice(NAMES)
    good = json.dumps(documents()[0]).encode()
    paths = [
        (f"/v1/models/{name}:predict", 404),
        (f"/v1/models/digits/versions/{dice.choice([0, 2, 999, 2**63 - 1])}:predict", 404),
        (f"/v1/models/digits/versions/{dice.choice([2**63, 10**30, '-1', '1x'])}:predict", 400),
        (f"/v1/models/digits/labels/{name.replace('%2f', '')}:predict", 400),
        (f"/v1/models/digits:{dice.choice(['classify', 'regress'])}", 501),
        (f"/v1/models/digits:{name}", 400),
        (f"/v1/models/../../{name}", 400),
        (f"/{name}", 404),
    ]
    if dice.random() < 0.3:
        spoilt = {"signature_name": name, "instances": IMAGES.tolist()}
        return post(spoilt, right=400)
    path, right = dice.choice(paths)
    return post(good, path, right)


def heads(dice, mutate):
    """Heads whose status HTTP defines."""
    body = json.dumps(documents()[0])
    spoilt = [
        (f"Content-Length: {dice.choice(['-1', '1e3', '0x10', 'two', '9' * 40])}", 400),
        ("Content-Length: 1\r\nContent-Length: 2", 400),
        (f"Content-Length: {10 ** dice.randrange(7, 17)}", 413),
        ("Transfer-Encoding: chunked", 400),
        (f"Content-Encoding: gzip\r\nContent-Length: {len(body)}", 400),
        (f"Content-Encoding: deflate\r\nContent-Length: {len(body)}", 415),
        (f"X: {'x' * 70_000}\r\nContent-Length: {len(body)}", 431),
        ("X: x\r\n" * 200 + f"Content-Length: {len(body)}", 400),
        (f"X-\x01: \x02\r\nContent-Length: {len(body)}", 400),
    ]
    lines = [("BREW", 501), ("PUT", 400), ("PATCH", 400), ("DELETE", 400), ("post", 501)]
    if dice.random() < 0.3:
        method, right = dice.choice(lines)
        head = f"{method} {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}"
    else:
        fields, right = dice.choice(spoilt)
        head = f"POST {PATH} HTTP/1.1\r\nHost: h\r\n{fields}"
    return f"{head}\r\n\r\n{body}".encode(), {right}


def mutated_heads(dice, mutate):
    body = json.dumps(documents()[3]).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n"
    return mutate(f"{head}Content-Type: application/json\r\n\r\n".encode(), dice) + body, OF_HEADS


KINDS = [junk, mutated_bodies, edited_documents, image_bytes, values, shapes, names, heads]
KINDS.append(mutated_heads)


def exchange(server, content):
    """Sends bytes and ends; returns the status of the answer, or None without one."""
    host, port = server.rest_address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        # The server may have closed already, having seen enough.
        with contextlib.suppress(OSError):
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(connection)
        try:
            response.begin()
            body = response.read()
        except (http.client.HTTPException, ConnectionError):
            return None, ""
    answer = json.loads(body)
    assert response.status == 200 or list(answer) == ["error"]
    return response.status, str(answer.get("error", ""))


@pytest.mark.parametrize("draws", [40, pytest.param(560, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_spoilt_request_has_the_right_status(server, mutate, kind, draws):
    for draw in range(draws):
        content, right = kind(random.Random(f"{kind.__name__} {draw}"), mutate)
        status, said = exchange(server, content)
        assert status in right, f"draw {draw} of {kind.__name__}: {said}"
        assert "\n" not in said and len(said) <= 1000
        ANSWERS[f"{kind.__name__} x {draws}"][status] += 1
    assert ANSWERS[f"{kind.__name__} x {draws}"].keys() != {200}
