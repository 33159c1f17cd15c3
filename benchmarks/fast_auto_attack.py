"""The fast ensemble beside AutoAttack: robust accuracy, passes, and each image they differ on.

    python benchmarks/fast_auto_attack.py --data_dir=DIR
    python benchmarks/fast_auto_attack.py --model=plain --model=masked

Seven models for digits (perceptrons hardened here in seconds, one of them behind two masks of its
gradients, and the published one), and the two published ones for MNIST. Both judges attack all
images as one batch, from the same seed; a pass is one image through the model, or its gradient back
through it.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # The root, for the packages: `serving` is a benchmark in this directory.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from keras_robust.core.quiet_tensorflow import quiet_start

    with quiet_start():
        import tensorflow as tf

        tf.config.list_logical_devices()

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

import keras_robust as kr
from benchmarks import report
from keras_robust.core.classifier import as_forward
from keras_robust.core.types import Forward, Images, Outputs
from keras_robust.evaluation.running.attack_runner import AttackRunner

_TRAINING_RADIUS, _RADIUS = 0.1, 0.15  # of digits
_PUBLISHED = {
    "digits/ibp-linf-0.15": 0.15,
    "mnist/ibp-linf-0.1": 0.1,
    "mnist/ibp-linf-0.3": 0.3,
}
_MASKED = ("large logits", "staircase")
TRAINED = ("PGD-AT", "TRADES", "UDR", "CCE")
MODELS = (*TRAINED, *_MASKED, *_PUBLISHED)
# Targets: by how much more may be left, and how many times fewer passes it takes.
CLOSE, FEWER = 0.003, 8.0


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_multi_enum(
        "model", list(MODELS), MODELS, "Model; may be repeated.", flag_values=values
    )
    flags.DEFINE_string(
        "data_dir", None, "Directory of TensorFlow Datasets, for MNIST.", flag_values=values
    )
    flags.DEFINE_integer("images", 360, "Number of test images of digits.", flag_values=values)
    flags.DEFINE_integer("mnist_images", 60, "Number of test images of MNIST.", flag_values=values)
    flags.DEFINE_integer("epochs", 15, "Epochs of a training.", flag_values=values)
    flags.DEFINE_integer("steps", 100, "Steps of AutoAttack.", flag_values=values)
    flags.DEFINE_integer("queries", 5000, "Queries of AutoAttack.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Seed of weights and attacks.", flag_values=values)


class Counted:
    """A model that counts the images that pass through it, forward and backward."""

    def __init__(self, model: keras.Model | Forward):
        self._forward = as_forward(model)
        self.passes = tf.Variable(0, trainable=False, dtype=tf.int64)

    def __call__(self, x: Images) -> Outputs:
        """The outputs of the model."""

        def count(values: tf.Tensor) -> tf.Tensor:
            self.passes.assign_add(tf.shape(values, tf.int64)[0])
            return tf.identity(values)

        counted = tf.custom_gradient(lambda x: (count(x), count))
        return self._forward(counted(x))


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Runs the benchmark; returns the rows to print."""
    trained: dict[str, keras.Model] = {}
    return [row for name in values.model for row in compared(name, trained, values)]


def compared(
    name: str, trained: dict[str, keras.Model], values: flags.FlagValues
) -> list[report.Row]:
    """The rows of one model."""
    radius = _PUBLISHED.get(name, _RADIUS)
    ball, (x, y) = kr.LinfBall(radius), images(name, values)
    slow = kr.attacks.auto_attack(ball, steps=values.steps, queries=values.queries)
    judges = {"AutoAttack": slow, "fast": kr.attacks.fast_auto_attack(ball)}
    robust, passes = {}, {}
    for judge, attack in judges.items():
        model = Counted(model_of(name, trained, values))
        runner = AttackRunner(model, tf.data.Dataset.from_tensors((x, y)), seed=values.seed)
        before = int(model.passes)
        robust[judge] = runner.run(judge, attack).robust
        passes[judge] = (int(model.passes) - before) / len(x)
        left = f"{robust[judge].mean():.4f} left, {passes[judge]:.0f} passes an image"
        print(f"{name}, {judge}: {left}", file=sys.stderr, flush=True)
    slow_only, fast_only = (
        np.flatnonzero(robust[one] & ~robust[other]).tolist()
        for one, other in (("fast", "AutoAttack"), ("AutoAttack", "fast"))
    )
    what = f"{name}, Linf {radius:g}, {len(x)} images"
    accuracies = f"{100 * robust['fast'].mean():.2f} and {100 * robust['AutoAttack'].mean():.2f} %"
    note = (
        f"{accuracies}; fooled by AutoAttack only: {slow_only}, by the fast one only: {fast_only}"
    )
    more = float(robust["fast"].mean() - robust["AutoAttack"].mean())
    counts = f"{passes['fast']:.0f} and {passes['AutoAttack']:.0f} an image"
    fewer = passes["AutoAttack"] / passes["fast"]
    accuracy = report.Row(
        f"{what}: left more than by AutoAttack", round(more, 6), report.Target(CLOSE), note
    )
    return [
        accuracy,
        report.Row(f"{what}: times fewer passes", fewer, report.Target(FEWER, True), counts),
    ]


def images(name: str, values: flags.FlagValues) -> tuple[np.ndarray, np.ndarray]:
    """The first test images, and their labels."""
    is_mnist = name.startswith("mnist")
    count = values.mnist_images if is_mnist else values.images
    data_dir = values.data_dir if is_mnist else None
    data = kr.data.load("mnist" if is_mnist else "digits", batch_size=count, data_dir=data_dir)
    return next(data.test.as_numpy_iterator())


def model_of(
    name: str, trained: dict[str, keras.Model], values: flags.FlagValues
) -> keras.Model | Forward:
    """A model by its name; those that are hardened here are kept in `trained`."""
    if name in _PUBLISHED:
        return kr.models.load(name)
    source = name if name in TRAINED else TRAINED[0]
    if source not in trained:
        trained[source] = hardened(source, values)
    classifier = trained[source]
    if name == "large logits":
        return lambda x: {"logits": 1000 * classifier(x, training=False)["logits"]}
    if name == "staircase":
        return lambda x: classifier(staircase(staircase(7 * x)) / 7, training=False)
    return classifier


def staircase(x: Images) -> Images:
    """Nearly rounds to integers, smoothly: gradients exist, and mislead."""
    return x - 0.98 * tf.sin(2 * math.pi * x) / (2 * math.pi)


def hardened(name: str, values: flags.FlagValues) -> keras.Model:
    """A perceptron for digits, or an ensemble of two, trained for a short time."""
    keras.utils.set_random_seed(values.seed)
    ball = kr.LinfBall(_TRAINING_RADIUS)

    def network() -> keras.Model:
        return kr.models.mlp((8, 8, 1), 10)

    defenses: dict[str, Callable[[], Any]] = {
        "PGD-AT": lambda: kr.defenses.pgd_at(network(), ball, steps=5),
        "TRADES": lambda: kr.defenses.trades(network(), ball, steps=5),
        "UDR": lambda: kr.defenses.udr(network(), ball, base="pgd_at", steps=5),
        "CCE": lambda: kr.defenses.cce(
            kr.models.ensemble([network() for _ in range(2)]), ball, steps=5
        ),
    }
    model = defenses[name]()
    model.compile(keras.optimizers.Adam(2e-3))
    model.fit(kr.data.load("digits", batch_size=64).train, epochs=values.epochs, verbose=0)
    return model.classifier


def main(_: list[str]) -> None:
    """Prints the table."""
    logging.set_verbosity(logging.WARNING)
    report.show(run(), "fast_auto_attack")


if __name__ == "__main__":
    define_flags()
    app.run(main)
