"""Cost that a defense adds to the training step of its base, through Keras `fit`.

UDR replaces the projection and learns a multiplier; AWP takes one more weight gradient; ADR and
ASCL add terms on latents, for all pairs of a batch; N-FGSM takes one gradient of the images. Each
is timed against its base, N-FGSM against a clean step, interleaved, on the MNIST CNN.

    python benchmarks/defense_cost.py
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
from benchmarks.train_step import CLASSES, RADIUS, SHAPE, TimedTraining
from keras_robust import defenses

BASE = "PGD-AT"
WITH_CLEAN, TRADES = "PGD-AT with the clean term", "TRADES"
CLEAN = "a clean step"


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    for name, default, text in (
        ("k", 10, "Number of steps of PGD."),
        ("batch_size", 128, "Images per batch."),
        ("fit_steps", 4, "Steps per epoch; all but the first are timed."),
        ("repeats", 8, "Epochs of each implementation that count."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=1, flag_values=values)


def factories(k: int) -> dict[str, Callable[[keras.Model], kr.RobustModel]]:
    """The implementations, bases first."""
    ball, awp = kr.LinfBall(RADIUS), kr.AWP(0.01)
    pgd_at, trades = defenses.pgd_at, defenses.trades

    def latent(net: keras.Model) -> keras.Model:
        return kr.models.adapt(net, features="flatten")  # 1024 numbers

    return {
        BASE: lambda net: pgd_at(net, ball, steps=k),
        WITH_CLEAN: lambda net: pgd_at(net, ball, clean_weight=1.0, steps=k),
        TRADES: lambda net: trades(net, ball, steps=k),
        "UDR": lambda net: defenses.udr(net, ball, base=pgd_at, steps=k),
        "UDR over TRADES": lambda net: defenses.udr(net, ball, base=trades, steps=k),
        "AWP": lambda net: pgd_at(net, ball, steps=k, weight_perturbation=awp),
        "ADR": lambda net: defenses.adr(latent(net), ball, base=pgd_at, clean_weight=1.0, steps=k),
        CLEAN: defenses.standard,
        "N-FGSM": lambda net: defenses.n_fgsm(net, ball),
        "N-FGSM with gradient alignment": lambda net: defenses.n_fgsm(net, ball, grad_align=0.2),
        "IKL": lambda net: trades(net, ball, divergence="ikl", steps=k),
        "ASCL": lambda net: defenses.ascl(net, ball, steps=k),
        "ASCL by the Linf distance": lambda net: defenses.ascl(
            net, ball, similarity="linf", steps=k
        ),
    }


# The defense, its base, and the target for the ratio of their steps.
PAIRS = (
    ("UDR", BASE, report.Target(1.03)),
    ("UDR over TRADES", TRADES, report.Target(1.03)),
    ("N-FGSM", CLEAN, report.Target(2.05)),
    ("N-FGSM with gradient alignment", CLEAN, None),
    ("IKL", TRADES, report.Target(1.03)),
    ("ADR", WITH_CLEAN, report.Target(1.03)),
    ("ASCL", WITH_CLEAN, report.Target(1.05)),
    ("ASCL by the Linf distance", WITH_CLEAN, None),
)


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Runs the benchmark; returns the rows to print."""
    batch, steps = values.batch_size, values.fit_steps + 1
    images = tf.random.stateless_uniform([batch * steps, *SHAPE], [0, 0])
    labels = tf.random.stateless_uniform([batch * steps], [0, 1], 0, CLASSES, tf.int32)
    work = {}
    for name, factory in factories(values.k).items():
        keras.utils.set_random_seed(0)
        model = factory(kr.models.build("small_cnn", SHAPE, CLASSES))
        model.compile(optimizer=keras.optimizers.Adam(1e-4))
        work[name] = TimedTraining(model, images, labels, batch)
    times = timing.interleaved(work, values.repeats, measure=lambda work: work())
    what = f"training step through `fit`, k = {values.k}, MNIST CNN, batch {batch}: time of"
    rows = [
        report.Row(
            f"{what} {name} / {base}",
            timing.ratio(times[name], times[base]),
            target,
            f"{1000 * statistics.median(times[name]):.0f} ms",
        )
        for name, base, target in PAIRS
    ]
    # A step without the attack is the gradient of the weights: what AWP may take once more.
    gradient = [t / (values.k + 1) for t in times[BASE]]
    more = [t - base for t, base in zip(times["AWP"], times[BASE], strict=True)]
    note = f"{1000 * statistics.median(times['AWP']):.0f} ms"
    rows.append(
        report.Row(f"{what} AWP / {BASE}", timing.ratio(times["AWP"], times[BASE]), None, note)
    )
    rows.append(
        report.Row(
            f"{what} AWP less {BASE} / a gradient of {BASE}, of which there are {values.k + 1}",
            timing.ratio(more, gradient),
        )
    )
    return rows


def main(_: list[str]) -> None:
    """Prints the table."""
    logging.set_verbosity(logging.WARNING)
    report.show(run(), "defense_cost")


if __name__ == "__main__":
    define_flags()
    app.run(main)
