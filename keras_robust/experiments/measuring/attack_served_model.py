"""Black-box attacks on a served model, which gives its predictions only."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from keras_robust.experiments.measuring.attack_run import AttackedTestSet, attack_run
from keras_robust.serving.status import ServingError, connection_error

if TYPE_CHECKING:
    import keras_robust as kr
    from keras_robust.experiments.runs.loaded_run import LoadedRun
    from keras_robust.serving.client.grpc_client import Client

ServedOutputs = dict[str, np.ndarray]
SIGNATURE, DETECT = "serving_default", "detect"
_REQUEST_BYTES = 3 * 2**20  # of images; the default limit of a gRPC message is 4 MiB


class ServedModel:
    """A function `images -> {"logits"}` that queries a server; it has no gradient.

    The logits are the logarithms of the served probabilities, with a probability of at least the
    smallest float32. It can be called in a graph.

    Args:
        client: a client of the server.
        name: name of the served model.

    Attributes:
        queries: number of images queried so far.
        requests: number of requests sent so far.
        has_detector: whether the model has the signature `detect`.

    Raises:
        ConnectionError: the server rejects the request or cannot be reached.
        ValueError: a model that does not map images to probabilities.
    """

    def __init__(self, client: Client, name: str):
        self.client, self.name = client, name
        self.queries = self.requests = 0
        self.error: ConnectionError | None = None
        try:
            signatures = client.metadata(name)
        except ServingError as error:
            raise connection_error(error) from error
        signature = signatures.get(SIGNATURE, {"inputs": {}, "outputs": {}})
        if "images" not in signature["inputs"] or "probabilities" not in signature["outputs"]:
            raise ValueError(
                f"The signature {SIGNATURE!r} of {name} has the inputs "
                f"{sorted(signature['inputs'])} and the outputs {sorted(signature['outputs'])}; "
                "expected 'images' and 'probabilities', as in models that `keras-robust export` "
                "wrote."
            )
        self.shape = tuple(signature["inputs"]["images"]["shape"][1:])
        self.classes = signature["outputs"]["probabilities"]["shape"][1]
        self.has_detector = DETECT in signatures

    def __call__(self, x: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Queries the logits of images `[batch, ...]`."""
        del training
        logits = tf.numpy_function(self._logits, [x], tf.float32)
        return {"logits": tf.ensure_shape(logits, [x.shape[0], self.classes])}

    def _logits(self, x: np.ndarray) -> np.ndarray:
        probabilities = self.query(x, SIGNATURE)["probabilities"]
        return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))

    def query(self, x: np.ndarray, signature: str) -> ServedOutputs:
        """Queries a signature, in requests below the limit of a message.

        Raises:
            ConnectionError: the server rejects the request or cannot be reached.
        """
        rows = max(1, _REQUEST_BYTES // max(x[:1].nbytes, 1))
        parts = []
        for start in range(0, len(x), rows):
            images = x[start : start + rows]
            try:
                parts.append(self.client.predict(self.name, images, signature))
            except ServingError as error:
                self.error = connection_error(error)
                raise self.error from error
            self.queries += len(images)
            self.requests += 1
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclasses.dataclass(frozen=True, eq=False)
class ServedModelAttack:
    """The result of an attack on a served model, and its cost.

    Args:
        test_set: the images before and after the attack.
        queries: number of images that the attack queried.
        requests: number of requests that it sent.
        clean_outputs: outputs of `detect` for the clean images; None without that signature.
        adversarial_outputs: the same for the adversarial images.
    """

    test_set: AttackedTestSet
    queries: int
    requests: int
    clean_outputs: ServedOutputs | None = None
    adversarial_outputs: ServedOutputs | None = None

    def summary(self) -> str:
        """Accuracies, queries and the fraction that the served detector flags, in a few lines."""
        test_set = self.test_set
        before, after = (
            (predictions == test_set.labels).mean()
            for predictions in (test_set.clean_predictions, test_set.predictions)
        )
        lines = [
            test_set.summary(),
            f"Accuracy of the served model: {before:.1%} clean, {after:.1%} under attack.",
            f"{self.queries:,} queries in {self.requests:,} requests: "
            f"{self.queries / len(test_set.labels):,.0f} for each image.",
        ]
        if self.clean_outputs is None or self.adversarial_outputs is None:
            return "\n".join([*lines, "It has no signature 'detect'."])
        if "is_adversarial" not in self.clean_outputs:
            return "\n".join([*lines, "Its answers leave out what the detector flags."])
        correct = test_set.clean_predictions == test_set.labels
        fooled = correct & (test_set.predictions != test_set.labels)
        alarms = self.clean_outputs["is_adversarial"]
        flagged = self.adversarial_outputs["is_adversarial"]
        detected = f"{flagged[fooled].mean():.1%}" if fooled.any() else "none"
        lines.append(
            f"Its detector flags {alarms.mean():.1%} of the clean images and {flagged.mean():.1%} "
            f"of the adversarial ones; {detected} of those that fool the model."
        )
        return "\n".join(lines)


def attack_served_model(
    run: LoadedRun,
    model: ServedModel,
    attack: kr.Attack,
    *,
    target: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> ServedModelAttack:
    """Attacks a served model with the test images of a run, whose own model is not used.

    Args:
        run: provides the images and the batch size.
        model: the served model.
        attack: an attack that needs no gradient.
        target: the class to reach; images of that class are left out.
        limit: number of test images, from the first one.
        seed: seed of the attack.

    Returns:
        The images, the cost and the detector's outputs.

    Raises:
        ConnectionError: the server rejects a request or cannot be reached.
        ValueError: images of another shape, an attack that needs gradients, and as `attack_run`.
    """
    images, _ = run.test_images(1)
    if images.shape[1:] != model.shape:
        raise ValueError(
            f"{model.name} takes images of shape {model.shape}; those of {run.run.path} have "
            f"{tuple(images.shape[1:])}."
        )
    try:
        test_set = attack_run(
            dataclasses.replace(run, model=model), attack, target=target, limit=limit, seed=seed
        )
    except tf.errors.OpError as error:
        if model.error is None:
            raise
        raise model.error from error  # TensorFlow wraps errors of a graph
    cost = model.queries, model.requests
    if not model.has_detector:
        return ServedModelAttack(test_set, *cost)
    outputs = (model.query(x, DETECT) for x in (test_set.images, test_set.adversarial))
    return ServedModelAttack(test_set, *cost, *outputs)
