"""Status codes shared by the servers and the clients, over gRPC and over REST."""

from __future__ import annotations

import enum
import http
import re

# gRPC sends the message in a trailer, and refuses trailers of more than a few kilobytes.
MAX_MESSAGE = 1000


class Code(enum.IntEnum):
    """The canonical status codes, numbered as in TensorFlow, gRPC and TensorFlow Serving."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# TensorFlow Serving's table from status codes to HTTP statuses.
HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
_CODE_OF_HTTP = {
    400: Code.INVALID_ARGUMENT,
    404: Code.NOT_FOUND,
    408: Code.DEADLINE_EXCEEDED,
    409: Code.ABORTED,
    413: Code.RESOURCE_EXHAUSTED,
    500: Code.INTERNAL,
    **{
        status: code
        for code, status in HTTP_STATUS.items()
        if status in (401, 403, 429, 499, 501, 503, 504)
    },
}


class ServingError(Exception):
    """A failed request: the status code and the error message sent to the client.

    Args:
        code: the status code.
        message: shortened to `MAX_MESSAGE` characters; control characters become spaces.

    Example:
        >>> error = ServingError(Code.NOT_FOUND, "Servable not found for request: Latest(digits)")
        >>> error.code.name, error.http_status
        ('NOT_FOUND', 404)
    """

    def __init__(self, code: Code, message: str) -> None:
        # It may quote a request or an untrusted server: one line, no escape sequences.
        message = "".join(c if c.isprintable() else " " for c in message[: MAX_MESSAGE + 1])
        if len(message) > MAX_MESSAGE:
            message = message[: MAX_MESSAGE - 3] + "..."
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def http_status(self) -> int:
        """The HTTP status of this code in TensorFlow Serving."""
        return HTTP_STATUS[self.code]


def connection_error(error: ServingError) -> ConnectionError:
    """The error as an `OSError` for users, which starts with the name of its code.

    Example:
        >>> connection_error(ServingError(Code.NOT_FOUND, "No such model"))
        ConnectionError('NOT_FOUND: No such model')
    """
    return ConnectionError(f"{error.code.name}: {error}")


def invalid(message: str) -> ServingError:
    """Makes the error of a bad request, INVALID_ARGUMENT."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def code_of_http(status: int) -> Code:
    """Maps an HTTP status to a code; 400, which several codes share, to INVALID_ARGUMENT.

    Example:
        >>> code_of_http(404).name, code_of_http(418).name, code_of_http(599).name
        ('NOT_FOUND', 'INVALID_ARGUMENT', 'UNKNOWN')
    """
    fallback = Code.INVALID_ARGUMENT if 400 <= status < 500 else Code.UNKNOWN
    return _CODE_OF_HTTP.get(status, fallback)


def reason_of_http(status: int) -> str:
    """The standard phrase of an HTTP status; empty for an unknown status."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


def clean_message(message: str) -> str:
    """Reduces a TensorFlow error message to one line, without node names and graph traces.

    Args:
        message: as in `tf.errors.OpError.message`.

    Returns:
        One line; for a failed assertion, the assertion's own message and values.

    Example:
        >>> clean_message("assertion failed: [images must be in [0, 1]; got] [5] [[{{node A}}]]")
        'images must be in [0, 1]; got 5'
    """
    lines = [re.sub(r"\[\[?\{\{.*", "", line).strip() for line in message.splitlines()]
    lines = [re.sub(r"^\(\d+\) [A-Za-z_ ]+: ", "", line) for line in lines]
    lines = [line for line in lines if line and not _NOISE.match(line)]
    first = lines[0] if lines else "The model failed on this request."
    if first.startswith("assertion failed: "):
        groups = _bracketed(first.removeprefix("assertion failed: "))
        # tf.debugging.assert_* append the comparison and the names of its operands.
        appended = [index for index, group in enumerate(groups) if group.startswith("Condition ")]
        return " ".join(groups[: appended[0]] if appended and appended[0] else groups) or first
    return first


_NOISE = re.compile(
    r"Graph execution error|Detected at node|Original stack trace|File |Traceback|"
    r"\d+ root error\(s\) found|Error in user code"
)


def _bracketed(text: str) -> list[str]:
    """The contents of the outermost brackets: `[a [b]] [c]` gives `a [b]` and `c`."""
    groups, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character == "[":
            depth += 1
            if depth == 1:
                start = index + 1
        elif character == "]" and depth:
            depth -= 1
            if depth == 0:
                groups.append(text[start:index])
    return groups
