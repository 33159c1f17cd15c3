"""Verification: equal versions pass, and every kind of difference is reported."""

from __future__ import annotations

import dataclasses
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust.detection import EntropyDetector
from keras_robust.serving.exporting.reference import Reference, make_reference, sample_pixels
from keras_robust.serving.exporting.saved_model import SavedModelSession
from keras_robust.serving.exporting.signatures import endpoints
from keras_robust.serving.exporting.verify import (
    VerificationError,
    read_threshold,
    verify,
)


@pytest.fixture(scope="module")
def version(exported_model):
    return exported_model / "1"


@pytest.fixture(scope="module")
def expected(version):
    return Reference.load(version / "assets.extra" / "reference.npz")


def write(path, classifier, detector, change=lambda signatures: signatures):
    """Writes a version as export does, with changed signatures."""
    threshold = tf.Variable(detector.threshold, dtype=tf.float32, trainable=False)
    archive = keras.export.ExportArchive()
    archive.track(classifier)
    archive.add_variable_collection("detector", [threshold])
    for name, (function, spec) in change(endpoints(classifier, detector, threshold)).items():
        archive.add_endpoint(name, function, input_signature=[spec])
    archive.write_out(str(path), verbose=False)
    return path


def changed(signature, change):
    """Applies `change` to the outputs of one signature."""

    def apply(signatures):
        function, spec = signatures[signature]
        return {**signatures, signature: (lambda x: change(function(x)), spec)}

    return apply


def test_an_exported_version_is_equal_to_what_was_stored(version):
    differences = verify(version)
    assert set(differences) == {"serving_default", "detect", "serving_bytes", "detect_bytes"}
    assert max(differences.values()) < 1e-5


def test_the_stored_reference_is_the_local_model(expected, classifier, detector):
    again = make_reference(classifier, detector)
    np.testing.assert_array_equal(again.pixels, expected.pixels)
    np.testing.assert_allclose(
        again.outputs["probabilities"], expected.outputs["probabilities"], atol=1e-6
    )
    assert (again.threshold, again.tolerance) == (expected.threshold, expected.tolerance)
    assert expected.tolerance <= 1e-4


def test_another_model_is_told_apart(version, tiny_classifier, calibrated):
    other = tiny_classifier(seed=1)
    detector = EntropyDetector(other, threshold=read_threshold(version))
    with pytest.raises(VerificationError, match="'probabilities' of 'serving_default' differs"):
        verify(version, make_reference(other, detector))


def test_a_difference_in_one_output_is_named(version, expected):
    for name, message in (
        (
            "probabilities",
            "'probabilities' of 'serving_default' differs from the local .* by 0.001",
        ),
        ("detection_score", "'detection_score' of 'detect' differs"),
        ("classes", "'classes' of 'serving_default' is"),
        ("is_adversarial", "'is_adversarial' of 'detect' is"),
    ):
        values = expected.outputs[name]
        moved = {"f": values + 0.001, "i": (values + 1) % 10, "b": values == 0}[values.dtype.kind]
        if values.dtype.kind == "f":
            moved = moved.astype(np.float32)
        wrong = dataclasses.replace(expected, outputs={**expected.outputs, name: moved})
        with pytest.raises(VerificationError, match=message):
            verify(version, wrong)


def test_decisions_within_rounding_may_differ(version, expected):
    """For a score at the threshold either answer is correct."""
    scores = expected.outputs["detection_score"].copy()
    flags_ = scores > expected.threshold
    nearest = np.argmin(abs(scores - expected.threshold))
    wide = abs(scores - expected.threshold)[nearest] * 1.5
    flags_[nearest] = ~flags_[nearest]
    outputs = {**expected.outputs, "is_adversarial": flags_}
    with pytest.raises(VerificationError, match="is_adversarial"):
        verify(version, dataclasses.replace(expected, outputs=outputs))
    verify(version, dataclasses.replace(expected, outputs=outputs, tolerance=float(wide)))


def test_another_threshold_is_told_apart(version, expected):
    with pytest.raises(VerificationError, match=r"The threshold in .* is .*; the local detector's"):
        verify(version, dataclasses.replace(expected, threshold=0.5))


def test_nan_is_a_difference(tmp_path, classifier, detector, expected):
    def broken(answers):
        return {**answers, "probabilities": answers["probabilities"] * np.nan}

    path = write(tmp_path / "1", classifier, detector, changed("serving_bytes", broken))
    with pytest.raises(VerificationError, match=r"'probabilities' of 'serving_bytes' .* nan"):
        verify(path, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda all_: {k: v for k, v in all_.items() if k != "detect"},
            r"has the signatures \['detect_bytes', 'serving_bytes', 'serving_default'\]; expected",
        ),
        (
            changed("detect", lambda y: {k: v for k, v in y.items() if k != "classes"}),
            "The outputs of 'detect' are .*; expected classes: int64",
        ),
        (
            changed("detect", lambda y: {**y, "classes": tf.cast(y["classes"], tf.int32)}),
            r"The outputs of 'detect' are classes: int32 \[-1\]",
        ),
        (
            changed("serving_default", lambda y: {**y, "extra": y["classes"]}),
            "The outputs of 'serving_default' are .*extra: int64",
        ),
    ],
)
def test_other_signatures_are_told_apart(tmp_path, classifier, detector, expected, change, message):
    path = write(tmp_path / "1", classifier, detector, change)
    with pytest.raises(VerificationError, match=message):
        verify(path, expected)


def test_a_graph_that_checks_nothing_is_told_apart(
    tmp_path, classifier, detector, expected, monkeypatch
):
    monkeypatch.setattr(
        "keras_robust.serving.exporting.signatures.validate_images", lambda images: images
    )
    path = write(tmp_path / "1", classifier, detector)
    with pytest.raises(VerificationError, match="accepts images above 1"):
        verify(path, expected)


def test_a_model_that_only_tensorflow_2_can_load_is_told_apart(tmp_path, classifier):
    """What `tf.saved_model.save` writes for a Keras 3 model."""
    spec = tf.TensorSpec([None, 8, 8, 1], tf.float32, name="images")
    function = tf.function(lambda images: {"p": classifier(images)["logits"]})
    signatures = {"serving_default": function.get_concrete_function(spec)}
    tf.saved_model.save(classifier, str(tmp_path / "1"), signatures=signatures)
    with pytest.raises(VerificationError, match="holds 0 detector variables"):
        read_threshold(tmp_path / "1")
    with (
        SavedModelSession(tmp_path / "1") as model,
        pytest.raises(tf.errors.FailedPreconditionError),
    ):
        model.predict("serving_default", np.zeros([1, 8, 8, 1], np.float32))


def test_what_is_no_saved_model_is_refused(tmp_path, version):
    with pytest.raises(ValueError, match="cannot be loaded as TensorFlow Serving loads it"):
        SavedModelSession(tmp_path)
    broken = shutil.copytree(version, tmp_path / "1")
    (broken / "variables" / "variables.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be loaded as TensorFlow Serving loads it"):
        SavedModelSession(broken)


def test_nothing_stored_is_nothing_to_compare_with(tmp_path, version):
    copy = shutil.copytree(version, tmp_path / "1")
    (copy / "assets.extra" / "reference.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"reference.npz does not exist"):
        verify(copy)


def test_samples_hold_black_white_and_much_between():
    for shape in ((8, 8, 1), (33, 70, 3), (224, 224, 3)):
        pixels = sample_pixels(shape)
        assert pixels.shape == (6, *shape)
        assert pixels.dtype == np.uint8
        assert pixels[0].max() == 0
        assert pixels[1].min() == 255
        assert len(np.unique(pixels[2:])) > 60
