"""Batch norm folded into convolutions: the time of an attack, and that it finds the same.

    python benchmarks/folded_batch_norm.py

PGD on ResNet20 with the statistics of random images, as a compiled attack runs it, and on the same
network as a function, which is not folded.
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

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

import keras_robust as kr
from benchmarks import report, timing

# Targets: the time, relative to the network as it is; and the fraction of other verdicts.
TIME, OTHER = 0.9, 0.0


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_integer("batch_size", 32, "Images of a batch.", flag_values=values)
    flags.DEFINE_integer("steps", 10, "Steps of PGD.", flag_values=values)
    flags.DEFINE_integer("repeats", 7, "Rounds that are timed.", flag_values=values)
    flags.DEFINE_float("radius", 4 / 255, "Radius of the ball in Linf.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Seed of weights and images.", flag_values=values)


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Runs the benchmark; returns the rows to print."""
    keras.utils.set_random_seed(values.seed)
    model = kr.models.resnet20((32, 32, 3), 10)
    x = np.random.default_rng(values.seed).random((values.batch_size, 32, 32, 3), np.float32)
    for _ in range(20):
        model(x, training=True)  # sets the statistics
    x = tf.constant(x)
    y = tf.argmax(model(x, training=False)["logits"], axis=1)
    attack = kr.attacks.pgd(kr.LinfBall(values.radius), values.steps)
    crafts = {
        "folded": attack.compiled(model),
        "as it is": attack.compiled(lambda images: model(images, training=False)),
    }
    times = timing.interleaved(
        {name: lambda craft=craft: craft(x, y).numpy() for name, craft in crafts.items()},
        values.repeats,
    )
    verdicts = [
        tf.argmax(model(craft(x, y), training=False)["logits"], axis=1).numpy()
        for craft in crafts.values()
    ]
    other = float(np.mean(verdicts[0] != verdicts[1]))
    what = f"PGD-{values.steps}, ResNet20, batch {values.batch_size}"
    fooled = f"{np.mean(verdicts[0] != y.numpy()):.3f} fooled"
    ratio = timing.ratio(times["folded"], to=times["as it is"])
    return [
        report.Row(f"{what}: time with batch norm folded / as it is", ratio, report.Target(TIME)),
        report.Row(f"{what}: other predictions", other, report.Target(OTHER), fooled),
    ]


def main(_: list[str]) -> None:
    """Prints the table."""
    logging.set_verbosity(logging.WARNING)
    report.show(run(), "folded_batch_norm")


if __name__ == "__main__":
    define_flags()
    app.run(main)
