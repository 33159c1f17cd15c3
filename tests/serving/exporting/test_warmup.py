"""Warm-up requests: parsed as TensorFlow Serving parses them, and answered by the model."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from keras_robust.serving.exporting.saved_model import SavedModelSession
from keras_robust.serving.exporting.signatures import INPUTS
from keras_robust.serving.exporting.warmup import read_warmup, warmup_requests, write_warmup


def test_an_exported_version_holds_requests_for_every_signature_and_size(exported_model):
    requests = read_warmup(exported_model / "1")
    found = [
        (r.model_spec.signature_name, len(tf.make_ndarray(*r.inputs.values()))) for r in requests
    ]
    assert sorted(found) == sorted((name, size) for name in INPUTS for size in (1, 8))
    assert {request.model_spec.name for request in requests} == {"digits"}


def test_the_model_answers_them(exported_model):
    with SavedModelSession(exported_model / "1") as model:
        for request in read_warmup(exported_model / "1"):
            ((key, proto),) = request.inputs.items()
            name = request.model_spec.signature_name
            assert key == INPUTS[name]
            batch = tf.make_ndarray(proto)
            assert len(model.predict(name, batch)["classes"]) == len(batch)


def test_the_file_is_a_record_file_of_prediction_logs(exported_model):
    path = exported_model / "1" / "assets.extra" / "tf_serving_warmup_requests"
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    kinds = {
        prediction_log_pb2.PredictionLog.FromString(record).WhichOneof("log_type")
        for record in records
    }
    assert kinds == {"predict_log"}
    assert len(records) == 8


def test_images_of_large_models_make_no_large_file(tmp_path):
    path = write_warmup(tmp_path, "large", (256, 256, 3), batch_sizes=(1, 8))
    assert path.stat().st_size < 20_000
    images = read_warmup(tmp_path)[1].inputs["images"]
    np.testing.assert_array_equal(tf.make_ndarray(images), np.full((8, 256, 256, 3), 0.5))


@pytest.mark.parametrize("sizes", [(), (0,), (1, -1), tuple(range(1, 252))])
def test_sizes_that_make_no_sense_are_refused(tmp_path, sizes):
    with pytest.raises(ValueError, match="expected 1 to 250 numbers of images"):
        write_warmup(tmp_path, "digits", (8, 8, 1), sizes)
    assert list(tmp_path.iterdir()) == []


def test_a_version_without_them_has_none(tmp_path):
    assert read_warmup(tmp_path) == []


def test_requests_are_made_one_by_one():
    first = next(warmup_requests("digits", (8, 8, 1)))
    assert first.model_spec.signature_name == "serving_default"
