"""Warm-up requests: what TensorFlow Serving sends to a model before it is declared available.

The first request to a signature is slow, for the graph is optimised then; TensorFlow Serving
replays the file `assets.extra/tf_serving_warmup_requests` of a version while it loads, so that no
client waits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_robust.serving.exporting.signatures import INPUTS

try:
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "Warm-up requests need TensorFlow Serving's messages, which are not installed; run "
        "`pip install 'keras_robust[serving]'`."
    ) from error

WARMUP_FILE = "tf_serving_warmup_requests"
BATCH_SIZES = (1, 8)
# TensorFlow Serving refuses to load a version with more.
MAX_REQUESTS = 1000


def warmup_requests(
    name: str, shape: tuple[int, int, int], batch_sizes: tuple[int, ...] = BATCH_SIZES
) -> Iterator[predict_pb2.PredictRequest]:
    """Requests with grey images, one for each signature and batch size.

    Args:
        name: of the model.
        shape: height, width and channels of an image.
        batch_sizes: numbers of images.

    Yields:
        PredictRequests.

    Example:
        >>> requests = list(warmup_requests("digits", (8, 8, 1), batch_sizes=(1, 4)))
        >>> [request.model_spec.signature_name for request in requests[:2]]
        ['serving_default', 'serving_default']
    """
    file = tf.io.encode_png(np.full(shape, 128, np.uint8)).numpy()
    for signature, key in INPUTS.items():
        for size in batch_sizes:
            if key == "images":
                # One value and a shape: such a proto is small however large the batch.
                tensor = tf.make_tensor_proto(0.5, tf.float32, shape=[size, *shape])
            else:
                tensor = tf.make_tensor_proto([file] * size, tf.string)
            spec = model_pb2.ModelSpec(name=name, signature_name=signature)
            yield predict_pb2.PredictRequest(model_spec=spec, inputs={key: tensor})


def write_warmup(
    version_dir: str | os.PathLike[str],
    name: str,
    shape: tuple[int, int, int],
    batch_sizes: tuple[int, ...] = BATCH_SIZES,
) -> Path:
    """Writes the warm-up requests into a version directory.

    Args:
        version_dir: the directory of a SavedModel.
        name: of the model.
        shape: height, width and channels of an image.
        batch_sizes: numbers of images; one request is made for each signature and size.

    Returns:
        The file written.

    Raises:
        ValueError: when there are none, not positive, or too many for TensorFlow Serving.
    """
    requests = len(INPUTS) * len(batch_sizes)
    if not 0 < requests <= MAX_REQUESTS or min(batch_sizes) < 1:
        raise ValueError(
            f"batch_sizes={batch_sizes!r} was received; expected positive numbers of images, and "
            f"at most {MAX_REQUESTS // len(INPUTS)} of them."
        )
    path = Path(version_dir) / "assets.extra" / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in warmup_requests(name, shape, batch_sizes):
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
    return path


def read_warmup(version_dir: str | os.PathLike[str]) -> list[predict_pb2.PredictRequest]:
    """The warm-up requests of a version directory; none when it has no such file."""
    path = Path(version_dir) / "assets.extra" / WARMUP_FILE
    if not path.is_file():
        return []
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    return [log.predict_log.request for log in logs]
