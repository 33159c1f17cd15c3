"""Training step of CCE, compared with ADV-EN with the same members.

With k steps of PGD, ADV-EN takes k input gradients and 2 weight gradients of each member. CCE takes
k input gradients of each member and, with N members, 1 + N weight gradients: for the clean images,
and for the images crafted on each member, as one batch. The ratio is (k + 1 + N) / (k + 2): 1.08
with two members and k = 10, 1.17 with three.

    python benchmarks/ensemble_step.py
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

import statistics
from collections.abc import Callable

import keras
import tensorflow as tf
from absl import app, flags, logging

import keras_robust as kr
from benchmarks import report, timing
from benchmarks.train_step import TimedTraining

SHAPE, CLASSES, RADIUS = (28, 28, 1), 10, 0.3
DEFENSES: dict[str, Callable[..., kr.RobustModel]] = {
    "ADV-EN": kr.defenses.ensemble_at,
    "ADP": kr.defenses.adp,
    "CCE-RM": kr.defenses.cce,
}
TARGETS = {2: 1.15, 3: 1.25}


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string("net", "small_cnn", "Architecture of the members.", flag_values=values)
    flags.DEFINE_multi_integer(
        "members", [2, 3], "Number of members; may be repeated.", flag_values=values
    )
    for name, default, text in (
        ("k", 10, "Number of steps of PGD."),
        ("batch_size", 64, "Images per batch."),
        ("fit_steps", 4, "Steps per epoch; all but the first are timed."),
        ("repeats", 10, "Epochs of each implementation that count."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=1, flag_values=values)


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Runs the benchmark; returns the rows to print."""
    return [row for members in values.members for row in compared(members, values)]


def compared(members: int, values: flags.FlagValues) -> list[report.Row]:
    """The rows for ensembles of one size."""
    batch, count = values.batch_size, values.batch_size * (values.fit_steps + 1)
    images = tf.random.stateless_uniform([count, *SHAPE], [0, 0])
    labels = tf.random.stateless_uniform([count], [0, 1], 0, CLASSES, tf.int32)
    work = {}
    for name, defense in DEFENSES.items():
        keras.utils.set_random_seed(0)
        net = kr.models.build("ensemble", SHAPE, CLASSES, members=(values.net,) * members)
        model = defense(net, kr.LinfBall(RADIUS), steps=values.k)
        model.compile(optimizer=keras.optimizers.Adam(1e-4))
        work[name] = TimedTraining(model, images, labels, batch)
    times = timing.interleaved(work, values.repeats, measure=lambda work: work(), warm_ups=2)
    what = f"training step, {members} members, k = {values.k}, {values.net}, batch {batch}"
    base = "ADV-EN"
    return [
        report.Row(
            f"{what}: time of {name} / {base}",
            timing.ratio(times[name], times[base]),
            report.Target(TARGETS[members]) if name == "CCE-RM" and members in TARGETS else None,
            f"{1000 * statistics.median(times[name]):.0f} ms",
        )
        for name in DEFENSES
        if name != base
    ]


def main(_: list[str]) -> None:
    """Prints the table."""
    logging.set_verbosity(logging.WARNING)
    report.show(run(), "ensemble_step")


if __name__ == "__main__":
    define_flags()
    app.run(main)
