"""The signature `certify`: it says of each image what the bounds say at its radius."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import keras_robust as kr
from keras_robust.certification import is_certified
from keras_robust.cli import query as command
from keras_robust.experiments.publishing.export_run import read_bounds
from keras_robust.serving.exporting.export import METADATA_FILE, export_model
from keras_robust.serving.exporting.reference import REFERENCE_FILE, Reference
from keras_robust.serving.exporting.saved_model import SavedModelSession
from keras_robust.serving.exporting.verify import VerificationError, verify
from keras_robust.serving.exporting.warmup import read_warmup
from keras_robust.serving.server.server import Server

BALL = kr.LinfBall(0.002)


@pytest.fixture(scope="module")
def version(tmp_path_factory, classifier, detector):
    base = tmp_path_factory.mktemp("certified") / "digits"
    return export_model(classifier, base, detector, bounds=kr.certification.ibp(BALL))


@pytest.fixture(scope="module")
def session(version):
    with SavedModelSession(version) as model:
        yield model


@pytest.fixture(scope="module")
def server(version):
    with Server("digits", version.parent, port=0, rest_api_port=0) as server:
        yield server


def test_each_image_is_certified_at_its_own_radius(session, classifier, random_images):
    """Images of one radius are bounded together, in whatever order they come."""
    images = random_images(24)
    radii = np.array([0.0, 1e-4, 2e-3, 0.3], np.float32)[np.arange(24) % 4]
    found = session.predict("certify", {"images": images, "radius": radii})
    plain = session.predict("serving_default", images)
    for name, value in plain.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6)
    for radius in np.unique(radii):
        bounds = kr.certification.ibp(BALL).at_radius(float(radius))
        expected = is_certified(bounds(classifier, images, plain["classes"]), plain["classes"])
        rows = radii == radius
        np.testing.assert_array_equal(found["certified"][rows], expected.numpy()[rows])
    assert found["certified"][radii == 0].all() and not found["certified"][radii == 0.3].any()


def test_an_attack_inside_the_radius_changes_no_certified_class(session, classifier, random_images):
    images = random_images(32, seed=3)
    radius = np.full(32, BALL.radius, np.float32)
    found = session.predict("certify", {"images": images, "radius": radius})
    x_adv = kr.attacks.pgd(BALL, 10)(classifier, images, found["classes"])
    attacked = session.predict("serving_default", x_adv.numpy())["classes"]
    certified = found["certified"]
    assert 0 < certified.sum() < 32
    np.testing.assert_array_equal(attacked[certified], found["classes"][certified])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"radius": np.zeros(2, np.float32)}, "one number per image; received 2 for 3 images"),
        ({"radius": np.array([0.1, -0.1, 0.1], np.float32)}, "finite numbers >= 0"),
        ({"radius": np.array([0.1, np.nan, 0.1], np.float32)}, "finite numbers >= 0"),
        ({"images": np.full([3, 8, 8, 1], 1.5, np.float32)}, "must lie in .0, 1"),
        (
            {"images": np.zeros([0, 8, 8, 1], np.float32), "radius": np.zeros(0, np.float32)},
            "empty batch",
        ),
    ],
)
def test_refused_in_the_graph(session, random_images, change, says):
    inputs = {"images": random_images(3), "radius": np.zeros(3, np.float32), **change}
    with pytest.raises(tf.errors.InvalidArgumentError, match=says):
        session.predict("certify", inputs)


def test_the_version_tells_its_bounds_and_is_verified_with_them(version):
    metadata = json.loads((version / "assets.extra" / METADATA_FILE).read_text("utf-8"))
    assert "certify" in metadata["signatures"]
    assert read_bounds(version) == kr.certification.ibp(BALL)
    assert "certify" in verify(version)
    assert "certify" in {r.model_spec.signature_name for r in read_warmup(version)}


def test_a_verdict_that_differs_is_found(version, tmp_path):
    file = version / "assets.extra" / REFERENCE_FILE
    expected = Reference.load(file)
    assert not expected.undecided.all()
    expected.outputs["certified"] = ~expected.outputs["certified"]
    with pytest.raises(VerificationError, match="'certified' of 'certify'"):
        verify(version, expected)


def test_a_version_without_bounds_has_no_such_signature(exported_model):
    version = exported_model / "1"
    assert read_bounds(version) is None and "certify" not in verify(version)


@pytest.mark.parametrize("rest", [False, True], ids=["grpc", "rest"])
def test_a_query(server, random_images, tmp_path, rest):
    np.save(tmp_path / "images.npy", random_images(3))
    address = server.rest_address if rest else server.grpc_address

    def run(*arguments):
        values = flags.FlagValues()
        command.define_flags(values)
        images = f"--images={tmp_path / 'images.npy'}"
        chosen = [f"--server={address}", "--model=digits", images, f"--rest={rest}"]
        values(["query", *chosen, *arguments])
        return command.run(values)

    rows = json.loads(run("--signature=certify", "--radius=0", "--json"))
    assert [row["certified"] for row in rows] == [True] * 3
    assert "certified" in run("--signature=certify", "--radius=1/255").splitlines()[0]
    for arguments in (["--signature=certify"], ["--radius=0.1"]):
        with pytest.raises(ValueError, match="expected a radius with 'certify'"):
            run(*arguments)


def test_bounds_that_cannot_be_served(tmp_path, detector, classifier, calibrated):
    def export(bounds, model=classifier, detector=detector):
        export_model(model, tmp_path / "m", detector, bounds=bounds)

    with pytest.raises(TypeError, match=r"expected bounds such as .*ibp"):
        export(BALL)
    with pytest.raises(ValueError, match=r"images in \[0, 255\]; a served model takes"):
        export(kr.certification.ibp(kr.LinfBall(8, bounds=(0, 255))))
    inputs = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(keras.layers.UpSampling2D()(inputs))
    other = keras.Model(inputs, {"logits": keras.layers.Dense(10)(flat), "features": flat})
    with pytest.raises(ValueError, match="UpSampling2D"):
        export(kr.certification.ibp(BALL), other, calibrated(other))
    assert not (tmp_path / "m").exists() or not list((tmp_path / "m").iterdir())
