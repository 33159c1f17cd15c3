"""The pixels of image files are counted from their heads, and bounded for a request."""

from __future__ import annotations

import struct
import time
import zlib

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.client.rest_client import RestClient
from keras_robust.serving.server.image_files import MAX_SEGMENTS, count_pixels
from keras_robust.serving.server.server import Limits, Server
from keras_robust.serving.status import ServingError


def png(height, width, channels=1):
    return tf.io.encode_png(np.zeros((height, width, channels), np.uint8)).numpy()


def jpeg(height, width, channels=3, **settings):
    image = np.zeros((height, width, channels), np.uint8)
    return tf.io.encode_jpeg(image, **settings).numpy()


@pytest.mark.parametrize(
    "content",
    [
        png(7, 300),
        png(7, 300, 4),
        jpeg(7, 300),
        jpeg(7, 300, 1),
        jpeg(7, 300, progressive=True),
        jpeg(7, 300, xmp_metadata="\xff\xc0" * 2000),
    ],
    ids=["png", "rgba", "jpeg", "gray", "progressive", "metadata"],
)
def test_the_size_is_read_from_the_head(content):
    assert count_pixels(content) == 2100
    for end in range(0, min(len(content), 700), 7):
        assert count_pixels(content[:end]) >= 0  # truncated files are refused by the model


def test_other_files_count_nothing():
    """The model refuses them before it decodes any."""
    gif = b"GIF89a" + struct.pack("<HH", 9, 9) + bytes(3)
    bmp = b"BM" + bytes(16) + struct.pack("<ii", 9, 9)
    assert [count_pixels(content) for content in (gif, bmp, b"", b"x")] == [0] * 4


def test_segments_between_are_skipped_as_decoders_do():
    content = jpeg(5, 6)
    for between in (
        b"\xff" * 100,
        b"junk",
        b"\xff\x01",
        b"\xff\xe5\x00\x06\xff\xc0ab",
        b"\xff\x00",
    ):
        longer = content[:20] + between + content[20:]
        assert count_pixels(longer) == 30
        assert tf.image.extract_jpeg_shape(longer).numpy().tolist() == [5, 6, 3]


@pytest.mark.parametrize("between", [b"\xff\x01", b"\xff\xe5\x00\x02", b"\xff", b"\xff\x00", b"0"])
def test_a_file_cannot_make_the_search_long(between):
    content, started = jpeg(5, 6), time.process_time()
    longer = content[:20] + between * 4_000_000 + content[20:]
    try:
        assert count_pixels(longer) == 30
    except ValueError as error:
        assert f"more than {MAX_SEGMENTS} segments" in str(error)
    assert time.process_time() - started < 2


@pytest.fixture(scope="module")
def ask(cold_model):
    """Both clients of a server that takes 10,000 pixels in a request."""
    limits = Limits(max_megapixels=0.01)
    server = Server("digits", cold_model, port=0, rest_api_port=0, limits=limits)
    with server, Client(server.grpc_address, 60) as client:
        yield {"grpc": client, "rest": RestClient(server.rest_address, 60)}


@pytest.mark.parametrize("kind", ["grpc", "rest"])
@pytest.mark.parametrize("signature", ["serving_bytes", "detect_bytes"])
def test_the_pixels_of_a_request_are_bounded(ask, kind, signature):
    files = [png(50, 100), jpeg(50, 100, 1)]
    assert len(ask[kind].predict("digits", files, signature)["classes"]) == 2
    with pytest.raises(ServingError) as caught:
        ask[kind].predict("digits", [*files, png(1, 1)], signature)
    assert caught.value.code.name == "INVALID_ARGUMENT"
    assert str(caught.value) == (
        'The 3 files of input "image_bytes" have 10001 pixels; expected at most 10000 in a '
        "request. Send smaller images, or fewer."
    )


def test_a_small_file_of_many_pixels_is_not_decoded(ask):
    """A damaged body would be the error if it was decoded."""
    head = struct.pack(">IIBBBBB", 4096, 4096, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    with pytest.raises(ServingError, match="have 16777216 pixels"):
        ask["grpc"].predict("digits", [b"\x89PNG\r\n\x1a\n" + chunk], "serving_bytes")


def test_a_file_with_endless_segments_is_an_error_of_the_request(ask):
    content = jpeg(5, 6)
    content = content[:20] + b"\xff\xe5\x00\x02" * 2000 + content[20:]
    for client in ask.values():
        with pytest.raises(ServingError, match="more than 1000 segments") as caught:
            client.predict("digits", [png(1, 1), content], "serving_bytes")
        assert caught.value.code.name == "INVALID_ARGUMENT" and "File 1" in str(caught.value)
