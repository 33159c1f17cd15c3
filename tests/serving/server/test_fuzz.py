"""Randomly malformed gRPC requests: each gets its correct code, and the server keeps running.

Every draw has a seed of its own, so a failure names the request that made it. What is right is
worked out here from the bytes that are sent, without the server's code. REST: the file beside this.
"""

from __future__ import annotations

import collections
import logging
import random

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.server.server import Limits, Server

LIMIT = 2**19
IMAGES = np.full((2, 8, 8, 1), 0.25, np.float32)
PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
FILES = [tf.io.encode_png(PIXELS).numpy(), tf.io.encode_jpeg(PIXELS).numpy()]
SIGNATURES = {
    "": "images",
    "serving_default": "images",
    "detect": "images",
    "serving_bytes": "image_bytes",
    "detect_bytes": "image_bytes",
}
NUMBERS = [-(2**62), -1, 0, 1, 2, 7, 8, 9, 64, 10**6, 2**31, 2**40, 2**62]
NAMES = ["", "nobody", "digits ", "Digits", "../digits", "/etc/passwd", "a\0b", "%2e%2e", "é" * 999]
PREDICT, METADATA, STATUS = (
    "PredictionService/Predict",
    "PredictionService/GetModelMetadata",
    "ModelService/GetModelStatus",
)
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
    with Client(server.grpc_address) as client:
        before = client.predict("digits", IMAGES, "detect")
        yield
        after = client.predict("digits", IMAGES, "detect")
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


# --- what is right ------------------------------------------------------------------------------


def right_of_spec(spec):
    if not spec.name or spec.WhichOneof("version_choice") == "version_label":
        return "INVALID_ARGUMENT"
    known = spec.name == "digits" and (not spec.HasField("version") or spec.version.value == 1)
    return "OK" if known else "NOT_FOUND"


def right_of_predict(request):
    right = right_of_spec(request.model_spec)
    if right != "OK":
        return right
    if request.model_spec.signature_name not in SIGNATURES:
        return "FAILED_PRECONDITION"
    alias = SIGNATURES[request.model_spec.signature_name]
    outputs = ["probabilities", "classes"]
    if request.model_spec.signature_name.startswith("detect"):
        outputs += ["detection_score", "is_adversarial"]
    asked = list(request.output_filter)
    good = set(request.inputs) == {alias} and set(asked) <= set(outputs)
    good = good and len(set(asked)) == len(asked)
    judge = images_are_good if alias == "images" else files_are_good
    return "OK" if good and judge(request.inputs[alias]) else "INVALID_ARGUMENT"


def images_are_good(proto):
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.dtype != 1 or proto.tensor_shape.unknown_rank or shape[1:] != [8, 8, 1]:
        return False
    if not 1 <= shape[0] <= LIMIT // 256:
        return False
    count = shape[0] * 64
    if proto.tensor_content:
        if len(proto.tensor_content) != 4 * count:
            return False
        values = np.frombuffer(proto.tensor_content, np.float32)
    else:
        values = np.array(proto.float_val, np.float32)
        if len(values) not in (1, count):
            return False
    values = np.where(np.abs(values) < 1.2e-38, 0, values)  # TensorFlow takes subnormals for zero
    return bool(np.all((values >= 0) & (values <= 1)))  # NaN is neither


def files_are_good(proto):
    shape = [dim.size for dim in proto.tensor_shape.dim]
    good = proto.dtype == 7 and not proto.tensor_shape.unknown_rank
    good = good and shape == [len(proto.string_val)] and shape[0] > 0
    return good and all(map(file_is_good, proto.string_val))


def file_is_good(content):
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


def right_of(method, content):
    """The code of the answer to any bytes."""
    kind = {
        PREDICT: predict_pb2.PredictRequest,
        METADATA: get_model_metadata_pb2.GetModelMetadataRequest,
        STATUS: get_model_status_pb2.GetModelStatusRequest,
    }[method]
    try:
        request = kind.FromString(content)
    except DecodeError:
        return "INVALID_ARGUMENT"
    if not request.HasField("model_spec"):
        return "INVALID_ARGUMENT"
    if method == PREDICT:
        return right_of_predict(request)
    if method == METADATA:
        fields = set(request.metadata_field)
        return right_of_spec(request.model_spec) if fields == {"signature_def"} else _INVALID
    if not request.model_spec.name and request.model_spec.WhichOneof("version_choice") is None:
        return "NOT_FOUND"  # here no name is the name of no model, as TensorFlow Serving has it
    return right_of_spec(request.model_spec)


_INVALID = "INVALID_ARGUMENT"


# --- what is sent: (method, bytes, right code or None when it follows from the bytes) -----------


def predict(signature="detect", images=IMAGES, files=None):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "digits"
    request.model_spec.signature_name = signature
    alias, value = ("images", images) if files is None else ("image_bytes", files)
    request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return request


def junk(dice, mutate):
    return dice.choice([PREDICT, METADATA, STATUS]), dice.randbytes(dice.choice([1, 9, 500])), None


def mutated_images(dice, mutate):
    return PREDICT, mutate(predict().SerializeToString(), dice), None


def mutated_files(dice, mutate):
    return PREDICT, mutate(predict("detect_bytes", files=FILES).SerializeToString(), dice), None


def mutated_small_messages(dice, mutate):
    spec = {"name": "digits", "version": {"value": 1}}
    metadata = get_model_metadata_pb2.GetModelMetadataRequest
    if dice.random() < 0.5:
        message = metadata(model_spec=spec, metadata_field=["signature_def"])
        return METADATA, mutate(message.SerializeToString(), dice), None
    message = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
    return STATUS, mutate(message.SerializeToString(), dice), None


def image_bytes(dice, mutate):
    files = [mutate(dice.choice(FILES), dice) for _ in range(dice.choice([1, 1, 2]))]
    if dice.random() < 0.1:  # a header that promises gigabytes
        files[0] = FILES[0][:16] + dice.randbytes(8) + FILES[0][24:]
    return PREDICT, predict("serving_bytes", files=files).SerializeToString(), None


def tensors(dice, mutate):
    """Well-formed messages whose tensors contradict themselves."""
    request = predict()
    tensor = request.inputs["images"]
    for _ in range(dice.choice([1, 1, 2, 3])):
        edit = dice.randrange(6)
        if edit == 0:
            tensor.tensor_shape.dim.add(size=dice.choice(NUMBERS))
        elif edit == 1 and tensor.tensor_shape.dim:
            dice.choice(tensor.tensor_shape.dim).size = dice.choice(NUMBERS)
        elif edit == 2:
            tensor.dtype = dice.choice([0, 1, 2, 3, 7, 10, 19, 23, 101, 9999, -1])
        elif edit == 3:
            tensor.ClearField("tensor_content")
            tensor.float_val.extend([0.5] * dice.choice([0, 1, 5, 128, 129]))
        elif edit == 4:
            tensor.tensor_content = dice.randbytes(dice.choice([0, 3, 512, 513]))
        else:
            tensor.string_val.append(b"x")
    return PREDICT, request.SerializeToString(), None


def shapes(dice, mutate):
    """One value, and a shape that is huge, zero, negative, endless, unknown; or a huge message."""
    request = predict(images=np.float32([0.5]))
    shape = request.inputs["images"].tensor_shape
    shape.dim[0].size = dice.choice([n for n in NUMBERS if not 1 <= n <= LIMIT // 256])
    for size in (8, 8, 1):
        shape.dim.add(size=size)
    edit = dice.randrange(4)
    if edit == 0:
        dice.choice(shape.dim).size = 0
    elif edit == 1:
        shape.dim.extend([shape.dim[1]] * dice.choice([1, 300, 5000]))
    elif edit == 2:
        shape.unknown_rank = True
    elif dice.random() < 0.2:
        request.inputs["images"].tensor_content = bytes(LIMIT)
        return PREDICT, request.SerializeToString(), "RESOURCE_EXHAUSTED"
    return PREDICT, request.SerializeToString(), "INVALID_ARGUMENT"


def values(dice, mutate):
    good = [0.0, -0.0, 1.0, 1e-45, 0.999]
    bad = [float("nan"), float("inf"), -float("inf"), -1e-37, 1.0000001, 255.0, 3e38]
    spoil = dice.random() < 0.8
    images = IMAGES.copy()
    for _ in range(dice.choice([1, 2, 64])):
        images.flat[dice.randrange(images.size)] = dice.choice(good)
    if spoil:
        images.flat[dice.randrange(images.size)] = dice.choice(bad)
    signature = dice.choice(["detect", "serving_default", ""])
    content = predict(signature, images).SerializeToString()
    return PREDICT, content, "INVALID_ARGUMENT" if spoil else "OK"


def names(dice, mutate):
    request, name = predict(), dice.choice(NAMES)
    edit = dice.randrange(7)
    if edit == 0:
        request.model_spec.name = name
        return PREDICT, request.SerializeToString(), "NOT_FOUND" if name else "INVALID_ARGUMENT"
    if edit == 1:
        request.model_spec.version.value = dice.choice([n for n in NUMBERS if n != 1])
        return PREDICT, request.SerializeToString(), "NOT_FOUND"
    if edit == 2:
        request.model_spec.version_label = name
    elif edit == 3:
        request.model_spec.signature_name = name or "__saved_model_init_op"
        return PREDICT, request.SerializeToString(), "FAILED_PRECONDITION"
    elif edit == 4:
        request.inputs[name].CopyFrom(request.inputs["images"])
    elif edit == 5:
        request.output_filter.append(name)
    else:
        method = dice.choice(["Predict/", "predict", "Classify", "MultiInference", "../Predict"])
        return f"PredictionService/{method}", request.SerializeToString(), "UNIMPLEMENTED"
    return PREDICT, request.SerializeToString(), "INVALID_ARGUMENT"


KINDS = [junk, mutated_images, mutated_files, mutated_small_messages, image_bytes]
KINDS += [tensors, shapes, values, names]


@pytest.mark.parametrize("draws", [40, pytest.param(560, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_spoilt_request_has_the_right_code(server, mutate, kind, draws):
    with grpc.insecure_channel(server.grpc_address) as channel:
        for draw in range(draws):
            method, content, right = kind(random.Random(f"{kind.__name__} {draw}"), mutate)
            right = right or right_of(method, content)
            code, said = "OK", ""
            try:
                channel.unary_unary(f"/tensorflow.serving.{method}")(content, timeout=30)
            except grpc.RpcError as error:
                code, said = error.code().name, error.details()
            assert code == right, f"draw {draw} of {kind.__name__}: {said}"
            assert "\n" not in said and len(said) <= 1000
            ANSWERS[f"{kind.__name__} x {draws}"][code] += 1
    assert ANSWERS[f"{kind.__name__} x {draws}"].keys() != {"OK"}
