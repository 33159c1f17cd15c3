"""AutoAttack beside the official one: what each leaves of a small robust model, and the time.

A perceptron is trained on digits with PGD-AT; then each attack of the standard version, and the
whole, is run here and by `pyautoattack`, the official code, on the same images. That attacks the
same model through a PyTorch bridge; what the bridge needs of TensorFlow is compiled. Without
PyTorch and pyautoattack only this library is run.

    python benchmarks/auto_attack.py --norm=linf --radius=0.15
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # The root, for the packages; here, `serving` would be a benchmark.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from serving.quiet import quiet_start

    with quiet_start():
        import tensorflow as tf

        tf.config.list_logical_devices()

import importlib.util
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

import keras_robust as kr
from benchmarks import report

BALLS = {"linf": (kr.LinfBall, "Linf"), "l2": (kr.L2Ball, "L2"), "l1": (kr.L1Ball, "L1")}
WHOLE = "standard"
# Accuracies of different random starts; of 360 images one is 0.003.
CLOSE = 0.01


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_enum("norm", "linf", list(BALLS), "Of the ball.", flag_values=values)
    flags.DEFINE_float("radius", 0.15, "Of the ball.", flag_values=values)
    flags.DEFINE_integer("epochs", 15, "Of training.", flag_values=values)
    flags.DEFINE_integer("images", 360, "How many test images.", flag_values=values)
    flags.DEFINE_integer("iterations", 100, "Of APGD and FAB.", flag_values=values)
    flags.DEFINE_integer("queries", 5000, "Of Square.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of weights and starts.", flag_values=values)


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Measures; the rows to print."""
    kind, norm = BALLS[values.norm]
    ball = kind(values.radius)
    model = trained(values.epochs, values.seed)
    test = kr.data.load("digits", batch_size=values.images).test
    x, y = next(test.as_numpy_iterator())
    attack = kr.attacks.auto_attack(ball, iterations=values.iterations, queries=values.queries)
    names = ("apgd-ce", "apgd-t", "fab-t", "square")
    attacks = {**dict(zip(names, attack.attacks(10), strict=True)), WHOLE: attack}
    rows = []
    official = installed(model, norm, values)
    for name, one in attacks.items():
        begin = time.perf_counter()
        ours = kr.evaluation.evaluate(model, (x, y), one, seed=values.seed).worst_case_accuracy
        seconds = time.perf_counter() - begin
        what = f"{name}, {values.norm} {values.radius:g}, {len(y)} digits"
        note = f"{ours:.4f} in {seconds:.1f} s"
        print(f"{name}: {note}", file=sys.stderr, flush=True)
        if official is None:
            rows.append(report.Row(f"{what}: accuracy left", ours, None, note))
            continue
        begin = time.perf_counter()
        theirs = official(list(names) if name == WHOLE else [name], x, y)
        slower = time.perf_counter() - begin
        note = f"keras_robust {note}, official {theirs:.4f} in {slower:.1f} s"
        print(f"{name}: {note}", file=sys.stderr, flush=True)
        gap = round(ours - theirs, 6)
        target = report.Target(CLOSE)
        rows.append(
            report.Row(f"{what}: accuracy left, keras_robust - official", gap, target, note)
        )
        rows.append(report.Row(f"{what}: time of official / keras_robust", slower / seconds))
    return rows


def trained(epochs: int, seed: int) -> keras.Model:
    """A perceptron, hardened a little."""
    keras.utils.set_random_seed(seed)
    classifier = kr.models.mlp((8, 8, 1), 10)
    model = kr.defenses.pgd_at(classifier, kr.LinfBall(0.1), steps=5)
    model.compile(keras.optimizers.Adam(2e-3))
    model.fit(kr.data.load("digits", batch_size=64).train, epochs=epochs, verbose=0)
    return classifier


def installed(model: keras.Model, norm: str, values: flags.FlagValues) -> Any:
    """A function `(names, x, y) -> accuracy` of the official code, or None where it is missing."""
    for package in ("torch", "pyautoattack"):
        if importlib.util.find_spec(package) is None:
            print(f"{package} is not installed: the official AutoAttack is skipped.")
            return None
    import pyautoattack
    import torch

    torch.set_num_threads(1)
    forward = bridged(model)

    def accuracy(names: list[str], x: np.ndarray, y: np.ndarray) -> float:
        official = pyautoattack.AutoAttack(
            forward, norm=norm, eps=values.radius, seed=values.seed, version=WHOLE
        )
        for part in (official.apgd, official.apgd_targeted, official.fab):
            part.n_iter = part.n_iter_orig = values.iterations
        official.square.n_queries = values.queries
        official.attacks_to_run = names
        images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        labels = torch.from_numpy(y.astype("int64"))
        _, said = official.run_standard_evaluation(images, labels, batch_size=len(y))
        return int((said == labels).sum()) / len(y)

    return accuracy


def bridged(model: keras.Model) -> Any:
    """The model as a PyTorch function of images with channels first, with gradients."""
    import torch

    @tf.function(reduce_retracing=True)
    def logits(x: tf.Tensor) -> tf.Tensor:
        return model(x, training=False)["logits"]

    @tf.function(reduce_retracing=True)
    def pulled_back(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(model(x, training=False)["logits"] * upstream)
        return tape.gradient(total, x)

    def channels_last(x: Any) -> tf.Tensor:
        return tf.constant(x.detach().numpy().transpose(0, 2, 3, 1))

    class Bridge(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Any) -> Any:
            context.save_for_backward(x)
            return torch.from_numpy(logits(channels_last(x)).numpy())

        @staticmethod
        def backward(context: Any, upstream: Any) -> Any:
            (x,) = context.saved_tensors
            gradient = pulled_back(channels_last(x), tf.constant(upstream.numpy()))
            return torch.from_numpy(gradient.numpy().transpose(0, 3, 1, 2).copy())

    return Bridge.apply


def main(_: list[str]) -> None:
    """Prints the table."""
    logging.set_verbosity(logging.WARNING)
    report.show(run(), "auto_attack")


if __name__ == "__main__":
    define_flags()
    app.run(main)
