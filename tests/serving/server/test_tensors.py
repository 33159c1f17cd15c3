"""Tensors of messages and of JSON: decoding, rejection, allocation."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.serving.server import json_tensors
from keras_robust.serving.server.tensor_protos import Slot, decode, encode
from keras_robust.serving.status import (
    HTTP_STATUS,
    MAX_MESSAGE,
    Code,
    ServingError,
    clean_message,
    code_of_http,
)

IMAGES = Slot("images", "images:0", tf.float32, (None, 2, 2, 1))
FILES = Slot("image_bytes", "image_bytes:0", tf.string, (None,))
LIMIT = 2**20


def proto(values, shape=None, dtype=None):
    return tf.make_tensor_proto(values, dtype, shape)


def refused(slot, message, says):
    with pytest.raises(ServingError, match=says) as caught:
        decode(slot, message, LIMIT)
    assert caught.value.code is Code.INVALID_ARGUMENT


DTYPES = [
    *(tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.bool),
    *(tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_every_type_goes_there_and_back(dtype):
    array = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype.as_numpy_dtype)
    slot = Slot("x", "x:0", dtype, (None, 2))
    for message in (proto(array), encode(array, dtype)):
        decoded = decode(slot, message, LIMIT)
        assert decoded.dtype == array.dtype
        np.testing.assert_array_equal(decoded, array)
        np.testing.assert_array_equal(tf.make_ndarray(message), array)


def test_strings_go_there_and_back():
    array = np.array([b"", b"\xff\x00", b"text"], object)
    for message in (proto(array), encode(array, tf.string)):
        assert decode(FILES, message, LIMIT).tolist() == array.tolist()


def test_one_value_stands_for_all_as_in_tensorflow():
    message = proto(0.25, [3, 2, 2, 1], tf.float32)
    assert len(message.float_val) == 1
    np.testing.assert_array_equal(decode(IMAGES, message, LIMIT), np.full((3, 2, 2, 1), 0.25))


def test_another_type_is_refused():
    refused(IMAGES, proto(np.zeros((1, 2, 2, 1))), '"images" is float64; expected float32')
    refused(IMAGES, proto(np.zeros((1, 2, 2, 1), np.uint8)), "is uint8")
    refused(FILES, proto(np.zeros(1, np.float32)), "is float32; expected string")
    strange = proto(np.zeros((1, 2, 2, 1), np.float32))
    strange.dtype = 9999
    refused(IMAGES, strange, "of the unknown type 9999")
    strange.ClearField("dtype")
    refused(IMAGES, strange, "expected float32")


@pytest.mark.parametrize("shape", [(), (4,), (1, 2, 2), (1, 2, 3, 1), (1, 2, 2, 1, 1)])
def test_another_shape_is_refused(shape):
    refused(IMAGES, proto(np.zeros(shape, np.float32)), r"expected \[batch, 2, 2, 1\]")


def test_an_empty_batch_is_refused():
    refused(IMAGES, proto(np.zeros((0, 2, 2, 1), np.float32)), "empty batch")
    refused(FILES, proto(np.zeros(0, object), dtype=tf.string), "empty batch")


def test_an_unknown_shape_is_refused():
    message = proto(np.zeros((1, 2, 2, 1), np.float32))
    message.tensor_shape.dim[0].size = -1
    refused(IMAGES, message, "no complete shape")
    message.tensor_shape.Clear()
    message.tensor_shape.unknown_rank = True
    refused(IMAGES, message, "no complete shape")


@pytest.mark.parametrize("batch", [10**6, 2**40, 2**62])
@pytest.mark.parametrize("content", ["none", "one", "bytes"])
def test_a_huge_shape_allocates_nothing(batch, content):
    message = proto(0.5, [1, 2, 2, 1], tf.float32)
    message.tensor_shape.dim[0].size = batch
    if content != "one":
        message.ClearField("float_val")
    if content == "bytes":
        message.tensor_content = b"\x00" * 16
    tracemalloc.start()
    try:
        refused(IMAGES, message, "declares the shape")
        assert tracemalloc.get_traced_memory()[1] < 2**17
    finally:
        tracemalloc.stop()


def test_a_huge_batch_of_strings_allocates_nothing():
    message = proto([b"x"], dtype=tf.string)
    message.tensor_shape.dim[0].size = 2**40
    refused(FILES, message, "holds 1 values; its shape stands for 1099511627776")


def test_thousands_of_dimensions_are_refused_in_a_short_message():
    message = proto(0.5, [1, 2, 2, 1], tf.float32)
    for _ in range(5000):
        message.tensor_shape.dim.add(size=1)
    refused(IMAGES, message, r"\[1, 2, 2, 1, 1, 1, 1, 1, ...\]")


def test_content_of_another_length_is_refused():
    message = proto(np.zeros((2, 2, 2, 1), np.float32))
    message.tensor_content = message.tensor_content[:-1]
    refused(IMAGES, message, "holds 31 bytes; its shape stands for 8 values")
    message.ClearField("tensor_content")
    refused(IMAGES, message, "holds 0 values")
    message.float_val.extend([0.0] * 7)
    refused(IMAGES, message, "holds 7 values")
    message.float_val.extend([0.0] * 2)
    refused(IMAGES, message, "holds 9 values")


def test_values_too_wide_for_the_type_are_refused():
    slot = Slot("x", "x:0", tf.uint8, (None,))
    message = proto(np.array([1, 2], np.uint8))
    message.ClearField("tensor_content")
    message.int_val.extend([1, 300])
    refused(slot, message, "values from 1 to 300; expected uint8")


# --- JSON ---------------------------------------------------------------------------------------


def columns(body, *slots):
    return json_tensors.decode_inputs(body, {slot.alias: slot for slot in slots or (IMAGES,)})


def bad_json(call, says):
    with pytest.raises(ServingError, match=says) as caught:
        call()
    assert caught.value.http_status == 400


IMAGE = [[[0], [0.25]], [[1], [0.5]]]


@pytest.mark.parametrize(
    ("body", "by_row"),
    [
        ({"instances": [IMAGE, IMAGE]}, True),
        ({"instances": [{"images": IMAGE}, {"images": IMAGE}]}, True),
        ({"inputs": [IMAGE, IMAGE]}, False),
        ({"inputs": {"images": [IMAGE, IMAGE]}}, False),
    ],
)
def test_rows_and_columns(body, by_row):
    arrays, found = columns(body)
    assert found is by_row
    assert arrays["images"].dtype == np.float32
    np.testing.assert_array_equal(arrays["images"], [IMAGE, IMAGE])


def test_base64_and_text():
    body = {"instances": [{"b64": "aGk="}, "hi", {"b64": ""}]}
    assert columns(body, FILES)[0]["image_bytes"].tolist() == [b"hi", b"hi", b""]
    named = {"instances": [{"image_bytes": {"b64": "aGk="}}]}
    assert columns(named, FILES)[0]["image_bytes"].tolist() == [b"hi"]


def test_several_inputs_have_to_be_named():
    other = Slot("n", "n:0", tf.int32, (None,))
    rows = {"instances": [{"images": IMAGE, "n": 3}, {"n": 4, "images": IMAGE}]}
    assert columns(rows, IMAGES, other)[0]["n"].tolist() == [3, 4]
    bad_json(lambda: columns({"instances": [IMAGE]}, IMAGES, other), "plain list, but expecting")
    bad_json(lambda: columns({"inputs": [IMAGE]}, IMAGES, other), "plain value/list, but expecting")
    short = {"instances": [{"images": IMAGE, "n": 3}, {"images": IMAGE}]}
    bad_json(lambda: columns(short, IMAGES, other), "element: 1 .* Missing named input: n")
    mixed = {"instances": [{"images": IMAGE, "n": 3}, 4]}
    bad_json(lambda: columns(mixed, IMAGES, other), "Expecting object but got Number")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([[[[0], [0]], [[0]]]], "lists of different lengths"),
        ([[[[0], 0], [[0], [0]]]], "lists and values at one level"),
        ([[[["0"], [0]], [[0], [0]]]], r'"0" Type: String .* expected type: float32'),
        ([[[[None], [0]], [[0], [0]]]], "null Type: Null"),
        ([[[[True], [0]], [[0], [0]]]], "true Type: Bool"),
        ([[[[{}], [0]], [[0], [0]]]], "Type: Object"),
        ([[[[10**400], [0]], [[0], [0]]]], "cannot hold"),
        (0.5, r"has shape \[\]"),
        ([[]], r"has shape \[1, 0\]"),
    ],
)
def test_json_of_another_form_is_refused(value, says):
    bad_json(lambda: columns({"inputs": value}), says)


def test_a_number_beyond_float32_becomes_infinite_for_the_model_to_judge():
    value = [[[[1e300], [0]], [[0], [0]]]]
    assert np.isinf(columns({"inputs": value})[0]["images"][0, 0, 0, 0])


@pytest.mark.parametrize(
    "text",
    [
        *("aGkh", "aG\nkh", "aGkh\r\n", " aG\tkh ", "a\fG\vkh"),
        *("aGk=", "aGk", "aGk=\n", "aGk\n=", "aA==", "aA", "aA\r\n", "aA=\n="),
    ],
)
def test_base64_with_line_ends_or_without_padding_is_read(text):
    """As the command `base64`, MIME and JavaScript write it; TensorFlow Serving takes each."""
    expected = b"hi!" if "h" in text else b"hi" if "G" in text else b"h"
    assert json_tensors.decode_base64(text) == expected
    body = json_tensors.parse(json.dumps({"inputs": [{"b64": text}]}).encode())
    assert columns(body, FILES)[0]["image_bytes"].tolist() == [expected]


@pytest.mark.parametrize(
    "text",
    [
        *("a", "aGkha", "aGk==", "aGkh=", "aA=", "aA===", "=", "====", "a=Gk", "=aGk", "aGk=aGk="),
        *("aG-_", "aG.k", "aG\0k", "aG\u2028k", "aG\xa0k", "é", "data:;base64,aGkh"),
    ],
)
def test_bad_base64_names_the_input(text):
    bad_json(lambda: columns({"inputs": [{"b64": text}]}, FILES), "unable to base64 decode")


def test_bad_base64_is_refused():
    bad_json(lambda: columns({"instances": [{"b64": "a"}]}, FILES), "unable to base64 decode")
    bad_json(lambda: columns({"instances": [{"b64": "é"}]}, FILES), "unable to base64 decode")
    bad_json(lambda: columns({"inputs": [{"b64": 3}]}, FILES), "Type: Object")


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"a":' * 100_000, b'{"instances": ' + b"[" * 5000 + b"]" * 5000 + b"}"],
)
def test_deep_nesting_is_refused(body):
    bad_json(lambda: columns(json_tensors.parse(body)), "nested too deeply|JSON Parse error|shape")


def test_an_integer_of_thousands_of_digits_is_refused():
    bad_json(
        lambda: columns(json_tensors.parse(b'{"inputs": ' + b"9" * 10_000 + b"}")),
        "limit|cannot hold",
    )


def test_answers_in_rows_and_columns():
    outputs = {"p": np.array([[0.1, 0.9]], np.float32), "flag": np.array([True])}
    assert json_tensors.encode_outputs(outputs, by_row=True) == {
        "predictions": [{"p": [0.1, 0.9], "flag": True}]
    }
    assert json_tensors.encode_outputs(outputs, by_row=False) == {
        "outputs": {"p": [[0.1, 0.9]], "flag": [True]}
    }
    single = {"p": outputs["p"]}
    assert json_tensors.encode_outputs(single, by_row=True) == {"predictions": [[0.1, 0.9]]}
    assert json_tensors.encode_outputs(single, by_row=False) == {"outputs": [[0.1, 0.9]]}


def test_strings_are_base64_where_the_name_says_bytes():
    raw = np.array([b"\xff", b"b"], object)
    assert json_tensors.encode_outputs({"raw_bytes": raw}, by_row=True) == {
        "predictions": [{"b64": "/w=="}, {"b64": "Yg=="}]
    }
    text = np.array(["é".encode(), b"b"], object)
    assert json_tensors.encode_outputs({"raw": text}, by_row=True) == {"predictions": ["é", "b"]}


def test_answers_without_rows_are_refused_in_row_format():
    bad_json(
        lambda: json_tensors.encode_outputs({"a": np.array(1.0)}, True), "no shape information"
    )
    uneven = {"a": np.zeros(1), "b": np.zeros(2)}
    bad_json(lambda: json_tensors.encode_outputs(uneven, True), r"\[1, 2\] rows")
    assert json_tensors.encode_outputs(uneven, by_row=False)["outputs"]["b"] == [0.0, 0.0]


def test_numbers_that_are_not_finite_are_tokens_as_tensorflow_serving_writes_them():
    outputs = {"a": np.array([np.nan, np.inf, -np.inf], np.float32)}
    answer = json.dumps(json_tensors.encode_outputs(outputs, by_row=True))
    assert answer == '{"predictions": [NaN, Infinity, -Infinity]}'


# --- status -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            "Graph execution error:\n\nassertion failed: [images must be at most 1] [Condition "
            "x <= y did not hold:] [x (images:0) = ] [[[[5][5]]]...]\n\t [[{{node a/b}}]]",
            "images must be at most 1",
        ),
        ("assertion failed: [in [0, 1]; got] [5] [to] [7]", "in [0, 1]; got 5 to 7"),
        ("assertion failed: [Condition x <= y] [1]", "Condition x <= y 1"),
        (
            "2 root error(s) found.\n  (0) INVALID_ARGUMENT: assertion failed: [bad] [Condition ]\n"
            "\t [[{{node a}}]]\n  (1) INVALID_ARGUMENT: other",
            "bad",
        ),
        ("Input is junk.\n\t [[{{node map/while/DecodeImage}}]]", "Input is junk."),
        (
            "Detected at node 'a' defined at (most recent call last):\n File x.py",
            "The model failed",
        ),
        ("", "The model failed on this request."),
    ],
)
def test_messages_of_tensorflow_are_cleaned(message, sentence):
    assert clean_message(message).startswith(sentence)
    assert "node" not in clean_message(message)


def test_codes_are_those_of_tensorflow_and_grpc():
    import grpc

    for status in grpc.StatusCode:
        assert Code[status.name] == status.value[0]
    assert tf.errors.OutOfRangeError(None, None, "").error_code == Code.OUT_OF_RANGE
    assert set(HTTP_STATUS) == set(Code)


def test_http_statuses_stand_for_codes():
    for code in (Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED, Code.UNAVAILABLE):
        assert code_of_http(HTTP_STATUS[code]) is code
    assert code_of_http(413) is Code.RESOURCE_EXHAUSTED


def test_messages_are_one_line_without_escapes():
    assert str(ServingError(Code.NOT_FOUND, "a\n\tb\x1b[31m\ud800é")) == "a  b [31m é"


def test_long_messages_are_cut():
    error = ServingError(Code.NOT_FOUND, "x" * 10_000)
    assert len(str(error)) == MAX_MESSAGE and str(error).endswith("...")
