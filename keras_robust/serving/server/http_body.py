"""The body of an HTTP request: how long it may be, and how long it may take."""

from __future__ import annotations

import io
import time
from email.message import Message

BODY_SECONDS = 120.0
_CHUNK = 2**16


class HttpError(Exception):
    """A request that HTTP itself refuses, before TensorFlow Serving's codes come into play.

    Args:
        status: of the answer.
        sentence: what is wrong with the request.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def too_large(length: int, limit: int) -> HttpError:
    """The error of a body of more bytes than are taken."""
    return HttpError(
        413, f"The body has {length} bytes; expected at most {limit}. Send smaller batches."
    )


def content_length(headers: Message) -> int:
    """The number of bytes of the body that a head announces.

    Raises:
        HttpError: when there are several numbers, or none that can be read; or when the head is
            spoilt, so that the number may stand behind what could not be read.
    """
    if headers.defects:
        raise HttpError(400, "A line of the head is no header; expected 'Name: value'")
    if "Transfer-Encoding" in headers:
        raise HttpError(411, "A chunked body was received; expected a Content-Length")
    lengths = set(headers.get_all("Content-Length", []))
    if not lengths:
        return 0
    text = lengths.pop().strip()
    if lengths or not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise HttpError(400, f"Content-Length is {text[:40]!r}; expected one number of bytes")
    return int(text)


def read_body(stream: io.BufferedIOBase, length: int) -> bytes:
    """Reads a body.

    Raises:
        HttpError: when it ends early, or takes too long.
    """
    body, deadline = bytearray(), time.monotonic() + BODY_SECONDS
    while len(body) < length:
        try:
            chunk = stream.read1(min(_CHUNK, length - len(body)))
        except TimeoutError as error:
            raise HttpError(408, "The body did not arrive in time") from error
        if not chunk:
            raise HttpError(400, f"The body ended after {len(body)} of {length} bytes")
        if time.monotonic() > deadline:
            raise HttpError(408, "The body did not arrive in time")
        body += chunk
    return bytes(body)
