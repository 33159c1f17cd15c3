"""The size of the body of an HTTP request, and errors on the level of HTTP."""

from __future__ import annotations

from email.message import Message


class HttpError(Exception):
    """A request rejected on the level of HTTP, before TensorFlow Serving's codes apply.

    Args:
        status: HTTP status of the answer.
        message: the error message.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def too_large(length: int, limit: int) -> HttpError:
    """Makes the error of a body above the limit."""
    return HttpError(
        413, f"The body has {length} bytes; expected at most {limit}. Send smaller batches."
    )


def content_length(headers: Message) -> int:
    """Reads the body's size in bytes from the headers.

    Raises:
        HttpError: malformed headers (which may hide the size), a chunked body, or a size that is
            ambiguous or not a number.
    """
    if headers.defects:
        raise HttpError(400, "A header line is malformed; expected 'Name: value'")
    if "Transfer-Encoding" in headers:
        raise HttpError(411, "A chunked body was received; expected a Content-Length")
    lengths = set(headers.get_all("Content-Length", []))
    if not lengths:
        return 0
    text = lengths.pop().strip()
    if lengths or not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise HttpError(400, f"Content-Length is {text[:40]!r}; expected one number of bytes")
    return int(text)
