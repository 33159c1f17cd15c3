"""Optimality of minimum-norm attacks, beside adv-lib on a copy of the network in PyTorch.

A small convolutional network for MNIST is trained for a few seconds, with PGD-AT if `--hardened`,
and copied to PyTorch. Each attack runs on the same images with the same number of steps. The
smallest distances of all attacks of a norm, of both libraries, are the reference of its optimality
(`keras_robust.evaluation.optimality`). Passes are counted.

    pip install torch adv-lib    # without them only this library is run
    python benchmarks/optimality.py --images=100 --steps=500

EAD has a binary search over constants: it takes a ninth of the steps for each.
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

import importlib.util
import math
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import keras_robust as kr
from benchmarks import official
from keras_robust.evaluation.results.optimality import median_distance
from keras_robust.evaluation.running.passes import CountedForward

SIZE = 28 * 28
BALLS = {
    "Linf": kr.LinfBall(1.0),
    "L2": kr.L2Ball(math.sqrt(SIZE)),
    "L1": kr.L1Ball(SIZE),
    "L0": kr.L0Ball(SIZE),
}
WORSE = 0.005  # target: by how much the best optimality may be below adv-lib's


class Outcome(NamedTuple):
    """What one attack found."""

    library: str
    name: str
    distances: np.ndarray  # infinite where it found nothing
    passes: tuple[float, float]  # forward and backward, per image
    seconds: float


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string("data_dir", None, "Directory of TensorFlow Datasets.", flag_values=values)
    flags.DEFINE_integer("images", 100, "Number of test images.", flag_values=values)
    flags.DEFINE_integer("steps", 500, "Number of steps of each attack.", flag_values=values)
    flags.DEFINE_integer("epochs", 5, "Epochs of the training.", flag_values=values)
    flags.DEFINE_integer("train_images", 6400, "Number of training images.", flag_values=values)
    flags.DEFINE_bool("hardened", False, "Train by PGD-AT, Linf 0.1.", flag_values=values)
    flags.DEFINE_multi_enum("norm", list(BALLS), list(BALLS), "Norms.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Seed of weights.", flag_values=values)


def attacks_of(norm: str, steps: int) -> list[kr.Attack]:
    """This library's minimum-norm attacks in a norm."""
    ball, attacks = BALLS[norm], kr.attacks
    if norm == "L0":
        return [attacks.sigma_zero(ball, steps), attacks.fmn(ball, steps)]
    found = [attacks.deepfool(ball), attacks.fmn(ball, steps), attacks.pdpgd(ball, steps)]
    if norm == "L2":
        found.append(attacks.ddn(ball, steps))
    if norm == "L1":
        found.append(attacks.ead(ball, steps // 9))
    return found


def adv_lib_attacks(norm: str, steps: int) -> dict[str, Callable]:
    """The same attacks of adv-lib: functions of a model, images and labels."""
    from adv_lib import attacks

    order = {"Linf": math.inf, "L2": 2, "L1": 1, "L0": 0}[norm]

    def fmn(*batch: Any) -> Any:
        return attacks.fmn(*batch, norm=order, steps=steps)

    if norm == "L0":
        return {"sigma-zero": lambda *b: attacks.sigma_zero(*b, num_steps=steps), "FMN": fmn}
    found = {"FMN": fmn, "PDPGD": lambda *b: attacks.pdpgd(*b, norm=order, num_steps=steps)}
    if norm == "L2":
        found["DDN"] = lambda *batch: attacks.ddn(*batch, steps=steps, levels=None)
    return found


def length(norm: str, delta: np.ndarray) -> np.ndarray:
    """The distance of each image in a norm."""
    flat = np.abs(delta.reshape(len(delta), -1).astype(np.float64))
    return {
        "Linf": lambda: flat.max(axis=1),
        "L2": lambda: np.sqrt((flat**2).sum(axis=1)),
        "L1": lambda: flat.sum(axis=1),
        "L0": lambda: (flat > 0).sum(axis=1).astype(float),
    }[norm]()


def run_ours(model: keras.Model, norm: str, steps: int, x: np.ndarray, y: np.ndarray) -> list:
    """The outcomes of this library."""
    outcomes = []
    for attack in attacks_of(norm, steps):
        counted = CountedForward(lambda images: model(images, training=False), bounded=False)
        run = attack.compiled(counted)
        begin = time.perf_counter()
        x_adv = run(x, y).numpy()
        seconds = time.perf_counter() - begin
        fooled = model(x_adv, training=False)["logits"].numpy().argmax(axis=1) != y
        distances = np.where(fooled, length(norm, x_adv - x), math.inf)
        outcomes.append(Outcome("keras_robust", attack.name, distances, counted.counts(), seconds))
    return outcomes


def run_adv_lib(network: Any, norm: str, steps: int, x: np.ndarray, y: np.ndarray) -> list:
    """The outcomes of adv-lib, on the copy in PyTorch."""
    import torch

    images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    labels, outcomes = torch.from_numpy(y.astype("int64")), []
    for name, attack in adv_lib_attacks(norm, steps).items():
        counts = [0, 0]

        def counted(batch: Any, counts: list = counts) -> Any:
            counts[0] += 1
            logits = network(batch)
            if logits.requires_grad:
                logits.register_hook(lambda _: counts.__setitem__(1, counts[1] + 1))
            return logits

        begin = time.perf_counter()
        adversarial = attack(counted, images, labels).detach()
        seconds = time.perf_counter() - begin
        fooled = (network(adversarial).argmax(1) != labels).numpy()
        distances = np.where(fooled, length(norm, (adversarial - images).numpy()), math.inf)
        outcomes.append(Outcome("adv-lib", name, distances, tuple(counts), seconds))
    return outcomes


def read(split: str, data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Images in [0, 1] and labels of a part of MNIST."""
    import tensorflow_datasets as tfds

    images, labels = tfds.load(
        "mnist", split=split, batch_size=-1, as_supervised=True, data_dir=data_dir, download=False
    )
    return images.numpy().astype("float32") / 255, labels.numpy()


def trained(values: flags.FlagValues) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A network, and test images that it classifies correctly."""
    keras.utils.set_random_seed(values.seed)
    layers = keras.layers
    images = keras.Input((28, 28, 1))
    hidden = layers.Conv2D(8, 3, padding="same", activation="relu")(images)
    hidden = layers.MaxPooling2D(2)(hidden)
    hidden = layers.Conv2D(16, 3, padding="same", activation="relu")(hidden)
    hidden = layers.MaxPooling2D(2)(hidden)
    hidden = layers.Dense(64, activation="relu")(layers.Flatten()(hidden))
    features = layers.Identity()(hidden)
    outputs = {"logits": layers.Dense(10)(hidden), "features": features}
    network = keras.Model(images, outputs)
    if values.hardened:
        model = kr.defenses.pgd_at(network, kr.LinfBall(0.1), steps=5)
    else:
        model = kr.defenses.standard(network)
    model.compile(keras.optimizers.Adam(2e-3))
    images, labels = read(f"train[:{values.train_images}]", values.data_dir)
    model.fit(images, labels, batch_size=128, epochs=values.epochs, verbose=0)
    x, y = read(f"test[:{2 * values.images}]", values.data_dir)
    right = network.predict(x, verbose=0)["logits"].argmax(axis=1) == y
    return network, x[right][: values.images], y[right][: values.images]


def run(values: flags.FlagValues = flags.FLAGS) -> dict[str, list[Outcome]]:
    """Runs the benchmark: norm -> outcomes."""
    network, x, y = trained(values)
    beside = all(importlib.util.find_spec(name) for name in ("torch", "adv_lib"))
    if beside:
        import torch

        threads = os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))
        torch.set_num_threads(int(threads))
        copy = official.copied(network)
    else:
        print("torch or adv-lib is not installed: this library is run alone.")
    outcomes = {}
    for norm in dict.fromkeys(values.norm):
        outcomes[norm] = run_ours(network, norm, values.steps, x, y)
        if beside:
            outcomes[norm] += run_adv_lib(copy, norm, values.steps, x, y)
        print(table(norm, outcomes[norm]), flush=True)
    return outcomes


def scores(outcomes: list[Outcome]) -> list[float]:
    """The optimality of each outcome among all of a norm."""
    distances = {str(number): one.distances for number, one in enumerate(outcomes)}
    return list(kr.evaluation.optimality(distances).values())


def table(norm: str, outcomes: list[Outcome]) -> str:
    """Rows of a Markdown table, and the comparison of the best of both libraries."""
    found = scores(outcomes)
    lines = [
        f"| {norm} | {one.library} | {one.name} | {100 * score:.2f} % | "
        f"{median_distance(one.distances):.4g} | {np.isfinite(one.distances).mean():.0%} | "
        f"{one.passes[0]} + {one.passes[1]} | {one.seconds:.0f} |"
        for one, score in zip(outcomes, found, strict=True)
    ]
    best = {
        library: max(s for one, s in zip(outcomes, found, strict=True) if one.library == library)
        for library in {one.library for one in outcomes}
    }
    if "adv-lib" in best:
        ahead = best["keras_robust"] - best["adv-lib"]
        verdict = "reached" if ahead >= -WORSE else "MISSED"
        lines.append(f"{norm}: the best is {100 * ahead:+.2f} points from adv-lib's ({verdict})")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Runs the program."""
    del arguments
    print("| norm | library | attack | optimality | median distance | success | passes: "
          "forward + backward | seconds |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    run()


if __name__ == "__main__":
    define_flags()
    app.run(main)
