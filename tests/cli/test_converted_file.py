"""`keras-robust evaluate` attacks converted models without gradients."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.cli import model_flags
from keras_robust.cli.converted_file import ConvertedClassifier, load_converted_file


@pytest.fixture(scope="module")
def converted(digits_model, tmp_path_factory):
    """A TFLite file with probabilities, without names, of another's making."""
    path = tmp_path_factory.mktemp("converted") / "my.tflite"
    converter = tf.lite.TFLiteConverter.from_keras_model(digits_model)
    path.write_bytes(converter.convert())
    return path


class Model:
    """Answers as a runtime does."""

    def __init__(self, path, shape, **outputs):
        self.path, self.input_shape, self.answers = path, shape, outputs
        self.received = []

    def __call__(self, images):
        self.received.append(images)
        return {name: np.repeat(rows, len(images), 0) for name, rows in self.answers.items()}


@pytest.mark.slow
def test_an_evaluation(command, converted, data_file, digits_model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = command(
        "evaluate", converted, f"--data={data_file}", "--radius=0.3", "--limit=20",
        "--attacks=square:queries=30", "--json", "--noprogress",
    )  # fmt: skip
    found = json.loads(text)
    with np.load(data_file) as arrays:
        predictions = np.argmax(digits_model(arrays["x"][:20]), axis=-1)
        assert found["clean_accuracy"] == pytest.approx((predictions == arrays["y"][:20]).mean())
    assert found["worst_case_accuracy"] < found["clean_accuracy"]
    assert found["model"] == "my" and (tmp_path / "my_report" / "report.md").is_file()


def test_the_logits_are_of_the_same_classes(converted, data_file, digits_model):
    run = load_converted_file(converted, str(data_file))
    with np.load(data_file) as arrays:
        x = tf.constant(arrays["x"])
    logits = tf.function(run.model)(x)["logits"]
    np.testing.assert_allclose(tf.nn.softmax(logits), digits_model(x), atol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"a": [[0.2, 0.8]]}, np.log([0.2, 0.8])),
        ({"a": [[2.0, -1.0]]}, [2.0, -1.0]),
        ({"features": [[9.0] * 3], "logits": [[2.0, -1.0]]}, [2.0, -1.0]),
        ({"classes": [3], "probabilities": [[1.0, 0.0]]}, [0, np.log(np.finfo("f4").tiny)]),
    ],
)
def test_logits_and_probabilities(outputs, expected, tmp_path):
    arrays = {name: np.array(rows) for name, rows in outputs.items()}
    classifier = ConvertedClassifier(Model(tmp_path / "a.onnx", (2, 2, 1), **arrays))
    found = classifier(tf.zeros([1, 2, 2, 1]))["logits"][0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_channels_first_and_other_pixels(tmp_path):
    model = Model(tmp_path / "a.onnx", (3, 4, 5), logits=np.array([[1.0, 2.0]]))
    classifier = ConvertedClassifier(model, (-1.0, 1.0))
    assert classifier.shape == (4, 5, 3)
    x = np.random.default_rng(0).random((2, 4, 5, 3)).astype(np.float32)
    classifier(tf.constant(x))
    np.testing.assert_allclose(model.received[-1], 2 * x.transpose(0, 3, 1, 2) - 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "outputs", "text"),
    [
        ((7,), {"logits": [[1.0]]}, r"takes arrays of shape \[7\]"),
        ((2, 2, 4), {"logits": [[1.0]]}, "expected images of a known size"),
        ((None, 2, 1), {"logits": [[1.0]]}, "expected images of a known size"),
        ((2, 2, 1), {"classes": [1]}, "has the outputs classes; expected logits"),
    ],
)
def test_models_of_something_else(shape, outputs, text, tmp_path):
    arrays = {name: np.array(rows) for name, rows in outputs.items()}
    with pytest.raises(ValueError, match=text):
        ConvertedClassifier(Model(tmp_path / "a.onnx", shape, **arrays))


def test_what_needs_gradients_is_refused(fails, converted, data_file):
    source = [converted, f"--data={data_file}", "--radius=0.1"]
    for flags, text in (
        ([], "which the default attacks follow; expected --attacks=square"),
        (["--attacks=square,pgd:steps=4"], "which the attack pgd:steps=4 follows"),
        (["--attacks=auto_attack"], "which the attack auto_attack follows"),
        (["--attacks=square", "--certify=ibp"], "--certify needs a Keras model file"),
        (["--attacks=square", "--score=entropy"], "--score needs a Keras model file"),
    ):
        assert text in fails("evaluate", *source, *flags)
    assert "`keras-robust evaluate` attacks" in fails("check", *source)


@pytest.mark.slow
def test_the_attacks_without_gradients(converted, data_file):
    """Each runs; one that follows a gradient does not."""
    run = load_converted_file(converted, str(data_file), radius=0.1)
    x, y = run.test_images(2)
    for name in (*model_flags.GRADIENT_FREE, "pgd"):
        norm = {"norm": "l0", "radius": 3.0} if name == "sparse_rs" else {}
        norm = {"norm": "l2", "radius": 1.0} if name in ("boundary", "hop_skip_jump") else norm
        budget = "queries" if name in ("square", "sparse_rs") else "steps"
        attack = run.attack(f"{name}:{budget}=2", {}, **norm)
        if name == "pgd":
            with pytest.raises(ValueError, match="gradient"):
                attack(run.model, x, y, seed=0)
        else:
            assert attack(run.model, x, y, seed=0).shape == x.shape
