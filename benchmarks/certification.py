"""Cost of certified bounds: time over a forward pass, and memory over the number of classes.

The margins of a batch by IBP and CROWN-IBP beside a forward pass, and the gradient of a training
step with the worst case of IBP beside one without, on the MNIST CNN; all compiled and interleaved.
The memory of CROWN-IBP is the growth of a process over it, for more and more classes.

    python benchmarks/certification.py
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
from typing import Any

import keras
import tensorflow as tf
from absl import app, flags, logging

import keras_robust as kr
from benchmarks import new_process, report, timing
from benchmarks.gradients import weight_gradients

SHAPE, CLASSES, RADIUS = (28, 28, 1), 10, 0.1
MEMORY_CLASSES = (50, 100, 200, 400)
PEAK = """
import resource, sys
import numpy as np
import keras_robust as kr
classes, batch, rows = map(int, sys.argv[1:])
model = kr.models.small_cnn((28, 28, 1), classes, variant="tiny")
bounds = kr.certification.crown_ibp(kr.LinfBall(0.1), rows=rows or classes).compiled(model)
x, y = np.full((batch, 28, 28, 1), 0.5, "float32"), np.arange(batch) % classes
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bounds(x, y).numpy()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    for name, default, text in (
        ("batch_size", 100, "Images per batch."),
        ("repeats", 10, "Rounds that count."),
        ("memory_batch_size", 8, "Images per batch where the memory is measured."),
        ("memory_repeats", 3, "Processes for each number of classes; 0 leaves the memory out."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=0, flag_values=values)


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Runs the benchmark; returns the rows to print."""
    rows = []
    for jit in (False, True):
        rows += timed(values.batch_size, values.repeats, jit)
    if values.memory_repeats:
        rows += memory(values.memory_batch_size, values.memory_repeats)
    return rows


def timed(batch: int, repeats: int, jit: bool) -> list[report.Row]:
    """The rows of the times, as a graph or compiled by XLA."""
    model = kr.models.small_cnn(SHAPE, CLASSES, dropout=0.0)
    x = tf.random.stateless_uniform([batch, *SHAPE], [0, 0])
    y = tf.random.stateless_uniform([batch], [0, 1], 0, CLASSES, tf.int32)
    ball = kr.LinfBall(RADIUS)
    work = {
        "forward": lambda x, y: model(x, training=False)["logits"],
        "IBP": lambda x, y: kr.certification.ibp(ball)(model, x, y),
        "gradient": weight_gradients(model),
        "gradient with IBP": with_worst_case(model, kr.certification.ibp(ball)),
    }
    if not jit:  # which takes minutes to compile it
        work["CROWN-IBP"] = lambda x, y: kr.certification.crown_ibp(ball)(model, x, y)
    times = timing.interleaved(
        {name: called(function, x, y, jit) for name, function in work.items()}, repeats
    )
    on = f"MNIST CNN, batch {batch}{', XLA' if jit else ''}"
    forward = f"{1000 * statistics.median(times['forward']):.0f} ms for the forward pass"
    gradient = f"{1000 * statistics.median(times['gradient']):.0f} ms for the plain one"

    def row(what: str, name: str, base: str, bound: float | None, note: str) -> report.Row:
        ratio = timing.ratio(times[name], times[base])
        return report.Row(f"{what}, {on}", ratio, bound and report.Target(bound), note)

    worst = "weight gradient of the clean loss and IBP's worst case / of the clean loss"
    rows = [
        row("time of the margins by IBP / a forward pass", "IBP", "forward", 2.2, forward),
        row(worst, "gradient with IBP", "gradient", 3.5, gradient),
    ]
    if not jit:
        rows.append(row("the margins by CROWN-IBP", "CROWN-IBP", "forward", None, forward))
    return rows


def called(function: Callable[..., Any], x: tf.Tensor, y: tf.Tensor, jit: bool) -> timing.Work:
    """A compiled call that waits for its result."""
    compiled = tf.function(function, autograph=False, jit_compile=jit)
    return lambda: tf.nest.map_structure(lambda value: value.numpy(), compiled(x, y))


def with_worst_case(
    model: keras.Model, bounds: kr.certification.Bounds
) -> Callable[[Any, Any], list[tf.Tensor]]:
    """`(x, y)` -> the gradients of half the clean loss and half that of the worst case."""

    def gradients(x: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits
        with tf.GradientTape() as tape:
            clean = loss(y, model(x, training=True)["logits"])
            worst = kr.certification.worst_logits(bounds(model, x, y, training=True))
            total = tf.reduce_mean(0.5 * clean + 0.5 * loss(y, worst))
        return tape.gradient(total, model.trainable_variables)

    return gradients


def memory(batch: int, repeats: int) -> list[report.Row]:
    """The memory of CROWN-IBP for more and more classes, all at once and 10 at a time."""
    rows = []
    for parts, how in ((0, "all margins at once"), (10, "10 margins at a time")):
        medians = {
            classes: statistics.median(peak(classes, batch, parts) for _ in range(repeats))
            for classes in MEMORY_CLASSES
        }
        few, many = MEMORY_CLASSES[0], MEMORY_CLASSES[-1]
        rows.append(
            report.Row(
                f"memory of CROWN-IBP, {how}, {many} classes / {few} classes, tiny CNN, "
                f"batch {batch}",
                medians[many] / max(medians[few], 1.0),  # a small batch may need no more pages
                report.Target(1.2 * many / few if not parts else 2.0),
                ", ".join(f"{classes}: {mib:.0f} MiB" for classes, mib in medians.items()),
            )
        )
    return rows


def peak(classes: int, batch: int, rows: int) -> float:
    """How many MiB a process grows by while it bounds a batch."""
    return float(new_process.printed(PEAK, classes, batch, rows))


def main(_: list[str]) -> None:
    """Prints the table."""
    logging.set_verbosity(logging.WARNING)
    report.show(run(), "certification")


if __name__ == "__main__":
    define_flags()
    app.run(main)
