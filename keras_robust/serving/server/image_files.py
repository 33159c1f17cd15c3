"""The size of images in PNG and JPEG files, read from their first bytes without decoding them."""

from __future__ import annotations

import re

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_MARKER = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)
# Markers of frames (SOF), which hold the size; the others in this range are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a segment: TEM, RST0 to RST7, SOI.
_BARE = {0x01, *range(0xD0, 0xD9)}
# A file has some dozens before its frame; millions would take seconds.
MAX_SEGMENTS = 1000


def count_pixels(content: bytes) -> int:
    r"""Counts the pixels that a file unpacks to; 0 if it is not PNG or JPEG, or truncated.

    Raises:
        ValueError: a JPEG file with more than `MAX_SEGMENTS` segments before its size.

    Example:
        >>> count_pixels(b"\x89PNG\r\n\x1a\n    IHDR" + bytes([0, 0, 0, 3, 0, 0, 0, 2]))
        6
    """
    if content.startswith(_PNG):
        width, height = content[16:20], content[20:24]
    elif content.startswith(_JPEG):
        at = _frame(content)
        height, width = content[at + 5 : at + 7], content[at + 7 : at + 9]
    else:
        return 0
    return int.from_bytes(width, "big") * int.from_bytes(height, "big")


def _frame(content: bytes) -> int:
    """The position of the frame's marker in a JPEG file; the end of the file without one."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(content, at)  # as decoders do, skips what stands between segments
        if found is None:
            return len(content)
        at, marker = found.start(), content[found.start() + 1]
        if marker in _FRAMES:
            return at
        has_segment = marker not in _BARE
        at += 2 + (int.from_bytes(content[at + 2 : at + 4], "big") if has_segment else 0)
    raise ValueError(f"more than {MAX_SEGMENTS} segments come before its size")
