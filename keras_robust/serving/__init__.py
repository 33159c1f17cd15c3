"""Serving: exported versions, the embedded model server, and clients for gRPC and REST.

    from keras_robust.serving import Client

    with Client("localhost:8500") as client:
        outputs = client.predict("digits", images, signature="detect")

Names are imported at their first use: the REST client needs neither TensorFlow nor gRPC.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_robust.serving.client.grpc_client import Client
    from keras_robust.serving.client.rest_client import RestClient
    from keras_robust.serving.exporting.convert import convert_model
    from keras_robust.serving.exporting.converted_model import ConvertedModel
    from keras_robust.serving.exporting.export import export_model
    from keras_robust.serving.exporting.mlflow_model import save_mlflow
    from keras_robust.serving.exporting.verify import verify
    from keras_robust.serving.metrics.telemetry import Monitoring
    from keras_robust.serving.monitor import Monitor
    from keras_robust.serving.server.batching import Batching
    from keras_robust.serving.server.server import Limits, Server
    from keras_robust.serving.status import ServingError

__all__ = [
    "Batching",
    "Client",
    "ConvertedModel",
    "Limits",
    "Monitor",
    "Monitoring",
    "RestClient",
    "Server",
    "ServingError",
    "convert_model",
    "export_model",
    "save_mlflow",
    "verify",
]

_DEFINED_IN = {
    "Batching": "server.batching",
    "Client": "client.grpc_client",
    "ConvertedModel": "exporting.converted_model",
    "Limits": "server.server",
    "Monitor": "monitor",
    "Monitoring": "metrics.telemetry",
    "RestClient": "client.rest_client",
    "Server": "server.server",
    "ServingError": "status",
    "convert_model": "exporting.convert",
    "export_model": "exporting.export",
    "save_mlflow": "exporting.mlflow_model",
    "verify": "exporting.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'keras_robust.serving' has no attribute {name!r}")
    return getattr(importlib.import_module(f"keras_robust.serving.{_DEFINED_IN[name]}"), name)


def __dir__() -> list[str]:
    return __all__
