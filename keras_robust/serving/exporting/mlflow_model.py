"""An exported version as an MLflow model, which predicts and detects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

import keras_robust
from keras_robust.serving.exporting.extras import import_extra
from keras_robust.serving.exporting.saved_model import SavedModelSession
from keras_robust.serving.exporting.verify import verify

SIGNATURE = "detect"


def save_mlflow(version_dir: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Writes a version as an MLflow model, a pyfunc without pickles.

    `mlflow.pyfunc.load_model(path).predict(images)` returns the outputs of the signature `detect`;
    `predict(images, params={"signature": "serving_default"})` those of another one. The version
    keeps its checks: images outside [0, 1] are an error.

    Args:
        version_dir: a directory that `export_model` wrote; it is verified, and copied.
        path: a new directory.

    Raises:
        ImportError: MLflow is not installed.
        FileNotFoundError, VerificationError: see `verify`.
    """
    mlflow = import_extra("mlflow", "mlflow", "An MLflow model")
    import_extra("mlflow.pyfunc", "mlflow", "An MLflow model")
    verify(version_dir)
    version = Path(version_dir).resolve()
    schema = mlflow.types.schema
    with SavedModelSession(version) as model:
        info = model.signatures[SIGNATURE].inputs["images"]
        shape = [int(dim.size) for dim in info.tensor_shape.dim]
    inputs = schema.Schema([schema.TensorSpec(np.dtype(np.float32), shape)])
    params = schema.ParamSchema([schema.ParamSpec("signature", "string", SIGNATURE)])
    mlflow.pyfunc.save_model(
        path=os.fspath(path),
        loader_module=__name__,
        data_path=str(version),
        signature=mlflow.models.ModelSignature(inputs=inputs, params=params),
        pip_requirements=[f"keras_robust[serving]=={keras_robust.__version__}"],
    )
    return Path(path)


class DetectingModel:
    """What MLflow loads: predictions and verdicts of a version."""

    def __init__(self, version_dir: str):
        self._session = SavedModelSession(version_dir)

    def predict(
        self, model_input: Any, params: dict[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        """The outputs of a signature, one row per image.

        Args:
            model_input: `[batch, height, width, channels]` in [0, 1].
            params: `{"signature": name}`; default `"detect"`.

        Raises:
            tf.errors.InvalidArgumentError: images outside [0, 1].
        """
        signature = (params or {}).get("signature", SIGNATURE)
        return self._session.predict(signature, np.asarray(model_input, np.float32))


def _load_pyfunc(data_path: str) -> DetectingModel:
    """Loads what `save_mlflow` wrote; MLflow calls it by this name."""
    return DetectingModel(data_path)
