"""Warm-up requests, which TensorFlow Serving replays before it declares a version available.

The first request to a signature is slow because the graph is optimized then. TensorFlow Serving
replays `assets.extra/tf_serving_warmup_requests` while it loads a version.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_robust.serving.exporting.signatures import signatures_of

try:
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "Export and serving need the package tensorflow-serving-api, which is not installed; run "
        "`pip install 'keras_robust[serving]'`."
    ) from error

WARMUP_FILE = "tf_serving_warmup_requests"
BATCH_SIZES = (1, 8)
# TensorFlow Serving does not load a version with more.
MAX_REQUESTS = 1000


def warmup_requests(
    name: str,
    shape: tuple[int, int, int],
    batch_sizes: tuple[int, ...] = BATCH_SIZES,
    radius: float | None = None,
) -> Iterator[predict_pb2.PredictRequest]:
    """Yields requests with gray images, one per signature and batch size.

    Args:
        name: name of the model.
        shape: height, width and channels of an image.
        batch_sizes: numbers of images per request.
        radius: that of `certify`; None for a version without bounds.

    Example:
        >>> requests = list(warmup_requests("digits", (8, 8, 1), batch_sizes=(1, 4)))
        >>> [request.model_spec.signature_name for request in requests[:2]]
        ['serving_default', 'serving_default']
    """
    file = tf.io.encode_png(np.full(shape, 128, np.uint8)).numpy()
    for signature, keys in signatures_of(radius is not None).items():
        for size in batch_sizes:
            # One value and a shape: the message stays small for any batch size.
            tensors = {
                "images": tf.make_tensor_proto(0.5, tf.float32, shape=[size, *shape]),
                "image_bytes": tf.make_tensor_proto([file] * size, tf.string),
                "radius": tf.make_tensor_proto(radius or 0.0, tf.float32, shape=[size]),
            }
            spec = model_pb2.ModelSpec(name=name, signature_name=signature)
            inputs = {key: tensors[key] for key in keys}
            yield predict_pb2.PredictRequest(model_spec=spec, inputs=inputs)


def write_warmup(
    version_dir: str | os.PathLike[str],
    name: str,
    shape: tuple[int, int, int],
    batch_sizes: tuple[int, ...] = BATCH_SIZES,
    radius: float | None = None,
) -> Path:
    """Writes the warm-up requests into a version directory.

    Args:
        version_dir: the directory of a SavedModel.
        name: name of the model.
        shape: height, width and channels of an image.
        batch_sizes: numbers of images; one request per signature and size.
        radius: that of `certify`; None for a version without bounds.

    Returns:
        The file written.

    Raises:
        ValueError: no batch sizes, one below 1, or too many for TensorFlow Serving.
    """
    most = MAX_REQUESTS // len(signatures_of(radius is not None))
    if not 0 < len(batch_sizes) <= most or min(batch_sizes) < 1:
        raise ValueError(
            f"batch_sizes is {batch_sizes!r}; expected 1 to {most} numbers of images, each at "
            "least 1."
        )
    path = Path(version_dir) / "assets.extra" / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in warmup_requests(name, shape, batch_sizes, radius):
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
    return path


def read_warmup(version_dir: str | os.PathLike[str]) -> list[predict_pb2.PredictRequest]:
    """Reads the warm-up requests of a version directory; an empty list without such a file."""
    path = Path(version_dir) / "assets.extra" / WARMUP_FILE
    if not path.is_file():
        return []
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    return [log.predict_log.request for log in logs]
