"""Pixels are counted before they are decoded."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import data
from keras_robust.data.image_headers import check_pixels

SHAPE = (5, 7, 3)


def gif(frames, width=7, height=5, palette=True):
    """A file of so many frames, all of one color, each after an extension."""
    colors = bytes(6)
    content = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80 if palette else 0, 0, 0)
    content += colors if palette else b""
    for number in range(frames):
        own = number % 2  # with a palette of its own
        content += b"\x21\xf9\x04" + bytes(4) + b"\x00"
        content += b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0x80 * own)
        content += (colors if own else b"") + b"\x02\x02\x44\x01\x00"
    return content + b"\x3b"


def bmp(width, height):
    row = bytes(-(-3 * width // 4) * 4)
    size = 54 + len(row) * abs(height)
    head = b"BM" + struct.pack("<IHHIIiiHH", size, 0, 0, 54, 40, width, height, 1, 24)
    return head + bytes(24) + row * abs(height)


PIXELS = np.zeros(SHAPE, np.uint8)
FILES = {
    "png": tf.io.encode_png(PIXELS).numpy(),
    "jpeg": tf.io.encode_jpeg(PIXELS).numpy(),
    "bmp": bmp(7, 5),
    "bmp from the top": bmp(7, -5),
    "gif": gif(1),
    "gif without a palette": gif(1, palette=False),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_pixels_of_a_file(kind):
    check_pixels(FILES[kind], most=35)
    with pytest.raises(ValueError, match=r"35 pixels in [\d,]+ bytes; at most 34"):
        check_pixels(FILES[kind], most=34)


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "bmp from the top"])
def test_tensorflow_reads_the_same_size(kind):
    assert tf.io.decode_image(FILES[kind], channels=3).shape == SHAPE


def test_all_frames_count():
    """TensorFlow decodes all of them, also where one is wanted."""
    with pytest.raises(ValueError, match="35,000 pixels"):
        check_pixels(gif(1000), most=34_999)


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a"]
)
def test_what_is_not_an_image_is_left_to_the_decoder(content):
    check_pixels(content, most=0)


@pytest.mark.parametrize("cut", range(6, 60, 7))
def test_a_file_that_ends_early(cut):
    for content in FILES.values():
        check_pixels(content[:cut])


def test_a_gigapixel_in_a_folder_is_not_decoded(tmp_path, monkeypatch):
    """The head of a file of one color; its 4 GB are never there."""
    content = bytearray(FILES["png"])
    content[16:24] = struct.pack(">II", 2**15, 2**15)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(content)
    monkeypatch.setattr(tf.io, "decode_image", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=r"1\.png is not decoded: .* 1,073,741,824 pixels"):
        data.from_directory(tmp_path, image_size=8)
