"""A client of TensorFlow Serving's REST interface, without TensorFlow and gRPC."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterable
from typing import Any, TypedDict
from urllib.parse import quote

import numpy as np

from keras_robust.serving.status import Code, ServingError, code_of_http

DEFAULT_SIGNATURE = "serving_default"
# Images, the contents of image files, or inputs by their names.
Inputs = np.ndarray | list[bytes] | dict[str, np.ndarray | list[bytes]]


class TensorInfo(TypedDict):
    """Type and shape of an input or output; -1 stands for any length."""

    dtype: str
    shape: list[int]


# A model server knows no credentials; a proxy in front of it answers these, often with HTML.
CREDENTIALS = (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)
# Signature -> "inputs" or "outputs" -> name.
Signatures = dict[str, dict[str, dict[str, TensorInfo]]]


class RestClient:
    """A REST client of a model server; may be used by several threads.

    Args:
        address: `host:port`, optionally after `http://` or `https://`.
        timeout: seconds to connect, and between two parts of the answer.
        tls: connect with HTTPS, to a proxy in front of the server.
        token: sent to that proxy as `Authorization: Bearer ...`.

    Raises:
        ValueError: a token without TLS, which would be readable on the network.

    Example:
        >>> RestClient("http://localhost:8501/").address
        'localhost:8501'
    """

    def __init__(
        self, address: str, timeout: float = 10.0, tls: bool = False, token: str | None = None
    ) -> None:
        self.tls = tls or address.startswith("https://")
        self.address = address.removeprefix("https://").removeprefix("http://").rstrip("/")
        self.timeout = timeout
        self._headers = {"Content-Type": "application/json", **authorization(token, self.tls)}

    def predict(
        self,
        model: str,
        inputs: Inputs,
        signature: str = DEFAULT_SIGNATURE,
        *,
        version: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs a signature, in column format.

        Args:
            model: the name it is served by.
            inputs: images `[batch, height, width, channels]` in [0, 1], or a list with the content
                of one PNG or JPEG file each, or a dictionary of named inputs.
            signature: `serving_default` or `detect` for images, `serving_bytes` or `detect_bytes`
                for files.
            version: default the newest.

        Returns:
            `{output: array}`; a single output is called `"outputs"`.

        Raises:
            ServingError: the server rejects the request or cannot be reached.
        """
        named = inputs if isinstance(inputs, dict) else {"": inputs}
        values = {name: _to_json(value) for name, value in named.items()}
        body = {
            "signature_name": signature,
            "inputs": values if isinstance(inputs, dict) else values[""],
        }
        outputs = self.request("POST", f"{_path(model, version)}:predict", body)["outputs"]
        outputs = outputs if isinstance(outputs, dict) else {"outputs": outputs}
        return {name: _to_array(value) for name, value in outputs.items()}

    def metadata(self, model: str, version: int | None = None) -> Signatures:
        """The signatures of a model: `{signature: {"inputs": {name: {"dtype", "shape"}}, ...}}`.

        Raises:
            ServingError: the server rejects the request or cannot be reached.
        """
        answer = self.request("GET", f"{_path(model, version)}/metadata")
        definitions = answer["metadata"]["signature_def"]["signature_def"]
        return {
            name: {side: _described(definition.get(side, {})) for side in ("inputs", "outputs")}
            for name, definition in definitions.items()
        }

    def status(self, model: str, version: int | None = None) -> dict[int, str]:
        """The state of each version: `{1: "AVAILABLE"}`.

        Raises:
            ServingError: the server rejects the request or cannot be reached.
        """
        answer = self.request("GET", _path(model, version))
        return {int(e["version"]): e["state"] for e in answer["model_version_status"]}

    def request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Sends one request and parses the JSON answer.

        Raises:
            ServingError: the request is rejected, or no model server can be reached.
        """
        kind = http.client.HTTPSConnection if self.tls else http.client.HTTPConnection
        content = None if body is None else json.dumps(body).encode()
        try:
            connection = kind(self.address, timeout=self.timeout)
            try:
                connection.request(method, path, content, self._headers)
                response = connection.getresponse()
                status, text = response.status, response.read()
            finally:
                connection.close()
        except TimeoutError as error:
            raise ServingError(
                Code.DEADLINE_EXCEEDED,
                f"{self.address} did not answer within {self.timeout:g} seconds",
            ) from error
        except http.client.HTTPException as error:
            raise ServingError(
                Code.UNAVAILABLE,
                f"{self.address} does not speak HTTP ({type(error).__name__}); expected host:port "
                "with the REST port of a server",
            ) from error
        except OSError as error:
            raise ServingError(
                Code.UNAVAILABLE, f"No model server answers at {self.address}: {error}"
            ) from error
        return self._read(status, text)

    def _read(self, status: int, text: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if code_of_http(status) in CREDENTIALS and not _has_error(answer):
            code = code_of_http(status)
            raise ServingError(code, refused(self.address, str(status), self._headers))
        if not isinstance(answer, dict):
            raise ServingError(
                Code.UNKNOWN if status == 200 else code_of_http(status),
                f"{self.address} answered {status} without JSON; expected a server's REST port",
            )
        if status != 200 or _has_error(answer):
            raise ServingError(code_of_http(status), str(answer.get("error", status)))
        return answer


def authorization(token: str | None, tls: bool) -> dict[str, str]:
    """The header with a token; empty without one.

    Raises:
        ValueError: a token without TLS, or with characters that a header cannot hold.

    Example:
        >>> authorization("3f9a", tls=True)
        {'Authorization': 'Bearer 3f9a'}
    """
    if token is None:
        return {}
    if not tls:
        raise ValueError("A token needs TLS; without it, the token is readable on the network.")
    if not (token.isascii() and token.isprintable() and token) or " " in token:
        raise ValueError(
            "The token is empty, or has spaces or characters that are not printable ASCII."
        )
    return {"Authorization": f"Bearer {token}"}


def refused(address: str, answer: str, headers: Iterable[Any]) -> str:
    """The message that a proxy refused the credentials.

    Args:
        address: of the proxy.
        answer: its status or message.
        headers: the headers that were sent; empty without a token, apart from the content's type.
    """
    sent = any("authorization" in str(header).lower() for header in headers)
    advice = (
        "the token that was sent is wrong, expired, or not valid for this model"
        if sent
        else "no token was sent; pass `token` and TLS, in programs SERVING_TOKEN and --tls"
    )
    return f"The proxy at {address} refused the credentials ({answer}): {advice}"


def _has_error(answer: Any) -> bool:
    return isinstance(answer, dict) and "error" in answer


def _path(model: str, version: int | None) -> str:
    path = f"/v1/models/{quote(model, safe='')}"
    return path if version is None else f"{path}/versions/{version}"


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        # The shortest digits that give the same float32: half the length of a double's.
        return value.astype(str).astype(np.float64).tolist()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return [_to_json(item) for item in value] if isinstance(value, list) else value


def _to_array(value: Any) -> np.ndarray:
    array = np.array(value)
    # TensorFlow Serving's JSON has no types; its floats are 32 bits wide.
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _described(infos: dict[str, Any]) -> dict[str, TensorInfo]:
    return {
        name: {
            "dtype": _TYPES.get(info["dtype"], info["dtype"]),
            "shape": [int(dim["size"]) for dim in info.get("tensor_shape", {}).get("dim", [])],
        }
        for name, info in infos.items()
    }


_TYPES = {
    "DT_FLOAT": "float32",
    "DT_DOUBLE": "float64",
    "DT_INT32": "int32",
    "DT_INT64": "int64",
    "DT_UINT8": "uint8",
    "DT_BOOL": "bool",
    "DT_STRING": "string",
}
