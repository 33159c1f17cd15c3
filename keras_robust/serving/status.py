"""Status codes shared by the servers and the clients, over gRPC and over REST."""

from __future__ import annotations

import enum
import http
import re

# gRPC sends the sentence in a trailer, and refuses trailers of more than a few kilobytes.
MAX_SENTENCE = 1000


class Code(enum.IntEnum):
    """The canonical codes: the same numbers in TensorFlow, in gRPC and in TensorFlow Serving."""

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


# The table by which TensorFlow Serving turns a status into an HTTP answer.
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
    """A request that failed, with the status code and the sentence that the client is given.

    Args:
        code: one of the canonical codes.
        sentence: what is wrong with the request, for whoever sent it.

    Example:
        >>> error = ServingError(Code.NOT_FOUND, "Servable not found for request: Latest(digits)")
        >>> error.code.name, error.http_status
        ('NOT_FOUND', 404)
    """

    def __init__(self, code: Code, sentence: str) -> None:
        # It may quote a request, or a server that is not trusted: one line, no escapes.
        sentence = "".join(c if c.isprintable() else " " for c in sentence[: MAX_SENTENCE + 1])
        if len(sentence) > MAX_SENTENCE:
            sentence = sentence[: MAX_SENTENCE - 3] + "..."
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence

    @property
    def http_status(self) -> int:
        """The HTTP status that TensorFlow Serving gives this code."""
        return HTTP_STATUS[self.code]


def invalid(sentence: str) -> ServingError:
    """The error of a bad request."""
    return ServingError(Code.INVALID_ARGUMENT, sentence)


def code_of_http(status: int) -> Code:
    """The code that an HTTP status stands for; of the several that share 400, the commonest.

    Example:
        >>> code_of_http(404).name, code_of_http(418).name, code_of_http(599).name
        ('NOT_FOUND', 'INVALID_ARGUMENT', 'UNKNOWN')
    """
    fallback = Code.INVALID_ARGUMENT if 400 <= status < 500 else Code.UNKNOWN
    return _CODE_OF_HTTP.get(status, fallback)


def reason_of_http(status: int) -> str:
    """The standard phrase of an HTTP status, or nothing."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


def clean_sentence(message: str) -> str:
    """What a TensorFlow error says, without the names of nodes and the trace of the graph.

    Args:
        message: as in `tf.errors.OpError.message`.

    Returns:
        One line. Of a failed assertion, the message and values given by who wrote it.

    Example:
        >>> clean_sentence("assertion failed: [images must be in [0, 1]; got] [5] [[{{node A}}]]")
        'images must be in [0, 1]; got 5'
    """
    lines = [re.sub(r"\[\[?\{\{.*", "", line).strip() for line in message.splitlines()]
    lines = [re.sub(r"^\(\d+\) [A-Za-z_ ]+: ", "", line) for line in lines]
    lines = [line for line in lines if line and not _NOISE.match(line)]
    sentence = lines[0] if lines else "The model failed on this request."
    if sentence.startswith("assertion failed: "):
        groups = _bracketed(sentence.removeprefix("assertion failed: "))
        # tf.debugging.assert_* add how they compared, and the names of their operands.
        said = [index for index, group in enumerate(groups) if group.startswith("Condition ")]
        sentence = " ".join(groups[: said[0]] if said and said[0] else groups) or sentence
    return sentence


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
