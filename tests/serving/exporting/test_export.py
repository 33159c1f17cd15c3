"""Export: inputs, outputs and errors of the signatures; how versions appear."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import stat

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.pgd import pgd
from keras_robust.detection import EntropyDetector
from keras_robust.losses.robust_loss import Adversarial, Clean
from keras_robust.serving.exporting import export
from keras_robust.serving.exporting.export import export_model
from keras_robust.serving.exporting.reference import REFERENCE_FILE, Reference
from keras_robust.serving.exporting.saved_model import SavedModelSession
from keras_robust.serving.exporting.signatures import INPUTS, MAX_PIXELS
from keras_robust.serving.exporting.verify import (
    VerificationError,
    read_threshold,
)

SIGNATURES = tuple(INPUTS)
Refused = tf.errors.InvalidArgumentError


@pytest.fixture(scope="module")
def served(exported_model):
    """The exported model, loaded as TensorFlow Serving loads it."""
    with SavedModelSession(exported_model / "1") as model:
        yield model


@pytest.fixture(scope="module")
def loaded(exported_model):
    """The exported model, loaded by TensorFlow 2."""
    return tf.saved_model.load(str(exported_model / "1"))


@pytest.fixture(scope="module")
def colour(tmp_path_factory, tiny_classifier, calibrated):
    """A served model of 6 x 9 RGB images."""
    classifier = tiny_classifier((6, 9, 3), classes=4)
    base = tmp_path_factory.mktemp("colour") / "flowers"
    with SavedModelSession(
        export_model(classifier, base, calibrated(classifier, (6, 9, 3)))
    ) as model:
        yield classifier, model


def png(image):
    pixels = np.round(np.asarray(image) * 255).astype(np.uint8)
    return tf.io.encode_png(pixels).numpy()


def files(images):
    return np.array([png(image) for image in images], object)


def local(classifier, images):
    return keras.ops.convert_to_numpy(keras.ops.softmax(classifier(images)["logits"]))


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


# Outputs of the signatures.


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("batch", [1, 3, 32])
def test_v1_and_v2_and_keras_agree(
    served, loaded, classifier, detector, random_images, signature, batch
):
    images = random_images(batch, seed=batch)
    feed = images if INPUTS[signature] == "images" else files(images)
    v1 = served.predict(signature, feed)
    v2 = loaded.signatures[signature](**{INPUTS[signature]: tf.constant(feed)})
    close(v1["probabilities"], local(classifier, images))
    assert (v1["classes"] == np.argmax(classifier(images)["logits"], axis=-1)).all()
    assert set(v1) == set(v2)
    for name in v1:
        close(np.float32(v1[name]), np.float32(v2[name]))
    if signature.startswith("detect"):
        close(v1["detection_score"], detector.score(images))
        assert (v1["is_adversarial"] == detector.is_adversarial(images).numpy()).all()


def test_names_dtypes_and_shapes(served):
    def tensors(infos):
        return {
            key: (tf.as_dtype(info.dtype).name, [dim.size for dim in info.tensor_shape.dim])
            for key, info in infos.items()
        }

    outputs = {"probabilities": ("float32", [-1, 10]), "classes": ("int64", [-1])}
    detection = {"detection_score": ("float32", [-1]), "is_adversarial": ("bool", [-1])}
    images = {"images": ("float32", [-1, 8, 8, 1])}
    image_bytes = {"image_bytes": ("string", [-1])}
    assert {
        name: (tensors(signature.inputs), tensors(signature.outputs))
        for name, signature in served.signatures.items()
    } == {
        "serving_default": (images, outputs),
        "detect": (images, {**outputs, **detection}),
        "serving_bytes": (image_bytes, outputs),
        "detect_bytes": (image_bytes, {**outputs, **detection}),
    }


def test_the_detector_raises_some_alarms(served, random_images):
    alarms = served.predict("detect", random_images(64, seed=1))["is_adversarial"]
    assert 10 <= alarms.sum() <= 16


def test_an_ensemble_serves_its_members_too(tmp_path, tiny_classifier, calibrated, random_images):
    classifier = tiny_classifier(members=3)
    detector = calibrated(classifier)
    path = export_model(classifier, tmp_path / "ensemble", detector)
    images = random_images(5)
    members = keras.ops.softmax(classifier(images)["member_logits"])
    with SavedModelSession(path) as model:
        for signature, key in INPUTS.items():
            served = model.predict(signature, images if key == "images" else files(images))
            assert served["member_probabilities"].shape == (5, 3, 10)
            close(served["member_probabilities"], members)
        close(model.predict("detect", images)["detection_score"], detector.score(images))
    assert metadata(path)["members"] == 3


@pytest.mark.parametrize(
    "policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
def test_mixed_precision(tmp_path, tiny_classifier, calibrated, random_images, policy):
    classifier = tiny_classifier(policy=policy)
    path = export_model(classifier, tmp_path / "half", calibrated(classifier))
    images = random_images(4)
    with SavedModelSession(path) as model:
        served = model.predict("detect", images)
    assert {values.dtype.name for values in served.values()} == {"float32", "int64", "bool"}
    np.testing.assert_allclose(served["probabilities"], local(classifier, images), atol=2e-3)


# Files.


def test_jpeg(colour, random_images):
    classifier, model = colour
    smooth = np.linspace(0, 255, 6 * 9 * 3).reshape(6, 9, 3).astype(np.uint8)
    content = tf.io.encode_jpeg(smooth, quality=100).numpy()
    pixels = tf.io.decode_jpeg(content, channels=3).numpy()
    served = model.predict("serving_bytes", np.array([content], object))
    close(served["probabilities"], local(classifier, pixels[None] / np.float32(255)))


def test_grey_files_become_rgb(colour, random_images):
    classifier, model = colour
    grey = random_images(2, (6, 9, 1))
    served = model.predict("serving_bytes", files(grey))
    close(served["probabilities"], local(classifier, np.repeat(grey, 3, axis=-1)))


def test_colour_files_become_grey(served, classifier):
    white = np.ones([8, 8, 3])
    answer = served.predict("serving_bytes", files([white]))
    close(answer["probabilities"], local(classifier, np.ones([1, 8, 8, 1], np.float32)))


def test_transparency_is_dropped_and_16_bits_become_8(colour, random_images):
    classifier, model = colour
    rgb = random_images(1, (6, 9, 3))
    rgba = np.concatenate([rgb, 0 * rgb[..., :1]], axis=-1)
    deep = tf.io.encode_png(np.round(rgb[0] * 65535).astype(np.uint16)).numpy()
    for content in (png(rgba[0]), deep):
        served = model.predict("serving_bytes", np.array([content], object))
        close(served["probabilities"], local(classifier, rgb))


def test_other_sizes_are_resized(colour, random_images):
    classifier, model = colour
    large = random_images(1, (20, 31, 3))
    expected = tf.image.resize(large, (6, 9), method="bilinear", antialias=True)
    served = model.predict("serving_bytes", files(large))
    close(served["probabilities"], local(classifier, expected))


def test_resizing_white_stays_within_the_range(served):
    for size in (7, 9, 28, 225):
        white = np.array([tf.io.encode_png(np.full((size, size, 1), 255, np.uint8)).numpy()])
        served.predict("serving_bytes", white.astype(object))


def test_files_of_different_sizes_and_kinds_in_one_batch(served, classifier, random_images):
    images = random_images(3)
    large = tf.io.encode_jpeg(np.zeros((50, 40, 3), np.uint8)).numpy()
    answer = served.predict("detect_bytes", np.array([*files(images), large], object))
    close(answer["probabilities"][:3], local(classifier, images))
    close(answer["probabilities"][3:], local(classifier, np.zeros([1, 8, 8, 1], np.float32)))


# Inputs that the graph rejects, in the v1 loader.


@pytest.mark.parametrize("signature", ["serving_default", "detect"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, r"images must lie in \[0, 1\]; received values from 0(.0)? to 1.5"),
        (-0.25, r"images must lie in \[0, 1\]; received values from -0.25 to 0"),
        (255.0, "divide 8-bit images by 255"),
        (np.inf, "received values from 0(.0)? to inf"),
        (np.nan, r"images must lie in \[0, 1\]; received 1 values that are NaN"),
    ],
)
def test_images_out_of_range_are_refused(served, signature, value, message):
    images = np.zeros([3, 8, 8, 1], np.float32)
    images[1, 2, 3, 0] = value
    with pytest.raises(Refused, match=message):
        served.predict(signature, images)


def test_the_ends_of_the_range_are_accepted(served):
    served.predict("detect", np.float32([0, 1]).repeat(64).reshape(2, 8, 8, 1))


def test_v2_refuses_as_well(loaded):
    with pytest.raises(Refused, match="from 2 to 2"):
        loaded.signatures["detect"](images=2 * tf.ones([1, 8, 8, 1]))


def test_a_single_output_is_enough_for_the_checks(served):
    """A client may request one output only, so the checks must run before each."""
    definition = served.signatures["detect"]
    for info in definition.outputs.values():
        with pytest.raises(Refused, match="images must lie in"):
            feed = {definition.inputs["images"].name: 2 * np.ones([1, 8, 8, 1], np.float32)}
            served.session.run(info.name, feed)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_empty_batches_are_refused(served, signature):
    empty = np.zeros([0, 8, 8, 1], np.float32)
    feed = empty if INPUTS[signature] == "images" else np.array([], object)
    with pytest.raises(Refused, match="an empty batch; expected at least one image"):
        served.predict(signature, feed)


def huge_png(width, height):
    return (
        b"\x89PNG\r\n\x1a\n"
        + b"\0\0\0\rIHDR"
        + b"".join(side.to_bytes(4, "big") for side in (width, height))
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "PNG or JPEG files; received 0 bytes"),
        (b"junk", "PNG or JPEG files; received 4 bytes"),
        (b"GIF89a" + bytes(40), "PNG or JPEG files"),
        (png(np.zeros([8, 8, 1]))[:20], "truncated in its header, after 20 bytes"),
        (png(np.zeros([8, 8, 1]))[:-20], "(?i)png"),
        (b"\xff\xd8\xff\xe0junk", "(?i)jpeg"),
        (huge_png(100_000, 80_000), f"at most {MAX_PIXELS} pixels; received 80000 x 100000"),
        (huge_png(0, 8), "(?i)png"),
    ],
)
def test_files_that_are_no_images_are_refused(served, content, message):
    for signature in ("serving_bytes", "detect_bytes"):
        with pytest.raises(Refused, match=message):
            served.predict(signature, np.array([content], object))
    served.predict("serving_bytes", files(np.zeros([1, 8, 8, 1])))  # and goes on


# One magenta and yellow pixel, in CMYK.
CMYK = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwAQCwwODAoQDg0OEhEQExgoGhgWFhgxIyUdKDozPTw5Mzg3QEhcTkBEV0U3OF"
    "BtUVdfYmdoZz5NcXlwZHhcZWdj/8AAFAgAAQABBEMRAE0RAFkRAEsRAP/EABQAAQAAAAAAAAAAAAAAAAAAAAf/xAAU"
    "EAEAAAAAAAAAAAAAAAAAAAAA/9oADgRDAE0AWQBLAAA/AEAfj8gP/9k="
)


def test_cmyk_becomes_rgb_and_is_refused_by_a_model_of_gray_images(served, colour):
    content = np.array([CMYK], object)
    classifier, model = colour
    answer = model.predict("serving_bytes", content)
    pixels = tf.io.decode_jpeg(CMYK, channels=3).numpy()
    assert np.abs(pixels[0, 0] - np.array([255.0, 0, 0])).max() < 8  # red
    images = np.broadcast_to(pixels / np.float32(255), [1, 6, 9, 3])
    close(answer["probabilities"], local(classifier, images))
    for signature in ("serving_bytes", "detect_bytes"):
        with pytest.raises(Refused, match=r"in CMYK \(?4.*gray images cannot read; convert"):
            served.predict(signature, content)


def test_the_orientation_in_a_file_is_ignored(colour):
    """As TensorFlow reads files, and as the documentation says."""
    smooth = np.linspace(0, 255, 6 * 9 * 3).reshape(6, 9, 3).astype(np.uint8)
    content = tf.io.encode_jpeg(smooth, quality=100).numpy()
    rotated = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(rotated) + 2).to_bytes(2, "big") + rotated
    turned = content[:2] + segment + content[2:]
    answer = colour[1].predict("serving_bytes", np.array([content, turned], object))
    close(answer["probabilities"][0], answer["probabilities"][1])


# Contents of a version directory.


def metadata(path):
    return json.loads((path / "assets.extra" / "keras_robust.json").read_text())


def test_metadata(exported_model, detector):
    content = metadata(exported_model / "1")
    versions = content.pop("versions")
    assert set(versions) == {"keras_robust", "keras", "tensorflow", "python"}
    assert versions["tensorflow"] == tf.__version__
    assert content == {
        "input_shape": [8, 8, 1],
        "classes": 10,
        "class_names": list("0123456789"),
        "members": None,
        "signatures": list(SIGNATURES),
        "bounds": None,
        "detector": {
            "score": "entropy",
            "threshold": detector.threshold,
            "false_alarm_rate": 0.25,
            "samples": 64,
        },
        "recipe": "digits/tiny",
        "withheld": [],
    }


def test_the_threshold_can_be_read_again(exported_model, detector):
    assert read_threshold(exported_model / "1") == detector.threshold


def test_a_server_of_another_user_may_read_it(exported_model):
    for path in [exported_model, *exported_model.rglob("*")]:
        mode = path.stat().st_mode
        assert mode & stat.S_IROTH, path
        assert path.is_file() or mode & stat.S_IXOTH, path


# Versions.


@pytest.fixture
def no_graph(monkeypatch):
    """Exports files without a model, to test where they are written."""

    def write(path, *_):
        path.mkdir()
        (path / "saved_model.pb").touch()

    monkeypatch.setattr(export, "_write_saved_model", write)
    monkeypatch.setattr(export, "verify", lambda *_: None)


def listing(path):
    return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else None


def test_a_version_is_the_next_free_one(tmp_path, classifier, detector, no_graph):
    base = tmp_path / "exported" / "digits"
    for name in ("2", "007", "latest", "-9", "9.5", "٣٣", "9" * 30):
        (base / name).mkdir(parents=True)
    (base / "8").write_text("a file in the way")
    with pytest.raises(FileExistsError, match="already holds version 8"):
        export_model(classifier, base, detector)
    (base / "8").unlink()
    assert export_model(classifier, base, detector) == base / "8"
    assert export_model(classifier, base, detector, version=5) == base / "5"
    assert export_model(classifier, base, detector) == base / "9"
    assert listing(tmp_path) == ["exported"]
    assert listing(tmp_path / "exported") == ["digits"]


@pytest.mark.parametrize("version", [1, 7])
def test_an_existing_version_is_never_written_over(tmp_path, classifier, detector, version):
    kept = tmp_path / "digits" / ("1" if version == 1 else "007") / "precious"
    kept.mkdir(parents=True)
    with pytest.raises(FileExistsError, match=f"already holds version {version}"):
        export_model(classifier, tmp_path / "digits", detector, version=version)
    assert kept.is_dir()


@pytest.mark.parametrize("version", [0, -1, "1", 1.0, True, 2**63])
def test_what_names_no_version_is_refused(tmp_path, classifier, detector, version):
    with pytest.raises(ValueError, match="version is .*; expected an integer >= 1"):
        export_model(classifier, tmp_path / "digits", detector, version=version)
    assert listing(tmp_path) == []


def test_a_failed_verification_leaves_nothing_behind(tmp_path, classifier, detector, monkeypatch):
    seen = []

    def fail(path, expected):
        seen.append((path / "saved_model.pb").is_file())
        raise VerificationError("differs")

    monkeypatch.setattr(export, "verify", fail)
    with pytest.raises(VerificationError, match="differs"):
        export_model(classifier, tmp_path / "digits", detector)
    assert seen == [True]
    assert listing(tmp_path) == []


def test_a_failure_after_verification_leaves_the_other_versions(
    tmp_path, classifier, detector, monkeypatch, no_graph
):
    (tmp_path / "digits" / "1").mkdir(parents=True)
    monkeypatch.setattr(export, "write_warmup", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_model(classifier, tmp_path / "digits", detector)
    assert listing(tmp_path) == ["digits"]
    assert listing(tmp_path / "digits") == ["1"]


def test_when_another_export_takes_the_number_first(
    tmp_path, classifier, detector, monkeypatch, no_graph
):
    """By default the next number is used; a given version is an error."""
    rename = os.rename

    def late(source, target):
        os.makedirs(f"{target}/of_another")
        monkeypatch.setattr(os, "rename", rename)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert export_model(classifier, tmp_path / "digits", detector).name == "2"
    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(FileExistsError, match="already holds version 9"):
        export_model(classifier, tmp_path / "digits", detector, version=9)
    assert listing(tmp_path / "digits") == ["1", "2", "9"]
    assert listing(tmp_path / "digits" / "9") == ["of_another"]


# Models and detectors.


class Wrapped(keras.Model):
    """Stands for a RobustModel."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier

    def call(self, x, training=False):
        return self.classifier(x, training=training)


def test_a_robust_model_is_exported_as_its_classifier(
    tmp_path, classifier, calibrated, random_images
):
    model = Wrapped(classifier)
    images = random_images(3)
    path = export_model(model, tmp_path / "digits", calibrated(model))
    with SavedModelSession(path) as served:
        close(served.predict("detect", images)["probabilities"], local(classifier, images))


def test_the_detector_may_be_of_the_robust_model_or_of_its_classifier(
    tmp_path, classifier, calibrated, no_graph
):
    model = Wrapped(classifier)
    for exported, scored in ((model, classifier), (classifier, model)):
        export_model(exported, tmp_path / "digits", calibrated(scored))
    assert listing(tmp_path / "digits") == ["1", "2"]


def test_what_is_no_detector_of_this_model_is_refused(
    tmp_path, classifier, detector, tiny_classifier
):
    base = tmp_path / "digits"
    with pytest.raises(TypeError, match="given NoneType as detector; expected"):
        export_model(classifier, base, None)
    with pytest.raises(ValueError, match=r"no threshold.*calibrate"):
        export_model(classifier, base, EntropyDetector(classifier))
    with pytest.raises(ValueError, match="belongs to another model"):
        export_model(tiny_classifier(seed=1), base, detector)


BYTES = kr.LinfBall(25, bounds=(0, 255))


@pytest.mark.parametrize("by", ["model", "detector", "validation"])
def test_a_model_of_other_pixels_is_refused(tmp_path, classifier, detector, by):
    attack = pgd(BYTES, steps=1)
    parts = {"attack": None if by == "validation" else attack, "validation_attack": attack}
    loss = Clean() if by == "validation" else Adversarial()
    robust = kr.RobustModel(classifier, loss=loss, **parts)
    detector = dataclasses.replace(detector, model=robust if by == "detector" else classifier)
    with pytest.raises(
        ValueError, match=r"in \[0, 255\].*takes \[0, 1\].*Rescaling\(255, offset=0"
    ):
        export_model(classifier if by == "detector" else robust, tmp_path / "m", detector)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def of_bytes(classifier):
    """A model of images in [0, 255]."""
    inputs = keras.Input((8, 8, 1))
    logits = classifier(keras.layers.Rescaling(1 / 255)(inputs))["logits"]
    return kr.models.adapt(keras.Model(inputs, logits))


def test_a_model_of_other_pixels_is_exported_as_the_error_says(
    tmp_path, classifier, of_bytes, calibrated, random_images
):
    model = kr.RobustModel(of_bytes, pgd(BYTES, steps=1), Adversarial())
    fitting = kr.models.adapt(model.classifier, preprocess=keras.layers.Rescaling(255, offset=0))
    images = random_images(16)
    with SavedModelSession(export_model(fitting, tmp_path / "m", calibrated(fitting))) as served:
        close(served.predict("detect", images)["probabilities"], local(classifier, images))


def test_a_model_of_other_pixels_is_warned_of(tmp_path, of_bytes, calibrated, no_graph):
    with pytest.warns(UserWarning, match=r"takes images in \[0, 1\].*expect other pixels"):
        export_model(of_bytes, tmp_path / "m", calibrated(of_bytes))


def test_what_is_no_classifier_is_refused(tmp_path, detector):
    with pytest.raises(TypeError, match="given int; expected a RobustModel or a classifier"):
        export_model(3, tmp_path / "m", detector)
    sequential = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    with pytest.raises(TypeError, match=r"dictionary with 'logits'.*models.adapt"):
        export_model(sequential, tmp_path / "m", detector)
    sequential.build([None, 8, 8, 1])
    with pytest.raises(TypeError, match=r"dictionary with 'logits'.*models.adapt"):
        export_model(sequential, tmp_path / "m", detector)


@pytest.mark.parametrize("shape", [(8,), (None, None, 3), (8, 8)])
def test_what_takes_no_images_of_a_known_size_is_refused(tmp_path, detector, shape):
    inputs = keras.Input(shape)
    logits = keras.layers.Lambda(lambda x: x)(inputs)
    model = keras.Model(inputs, {"logits": logits, "features": logits})
    with pytest.raises(ValueError, match=r"one input of shape \(None, height, width, channels\)"):
        export_model(model, tmp_path / "m", detector)


def test_channels_that_no_file_holds_are_refused(tmp_path, tiny_classifier, detector):
    with pytest.raises(ValueError, match=r"images of 2 channels.*1 .gray. or 3"):
        export_model(tiny_classifier((8, 8, 2)), tmp_path / "m", detector)


def test_a_diverged_model_is_refused(tmp_path, tiny_classifier):
    classifier = tiny_classifier()
    classifier.layers[-1].bias.assign(np.full(10, np.nan))
    detector = EntropyDetector(classifier, threshold=1.0)
    with pytest.raises(ValueError, match=r"not finite.*diverged"):
        export_model(classifier, tmp_path / "m", detector)
    assert listing(tmp_path) == []


def test_a_wrong_number_of_class_names_is_refused(tmp_path, classifier, detector):
    with pytest.raises(ValueError, match="2 class names were received for 10 classes"):
        export_model(classifier, tmp_path / "m", detector, class_names=["a", "b"])


@pytest.mark.parametrize("withheld", [("detection_score", "member_probabilities")])
def test_outputs_can_be_left_out(withheld, tmp_path, tiny_classifier, calibrated, random_images):
    """No signature answers them; the others, and a calibration later, are as before."""
    classifier = tiny_classifier(members=2)
    detector = calibrated(classifier)
    path = export_model(classifier, tmp_path / "m", detector, withhold=[*withheld, withheld[0]])
    images = random_images(3)
    with SavedModelSession(path) as model:
        outputs = {name: set(one.outputs) for name, one in model.signatures.items()}
        found = model.predict("detect", images)
    assert outputs == {
        name: {"probabilities", "classes"} | ({"is_adversarial"} if "detect" in name else set())
        for name in SIGNATURES
    }
    np.testing.assert_array_equal(found["is_adversarial"], detector.is_adversarial(images))
    assert Reference.load(path / "assets.extra" / REFERENCE_FILE).withheld == withheld
    metadata = json.loads((path / "assets.extra" / "keras_robust.json").read_text())
    assert metadata["withheld"] == list(withheld)


@pytest.mark.parametrize("name", ["probabilities", "classes", "score"])
def test_other_outputs_are_not_left_out(name, tmp_path, classifier, detector):
    with pytest.raises(ValueError, match=f"no output to withhold '{name}'"):
        export_model(classifier, tmp_path / "m", detector, withhold=[name])
