"""A step of targeted FAB in gradients, and a query of Square in predictions.

    python benchmarks/attack_steps.py --clock=processor

Both attacks on the published MNIST network, compiled, where Square fools nothing. A step of
targeted FAB predicts the new point, moves it back where it is misclassified, and takes a gradient
there: a gradient and a prediction. One pass would do both where a point is not moved back.
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

import functools
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

import keras_robust as kr
from benchmarks import gradients, report, timing
from keras_robust.attacks.minimum_norm.fab import Fab

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
# Targets: a step in gradients and a prediction, and a query in predictions.
STEP, QUERY = 1.1, 1.05


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_integer("batch_size", 64, "Images of a batch.", flag_values=values)
    flags.DEFINE_integer("steps", 20, "Steps and queries that are timed.", flag_values=values)
    flags.DEFINE_integer("repeats", 7, "Rounds that are timed.", flag_values=values)
    flags.DEFINE_enum(
        "clock", "wall", list(CLOCKS), "Clock; processor is for a core that other programs share.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string(
        "data_dir", None, "Directory of TensorFlow Datasets, for MNIST; random images without.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer("seed", 0, "Seed of images and attacks.", flag_values=values)


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Runs the benchmark; returns the rows to print."""
    model = kr.models.load("mnist/trades-linf-0.3")
    x = images(values)
    y = tf.argmax(model(x, training=False)["logits"], axis=1)  # all start classified correctly
    steps = values.steps
    noise = tf.random.stateless_uniform([steps, *x.shape], [0, 1], 0, 0.01)
    points = x + noise  # for equal ones a graph optimizer would compute a single gradient
    fab = Fab(kr.LinfBall(0.3), steps, targeted=True).compiled(model)
    square = kr.attacks.square(kr.LinfBall(1e-4), steps).compiled(model)
    works = {
        "gradient": functools.partial(gradients.chained(model), points, y),
        "prediction": functools.partial(predictions(model), points),
        "FAB-T": lambda: fab(x, y, values.seed, targets=(y + 1) % 10),
        "Square": lambda: square(x, y, values.seed),
    }
    clock = CLOCKS[values.clock]

    def measure(work: Callable) -> float:
        begin = clock()
        work()
        return clock() - begin

    times = timing.interleaved(works, values.repeats, measure)
    # The start of Square is a query as well.
    times["Square"] = [taken * steps / (steps + 1) for taken in times["Square"]]
    one = timing.ratio(times["prediction"], to=times["gradient"])
    both = [sum(pair) for pair in zip(times["gradient"], times["prediction"], strict=True)]
    what = f"MNIST CNN, batch {values.batch_size}"
    note = f"{1000 * np.median(times['gradient']) / steps:.3g} ms a gradient"
    return [
        report.Row(f"{what}: a prediction, in gradients", one, None, note),
        report.Row(
            f"{what}: a step of targeted FAB, in gradients",
            timing.ratio(times["FAB-T"], to=times["gradient"]),
        ),
        report.Row(
            f"{what}: a step of targeted FAB, in gradients and predictions",
            timing.ratio(times["FAB-T"], to=both),
            report.Target(STEP),
        ),
        report.Row(
            f"{what}: a query of Square, in predictions",
            timing.ratio(times["Square"], to=times["prediction"]),
            report.Target(QUERY),
        ),
    ]


def images(values: flags.FlagValues) -> tf.Tensor:
    """Test images of MNIST, or random ones."""
    if values.data_dir is None:
        shape = (values.batch_size, 28, 28, 1)
        return tf.constant(np.random.default_rng(values.seed).random(shape, np.float32))
    test = kr.data.load("mnist", batch_size=values.batch_size, data_dir=values.data_dir).test
    return tf.constant(next(test.as_numpy_iterator())[0])


def predictions(classifier: keras.Model) -> Callable:
    """A compiled function of predictions at many points, one after the other."""

    @tf.function(autograph=False)
    def run(points: tf.Tensor) -> list[tf.Tensor]:
        done: list[tf.Tensor] = []
        for x in tf.unstack(points):
            with tf.control_dependencies(done[-1:]):  # a search cannot compute two at a time
                done.append(classifier(tf.identity(x), training=False)["logits"])
        return done

    return run


def main(_: list[str]) -> None:
    """Prints the table."""
    logging.set_verbosity(logging.WARNING)
    report.show(run(), "attack_steps")


if __name__ == "__main__":
    define_flags()
    app.run(main)
