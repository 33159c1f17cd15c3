"""Checks that the optional packages of a command are installed, before it does any work."""

from __future__ import annotations

import importlib.util

# Extra of the distribution -> its packages: name to import -> name to install.
EXTRAS = {
    "report": {"matplotlib": "matplotlib", "jinja2": "jinja2"},
    "serving": {
        "tensorflow_serving": "tensorflow-serving-api",
        "grpc": "grpcio",
        "grpc_health": "grpcio-health-checking",
        "grpc_reflection": "grpcio-reflection",
        "prometheus_client": "prometheus-client",
        "aiohttp": "aiohttp",
    },
    "onnx": {"onnx": "onnx", "onnxruntime": "onnxruntime", "tf2onnx": "tf2onnx"},
    "openvino": {"openvino": "openvino"},
}


def require_extra(extra: str, purpose: str) -> None:
    """Raises if packages of an extra are missing.

    Args:
        extra: a key of `EXTRAS`.
        purpose: what needs them, for the message.

    Raises:
        ModuleNotFoundError: with the command that installs them.

    Example:
        >>> require_extra("report", "The HTML report")
    """
    missing = [
        distribution
        for module, distribution in EXTRAS[extra].items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ModuleNotFoundError(
            f"{purpose} needs {' and '.join(missing)}, which {verb} not installed; run "
            f"`pip install 'keras_robust[{extra}]'`."
        )
