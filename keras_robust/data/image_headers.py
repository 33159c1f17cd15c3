"""Sizes of image files, read from their headers before anything is decoded."""

from __future__ import annotations

import math
from typing import Literal

import tensorflow as tf

MAX_PIXELS = 2**27  # 134 million; as RGB, 0.4 GB
_PNG, _JPEG, _GIF, _BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", (b"GIF87a", b"GIF89a"), b"BM"


def check_pixels(content: bytes, most: int = MAX_PIXELS) -> None:
    """Raises ValueError if a PNG, JPEG, GIF or BMP file would decode to too many pixels.

    All frames of a GIF count, since TensorFlow decodes all of them. What is not readable as one of
    these formats passes, for the decoder to refuse.

    Args:
        content: the file.
        most: the largest number of pixels.

    Example:
        >>> check_pixels(tf.io.encode_png(tf.zeros([2, 3, 1], tf.uint8)).numpy(), most=6)
    """
    pixels = _pixels(content)
    if pixels > most:
        raise ValueError(
            f"The image has {pixels:,} pixels in {len(content):,} bytes; at most {most:,} are "
            "decoded."
        )


def _pixels(content: bytes) -> int:
    if content.startswith(_PNG):
        return _product(content[16:20], content[20:24], "big")
    if content.startswith(_JPEG):
        try:
            height, width, _ = tf.image.extract_jpeg_shape(content).numpy()
        except tf.errors.OpError:
            return 0
        return int(height) * int(width)
    if content.startswith(_BMP):
        return _bmp_pixels(content)
    return _gif_pixels(content) if content.startswith(_GIF) else 0


def _product(width: bytes, height: bytes, order: Literal["little", "big"]) -> int:
    return int.from_bytes(width, order) * int.from_bytes(height, order)


def _bmp_pixels(content: bytes) -> int:
    sides = (int.from_bytes(content[at : at + 4], "little", signed=True) for at in (18, 22))
    return abs(math.prod(sides))  # the height of a file that is stored from the top is negative


def _gif_pixels(content: bytes) -> int:
    """The pixels of all frames, each as large as the largest sides that blocks of the file say."""
    sides = [(content[6:8], content[8:10])]
    place = 13 + _palette(content[10:11])
    while place < len(content):
        if content[place] == 0x2C:  # a frame: its place and size, a palette, the size of codes
            sides.append((content[place + 5 : place + 7], content[place + 7 : place + 9]))
            place += 11 + _palette(content[place + 9 : place + 10])
        elif content[place] == 0x21:  # an extension
            place += 2
        else:  # the end, or damage
            break
        while place < len(content) and content[place]:  # parts of up to 255 bytes
            place += 1 + content[place]
        place += 1
    widths, heights = (
        [int.from_bytes(side, "little") for side in all_] for all_ in zip(*sides, strict=True)
    )
    return max(len(sides) - 1, 1) * max(widths) * max(heights)


def _palette(flags: bytes) -> int:
    """The bytes of the palette that follows, from the flags before it."""
    return 3 * 2 ** ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
