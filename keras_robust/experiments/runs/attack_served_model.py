"""A model behind a server, as those attack it who have nothing but its answers."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from keras_robust.serving.status import ServingError
from keras_robust.experiments.runs import attack_run
from keras_robust.experiments.runs.attack_run import AttackedTestSet

if TYPE_CHECKING:
    import keras_robust as kr
    from keras_robust.serving.client.grpc_client import Client
    from keras_robust.experiments.runs.loaded_run import LoadedRun

Answers = dict[str, np.ndarray]
SIGNATURE, DETECT = "serving_default", "detect"
_BYTES = 3 * 2**20  # of images in a request; gRPC's own limit for a message is 4 MiB


class Served:
    """A function `images -> {"logits"}` that asks a server, in a graph as well; it has no gradient.

    The logits are the logarithms of the served probabilities, so the softmax of them is what the
    server said. A probability below the smallest number of float32 counts as that number.

    Args:
        client: of the server.
        model: the name it is served by.

    Attributes:
        images: how many images the server was asked about.
        requests: in how many requests.
        detects: whether it has the signature `detect`.

    Raises:
        ConnectionError: the server refuses, or cannot be reached.
        ValueError: the model takes no images, or gives no probabilities.
    """

    def __init__(self, client: Client, model: str):
        self.client, self.model = client, model
        self.images = self.requests = 0
        self.error: ConnectionError | None = None
        try:
            signatures = client.metadata(model)
        except ServingError as error:
            raise _refused(error) from error
        asked = signatures.get(SIGNATURE, {"inputs": {}, "outputs": {}})
        if "images" not in asked["inputs"] or "probabilities" not in asked["outputs"]:
            raise ValueError(
                f"The signature {SIGNATURE!r} of {model} takes {sorted(asked['inputs'])} and gives "
                f"{sorted(asked['outputs'])}; expected 'images' and 'probabilities', as models "
                "exported by serving.export have them."
            )
        self.shape = tuple(asked["inputs"]["images"]["shape"][1:])
        self.classes = asked["outputs"]["probabilities"]["shape"][1]
        self.detects = DETECT in signatures

    def __call__(self, x: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Asks about images `[batch, ...]`."""
        del training
        logits = tf.numpy_function(self._logits, [x], tf.float32)
        return {"logits": tf.ensure_shape(logits, [x.shape[0], self.classes])}

    def _logits(self, x: np.ndarray) -> np.ndarray:
        probabilities = self.ask(x, SIGNATURE)["probabilities"]
        return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))

    def ask(self, x: np.ndarray, signature: str) -> Answers:
        """The outputs of a signature, and what they cost.

        Raises:
            ConnectionError: the server refuses, or cannot be reached.
        """
        rows = max(1, _BYTES // max(x[:1].nbytes, 1))
        parts = []
        for start in range(0, len(x), rows):
            images = x[start : start + rows]
            try:
                parts.append(self.client.predict(self.model, images, signature))
            except ServingError as error:
                self.error = _refused(error)
                raise self.error from error
            self.images += len(images)
            self.requests += 1
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _refused(error: ServingError) -> ConnectionError:
    return ConnectionError(f"{error.code.name}: {error}")


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """What an attack on a served model came to, and what it cost.

    Args:
        crafted: the images.
        images: how many images the server was asked about by the attack.
        requests: in how many requests.
        clean: the outputs of `detect` for the images as they were; None where there is none.
        attacked: the same for the attacked ones.
    """

    crafted: AttackedTestSet
    images: int
    requests: int
    clean: Answers | None = None
    attacked: Answers | None = None

    def summary(self) -> str:
        """Accuracies, queries and the share that the served detector flags, in a few lines."""
        crafted = self.crafted
        before, after = (
            (said == crafted.labels).mean()
            for said in (crafted.clean_predictions, crafted.predictions)
        )
        lines = [
            crafted.summary(),
            f"Accuracy as served: {before:.1%} before, {after:.1%} under attack.",
            f"{self.images:,} queries in {self.requests:,} requests: "
            f"{self.images / len(crafted.labels):,.0f} for each image.",
        ]
        if self.clean is not None and self.attacked is not None:
            right = crafted.clean_predictions == crafted.labels
            fooled = right & (crafted.predictions != crafted.labels)
            alarms, flagged = (said["is_adversarial"] for said in (self.clean, self.attacked))
            lines.append(
                f"Its detector flags {alarms.mean():.1%} of the images before, "
                f"{flagged.mean():.1%} under attack, {_share(flagged, fooled)} of those fooled."
            )
        else:
            lines.append("It has no signature 'detect'.")
        return "\n".join(lines)


def _share(flagged: np.ndarray, of: np.ndarray) -> str:
    return f"{flagged[of].mean():.1%}" if of.any() else "none"


def attack(
    opened: LoadedRun,
    served: Served,
    with_attack: kr.Attack,
    *,
    target: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Verdict:
    """Attacks a served model with the test images of a run; the run's own model is not asked.

    Args:
        opened: the run whose images and batch size are taken.
        served: the model.
        with_attack: an attack that needs no gradient.
        target: the class to reach; images of that class are left out.
        limit: use only the first so many test images.
        seed: of all that is random.

    Returns:
        What came of it.

    Raises:
        ConnectionError: the server refuses, or cannot be reached.
        ValueError: images of another size, an attack that needs gradients, and as
            `crafting.craft`.
    """
    images, _ = opened.test_images(1)
    if images.shape[1:] != served.shape:
        raise ValueError(
            f"{served.model} takes images of shape {served.shape}; those of {opened.run.path} have "
            f"{tuple(images.shape[1:])}."
        )
    try:
        crafted = attack_run.attack_run(
            dataclasses.replace(opened, model=served),
            with_attack,
            target=target,
            limit=limit,
            seed=seed,
        )
    except tf.errors.OpError as error:
        if served.error is None:
            raise
        raise served.error from error  # in a graph TensorFlow wraps it
    cost = served.images, served.requests
    if not served.detects:
        return Verdict(crafted, *cost)
    answers = (served.ask(x, DETECT) for x in (crafted.images, crafted.adversarial))
    return Verdict(crafted, *cost, *answers)
