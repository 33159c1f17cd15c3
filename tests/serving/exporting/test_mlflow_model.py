"""An MLflow model predicts and detects as the version does."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.serving.exporting.mlflow_model import DetectingModel, save_mlflow


def check(model, images, classifier, detector):
    found = model.predict(images)
    np.testing.assert_allclose(
        found["probabilities"], tf.nn.softmax(classifier(images)["logits"]), atol=1e-5
    )
    np.testing.assert_array_equal(found["is_adversarial"], detector.is_adversarial(images))
    plain = model.predict(images, params={"signature": "serving_default"})
    assert set(plain) == {"probabilities", "classes"}
    with pytest.raises(tf.errors.InvalidArgumentError, match="must lie in"):
        model.predict(images + 2)


def test_what_mlflow_loads(exported_model, random_images, classifier, detector):
    model = DetectingModel(str(exported_model / "1"))
    check(model, random_images(3), classifier, detector)


@pytest.mark.slow
def test_with_mlflow(exported_model, random_images, classifier, detector, tmp_path):
    mlflow = pytest.importorskip("mlflow.pyfunc", reason="pip install 'keras_robust[mlflow]'")
    path = save_mlflow(exported_model / "1", tmp_path / "model")
    assert not [*path.rglob("*.pkl")]
    check(mlflow.load_model(str(path)), random_images(3), classifier, detector)


def test_without_mlflow(exported_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match=r"pip install 'keras_robust\[mlflow\]'"):
        save_mlflow(exported_model / "1", tmp_path / "model")
    assert not list(tmp_path.iterdir())
