"""Converted files answer as the model does; what they cannot check, they tell."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from keras_robust.detection import Detector
from keras_robust.serving.exporting import convert
from keras_robust.serving.exporting.convert import convert_model
from keras_robust.serving.exporting.converted_model import ConvertedModel
from keras_robust.serving.exporting.verify import VerificationError

OUTPUTS = {"probabilities", "classes", "detection_score", "is_adversarial", "out_of_range"}
NEEDS = {".onnx": ("tf2onnx", "onnxruntime"), ".xml": ("openvino",)}


@pytest.fixture(scope="module")
def tflite(tmp_path_factory, classifier, detector):
    path = tmp_path_factory.mktemp("converted") / "model.tflite"
    return convert_model(classifier, path, detector, class_names=list("0123456789"))


@pytest.fixture(
    scope="module",
    params=[".tflite", *(pytest.param(s, marks=pytest.mark.slow) for s in NEEDS)],
)
def converted(request, tflite, tmp_path_factory, classifier, detector):
    """The model in each format; without its packages, the test is skipped."""
    if request.param == ".tflite":
        return tflite.path
    for package in NEEDS[request.param]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; pip install 'keras_robust[onnx,openvino]'")
    path = tmp_path_factory.mktemp("converted") / f"model{request.param}"
    return convert_model(classifier, path, detector).path


def test_it_answers_as_the_model_does(converted, classifier, detector, random_images):
    model, images = ConvertedModel(converted), random_images(20, seed=3)
    found = model(images)
    outputs = classifier(images)
    assert set(found) == set(model.outputs) == OUTPUTS and model.input_shape == (8, 8, 1)
    probabilities = np.exp(outputs["logits"]) / np.exp(outputs["logits"]).sum(-1, keepdims=True)
    np.testing.assert_allclose(found["probabilities"], probabilities, atol=1e-5)
    np.testing.assert_allclose(found["detection_score"], detector.score(images), atol=1e-5)
    np.testing.assert_array_equal(found["classes"], np.argmax(outputs["logits"], -1))
    np.testing.assert_array_equal(found["is_adversarial"], detector.is_adversarial(images))
    assert not found["out_of_range"].any()


@pytest.mark.parametrize("value", [1.5, -0.5, 255.0, np.nan])
def test_images_out_of_range_are_clipped_and_told(value, converted, random_images):
    """Runtimes drop the check that a served model makes."""
    images = random_images(3)
    images[1, 2, 3, 0] = value
    found, clipped = map(ConvertedModel(converted), (images, np.clip(images, 0, 1)))
    assert found["out_of_range"].tolist() == [False, True, False]
    np.testing.assert_array_equal(found["probabilities"], clipped["probabilities"])


def test_metadata_and_what_was_compared(tflite):
    about = json.loads(tflite.path.with_suffix(".tflite.json").read_text())
    assert (about["format"], about["out_of_range"]) == ("tflite", "clipped, and told")
    assert about["class_names"] == list("0123456789")
    assert about["detector"]["score"] == "entropy"
    assert about["compared"]["images"] == tflite.images == 6
    assert tflite.difference <= 1e-5 and "0 other classes" in tflite.summary()
    names = {path.name for path in tflite.path.parent.iterdir()}
    assert names == {"model.tflite", "model.tflite.json"}


@pytest.mark.parametrize("quantize", ["dynamic", pytest.param("float16", marks=pytest.mark.slow)])
def test_a_quantized_model_tells_its_verdicts(
    quantize, tmp_path, classifier, detector, random_images
):
    images = random_images(40, seed=2)
    path = tmp_path / "model.tflite"
    found = convert_model(classifier, path, detector, quantize=quantize, images=images)
    answer = ConvertedModel(path)(images)
    flags = answer["is_adversarial"] != detector.is_adversarial(images).numpy()
    classes = answer["classes"] != np.argmax(classifier(images)["logits"], -1)
    assert (found.images, found.changed_classes, found.changed_flags) == (
        *(40, classes.sum()),
        flags.sum(),
    )
    assert found.difference > 0
    about = json.loads(path.with_suffix(".tflite.json").read_text())
    assert about["compared"]["changed_flags"] == flags.sum() and about["quantize"] == quantize


def test_a_keras_file_and_its_detector(tmp_path, classifier, detector):
    found = convert_model(classifier, tmp_path / "model.keras", detector)
    assert found.difference == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.keras", "model.keras.json", "model.detector.json",
    }  # fmt: skip


def test_a_file_that_answers_differently_is_not_kept(
    tmp_path, classifier, detector, monkeypatch, tiny_classifier
):
    other, function = tiny_classifier(seed=1), convert.detection_function
    foreign = Detector.from_calibration(other, detector.calibration)
    monkeypatch.setattr(convert, "detection_function", lambda *_: function(other, foreign))
    with pytest.raises(VerificationError, match="differs from the local model's"):
        convert_model(classifier, tmp_path / "model.tflite", detector)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_file_that_does_not_clip_is_not_kept(tmp_path, classifier, detector, monkeypatch):
    monkeypatch.setattr(convert.tf, "clip_by_value", lambda x, *_: x)
    with pytest.raises(VerificationError, match="neither clips nor tells"):
        convert_model(classifier, tmp_path / "model.tflite", detector)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_outputs_can_be_left_out(tmp_path, classifier, detector):
    path = tmp_path / "model.tflite"
    withhold = ("detection_score", "is_adversarial")
    convert_model(classifier, path, detector, withhold=withhold)
    assert set(ConvertedModel(path).outputs) == OUTPUTS - {*withhold}


def test_user_errors(tmp_path, classifier, detector, tflite, monkeypatch):
    for path, options, error, text in (
        (tflite.path, {}, FileExistsError, "is not overwritten"),
        (tmp_path / "a.pb", {}, ValueError, "no format of models with the suffix '.pb'"),
        (tmp_path / "a.keras", {"quantize": "dynamic"}, ValueError, "only .tflite files"),
        (tmp_path / "a.tflite", {"quantize": "int4"}, ValueError, "no quantization 'int4'"),
    ):
        with pytest.raises(error, match=text):
            convert_model(classifier, path, detector, **options)
    monkeypatch.setattr(
        importlib, "import_module", lambda _: (_ for _ in ()).throw(ImportError("no"))
    )
    for path in ("a.onnx", "a.xml"):
        with pytest.raises(ImportError, match=r"pip install 'keras_robust\["):
            convert_model(classifier, tmp_path / path, detector)
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_models(tmp_path):
    (tmp_path / "a.tflite").write_text("text")
    with pytest.raises(ValueError, match=r"a\.tflite cannot be opened by tensorflow"):
        ConvertedModel(tmp_path / "a.tflite")
    with pytest.raises(FileNotFoundError):
        ConvertedModel(tmp_path / "b.tflite")
    with pytest.raises(ValueError, match="expected .onnx"):
        ConvertedModel(tmp_path / "a.pb")
