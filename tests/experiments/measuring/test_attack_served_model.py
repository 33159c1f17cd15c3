"""Black-box attacks on a served model, over gRPC."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from keras_robust.experiments.measuring import attack_run
from keras_robust.experiments.measuring.attack_served_model import ServedModel, attack_served_model
from keras_robust.experiments.publishing.export_run import export_run
from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.server.server import Server
from keras_robust.serving.status import Code, ServingError
from trainers import attack


def parsed(*arguments):
    values = flags.FlagValues()
    attack.define_flags(values)
    values(["program", *arguments])
    return values


@pytest.fixture(scope="module")
def address(loaded, tmp_path_factory):
    """host:port of a server of the run's model."""
    base = tmp_path_factory.mktemp("exported") / "digits"
    export_run(loaded, base)
    with Server("digits", base, port=0, rest_api_port=0) as server:
        yield server.grpc_address


class FakeClient:
    """A client of a model without a detector; it may refuse to predict."""

    def __init__(self, model, refuses=False, outputs=("probabilities",)):
        self.model, self.refuses, self.outputs = model, refuses, outputs
        self.sizes = []

    def metadata(self, name):
        del name
        described = {output: {"shape": [-1, 10]} for output in self.outputs}
        return {"serving_default": {"inputs": {"images": {"shape": [-1, 8, 8, 1]}},
                                    "outputs": described}}  # fmt: skip

    def predict(self, name, images, signature):
        del name, signature
        self.sizes.append(len(images))
        if self.refuses:
            raise ServingError(Code.RESOURCE_EXHAUSTED, "the queue is full")
        return {"probabilities": tf.nn.softmax(self.model(images)["logits"]).numpy()}


def test_logits_are_the_logarithms_of_what_is_served(address, loaded):
    x, _ = loaded.test_images(5)
    with Client(address) as client:
        model = ServedModel(client, "digits")
        logits = model(x)["logits"]
        in_a_graph = tf.function(lambda x: model(x)["logits"])(x)
    np.testing.assert_allclose(logits, tf.nn.log_softmax(loaded.model(x)["logits"]), atol=1e-5)
    np.testing.assert_array_equal(in_a_graph, logits)
    assert model.has_detector and (model.queries, model.requests) == (10, 2)


def test_an_attack_without_gradients(trained, loaded, address, tmp_path):
    settings = (
        "--attack=spsa",
        "--limit=6",
        "--steps=2",
        "--seed=3",
        "--pictures=0",
        f"--output_dir={tmp_path}",
    )
    done, directory = attack.run(
        parsed(f"--run={trained}", f"--server={address}", "--model=digits", *settings)
    )
    (result,) = done.values()
    attacked = result.test_set
    # Two predictions, and two steps of 32 directions with a query at both ends of each.
    assert attacked.attack.name == "SPSA-2" and result.queries == 6 * (2 + 2 * 32 * 2)
    # The attack on the server equals the attack on the local model.
    local = dataclasses.replace(
        loaded,
        model=lambda x, training=False: {"logits": tf.nn.log_softmax(loaded.model(x)["logits"])},
    )
    again = attack_run.attack_run(local, attacked.attack, limit=6, seed=3)
    np.testing.assert_allclose(attacked.adversarial, again.adversarial, atol=1e-3)
    np.testing.assert_array_equal(attacked.clean_predictions, again.clean_predictions)
    np.testing.assert_array_equal(np.load(directory / "adversarial.npz")["images"], attacked.images)
    for outputs, images in (
        (result.clean_outputs, attacked.images),
        (result.adversarial_outputs, attacked.adversarial),
    ):
        expected = loaded.detector.is_adversarial(images).numpy()
        np.testing.assert_array_equal(outputs["is_adversarial"], expected)
    lines = result.summary().splitlines()
    assert lines[0].startswith("SPSA-2: of 6 images")
    assert lines[-2] == f"780 queries in {result.requests} requests: 130 for each image."
    assert lines[-1].startswith("Its detector flags")


def test_by_default_it_is_a_random_search(trained, address, tmp_path):
    done, _ = attack.run(
        parsed(f"--run={trained}", f"--server={address}", "--model=digits", "--limit=4",
               "--queries=5", "--pictures=0", f"--output_dir={tmp_path}")
    )  # fmt: skip
    result = done["square"]
    assert result.test_set.attack.name == "Square"
    # Two predictions, the start and up to five proposals.
    assert 4 * (2 + 1) <= result.queries <= 4 * (2 + 1 + 5)


def test_a_model_without_a_detector(loaded):
    client = FakeClient(loaded.model)
    found = attack_served_model(
        loaded, ServedModel(client, "digits"), loaded.attack("spsa", {"steps": 1}), limit=3
    )
    assert found.clean_outputs is None and "no signature 'detect'" in found.summary()
    assert found.queries == sum(client.sizes) == 3 * 66


def test_many_images_are_several_requests():
    client = FakeClient(lambda x: {"logits": x[:, 0, :, 0] @ np.ones([8, 10], "float32")})
    x = np.zeros([3 * 2**20 // 256 + 1, 8, 8, 1], "float32")
    assert ServedModel(client, "digits")(x)["logits"].shape == (len(x), 10)
    assert client.sizes == [len(x) - 1, 1]


def test_a_probability_of_nothing_has_a_logarithm():
    client = FakeClient(lambda x: {"logits": tf.one_hot([3], 10) * 1e4})
    logits = ServedModel(client, "digits")(np.zeros([1, 8, 8, 1], "float32"))["logits"].numpy()
    assert np.isfinite(logits).all() and logits[0, 3] == 0 and logits[0, 0] < -80


def test_a_server_that_refuses_within_the_attack(loaded):
    model = ServedModel(FakeClient(loaded.model, refuses=True), "digits")
    with pytest.raises(ConnectionError, match="RESOURCE_EXHAUSTED: the queue is full"):
        attack_served_model(loaded, model, loaded.attack("spsa", {"steps": 1}), limit=3)


@pytest.mark.slow
def test_what_cannot_be_attacked(trained, loaded, address, tmp_path):
    run, server = f"--run={trained}", f"--server={address}"
    for arguments, error, match in (
        ([run, server], ValueError, "--model is missing"),
        ([run, server, "--model=dogs"], ConnectionError, "NOT_FOUND"),
        ([run, "--server=localhost:1", "--model=digits"], ConnectionError, "UNAVAILABLE"),
        ([run, server, "--model=digits", "--attack=pgd"], ValueError, "Use a gradient-free attack"),
    ):  # fmt: skip
        with pytest.raises(error, match=match):
            attack.run(parsed(*arguments, "--limit=2", f"--output_dir={tmp_path}"))
    model = ServedModel(FakeClient(loaded.model), "digits")
    model.shape = (28, 28, 1)
    with pytest.raises(ValueError, match=r"takes images of shape \(28, 28, 1\)"):
        attack_served_model(loaded, model, loaded.attack("spsa"), limit=2)
    with pytest.raises(ValueError, match="expected 'images' and 'probabilities'"):
        ServedModel(FakeClient(loaded.model, outputs=("classes",)), "digits")
