"""Attacks on a model behind a server, which is asked over gRPC."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from keras_robust.serving.client.grpc_client import Client
from keras_robust.experiments.runs.export_run import export_run
from keras_robust.serving.server.server import Server
from keras_robust.serving.status import Code, ServingError
from trainers import attack
from keras_robust.experiments.runs import attack_run
from keras_robust.experiments.runs.attack_served_model import Served


def parsed(*arguments):
    values = flags.FlagValues()
    attack.define_flags(values)
    values(["program", *arguments])
    return values


@pytest.fixture(scope="module")
def address(trained, tmp_path_factory):
    """host:port of a server of the run's model."""
    base = tmp_path_factory.mktemp("exported") / "digits"
    export_run(trained, base)
    with Server("digits", base, port=0, rest_api_port=0) as server:
        yield server.grpc_address


class Answering:
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


def test_logits_are_the_logarithms_of_what_is_served(address, opened):
    x, _ = opened.test_images(5)
    with Client(address) as client:
        attack_served_model = Served(client, "digits")
        logits = attack_served_model(x)["logits"]
        in_a_graph = tf.function(lambda x: attack_served_model(x)["logits"])(x)
    np.testing.assert_allclose(logits, tf.nn.log_softmax(opened.model(x)["logits"]), atol=1e-5)
    np.testing.assert_array_equal(in_a_graph, logits)
    assert attack_served_model.detects and (attack_served_model.images, attack_served_model.requests) == (10, 2)


def test_an_attack_without_gradients(trained, opened, address, tmp_path):
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
    (verdict,) = done.values()
    crafted = verdict.crafted
    # Two predictions beside the two steps of 32 directions, each asked about at both ends.
    assert crafted.attack.name == "SPSA-2" and verdict.images == 6 * (2 + 2 * 32 * 2)
    # What it did to the server it does to the model that is served.
    local = dataclasses.replace(
        opened,
        model=lambda x, training=False: {"logits": tf.nn.log_softmax(opened.model(x)["logits"])},
    )
    again = attack_run.attack_run(local, crafted.attack, limit=6, seed=3)
    np.testing.assert_allclose(crafted.adversarial, again.adversarial, atol=1e-3)
    np.testing.assert_array_equal(crafted.clean_predictions, again.clean_predictions)
    np.testing.assert_array_equal(np.load(directory / "adversarial.npz")["images"], crafted.images)
    for said, images in ((verdict.clean, crafted.images), (verdict.attacked, crafted.adversarial)):
        expected = opened.detector.is_adversarial(images).numpy()
        np.testing.assert_array_equal(said["is_adversarial"], expected)
    lines = verdict.summary().splitlines()
    assert lines[0].startswith("SPSA-2: of 6 images the model got")
    assert lines[-2] == f"780 queries in {verdict.requests} requests: 130 for each image."
    assert lines[-1].startswith("Its detector flags")


def test_by_default_it_is_a_random_search(trained, address, tmp_path):
    done, _ = attack.run(
        parsed(f"--run={trained}", f"--server={address}", "--model=digits", "--limit=4",
               "--queries=5", "--pictures=0", f"--output_dir={tmp_path}")
    )  # fmt: skip
    verdict = done["square"]
    assert verdict.crafted.attack.name == "Square"
    # Two predictions and the start beside the proposals; it may end before the last.
    assert 4 * (2 + 1) <= verdict.images <= 4 * (2 + 1 + 5)


def test_a_model_without_a_detector(opened):
    from keras_robust.experiments.runs import attack_served_model

    client = Answering(opened.model)
    found = attack_served_model.attack(
        opened, Served(client, "digits"), opened.attack("spsa", {"steps": 1}), limit=3
    )
    assert found.clean is None and "no signature 'detect'" in found.summary()
    assert found.images == sum(client.sizes) == 3 * 66


def test_many_images_are_several_requests():
    client = Answering(lambda x: {"logits": x[:, 0, :, 0] @ np.ones([8, 10], "float32")})
    x = np.zeros([3 * 2**20 // 256 + 1, 8, 8, 1], "float32")
    assert Served(client, "digits")(x)["logits"].shape == (len(x), 10)
    assert client.sizes == [len(x) - 1, 1]


def test_a_probability_of_nothing_has_a_logarithm():
    client = Answering(lambda x: {"logits": tf.one_hot([3], 10) * 1e4})
    logits = Served(client, "digits")(np.zeros([1, 8, 8, 1], "float32"))["logits"].numpy()
    assert np.isfinite(logits).all() and logits[0, 3] == 0 and logits[0, 0] < -80


def test_a_server_that_refuses_within_the_attack(opened):
    from keras_robust.experiments.runs import attack_served_model

    asked = Served(Answering(opened.model, refuses=True), "digits")
    with pytest.raises(ConnectionError, match="RESOURCE_EXHAUSTED: the queue is full"):
        attack_served_model.attack(opened, asked, opened.attack("spsa", {"steps": 1}), limit=3)


def test_what_cannot_be_attacked(trained, opened, address, tmp_path):
    run, server = f"--run={trained}", f"--server={address}"
    for arguments, error, match in (
        ([run, server], ValueError, "--model is missing"),
        ([run, server, "--model=dogs"], ConnectionError, "NOT_FOUND"),
        ([run, "--server=localhost:1", "--model=digits"], ConnectionError, "UNAVAILABLE"),
        ([run, server, "--model=digits", "--attack=pgd"], ValueError, "Use a gradient-free attack"),
    ):  # fmt: skip
        with pytest.raises(error, match=match):
            attack.run(parsed(*arguments, "--limit=2", f"--output_dir={tmp_path}"))
    from keras_robust.experiments.runs import attack_served_model

    asked = Served(Answering(opened.model), "digits")
    asked.shape = (28, 28, 1)
    with pytest.raises(ValueError, match=r"takes images of shape \(28, 28, 1\)"):
        attack_served_model.attack(opened, asked, opened.attack("spsa"), limit=2)
    with pytest.raises(ValueError, match="expected 'images' and 'probabilities'"):
        Served(Answering(opened.model, outputs=("classes",)), "digits")
