"""Cost that a detector adds to a forward pass, on the MNIST CNN.

Each detector computes predictions and scores of a batch as one graph, as `detect` of a served model
does, and is timed against the predictions alone, interleaved. The times are of the processor, so
that other programs on the machine matter less.

    python benchmarks/detector_cost.py
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
import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

import keras_robust as kr
from benchmarks import report, timing
from benchmarks.train_step import CLASSES, SHAPE
from keras_robust.core.graphs import compiled

BASE = "a forward pass"
DETECTORS = {
    "entropy": {},
    "mahalanobis": {},
    "relative_mahalanobis": {},
    "nearest_neighbors": {},
    "lid": {},
    "layer_inconsistency": {},
    "conformal": {"base": "mahalanobis"},
    "feature_squeezing": {},
}
TARGET = report.Target(1.1)


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    for name, default, text in (
        ("batch_size", 128, "Images per batch."),
        ("passes", 4, "Batches in a round."),
        ("repeats", 12, "Rounds of each implementation that count."),
        ("fit_images", 1200, "Random images that the detectors are fitted on."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=1, flag_values=values)


def implementations(model: keras.Model, batch: int, passes: int, fit_images: int) -> dict:
    """The forward pass, and with it each detector."""
    random = np.random.default_rng(0)
    train = random.uniform(size=(fit_images, *SHAPE)).astype(np.float32)
    labels = np.arange(fit_images) % CLASSES
    x = tf.constant(random.uniform(size=(batch, *SHAPE)).astype(np.float32))

    def repeated(graph: functools.partial) -> None:
        for _ in range(passes):
            graph(x)

    work = {BASE: compiled(lambda x: tf.nn.softmax(model(x, training=False)["logits"]))}
    for name, options in DETECTORS.items():
        detector = kr.detection.build(name, model, **options)
        detector = detector.fit((train, labels)).calibrate((train,), 0.1)

        def both(x: tf.Tensor, detector: kr.detection.Detector = detector) -> tuple:
            outputs, score = detector.outputs_and_score(x, lambda x: model(x, training=False))
            return tf.nn.softmax(outputs["logits"]), score

        work[name] = compiled(both)
    return {name: functools.partial(repeated, graph) for name, graph in work.items()}


def processor_seconds(work: timing.Work) -> float:
    """The time of the processor that one call takes, of all threads."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Runs the benchmark; returns the rows to print."""
    keras.utils.set_random_seed(0)
    model = kr.models.build("small_cnn", SHAPE, CLASSES)
    work = implementations(model, values.batch_size, values.passes, values.fit_images)
    times = timing.interleaved(work, values.repeats, measure=processor_seconds)
    what = f"MNIST CNN, batch {values.batch_size}: processor time of prediction and"
    return [
        report.Row(
            f"{what} {name} / {BASE}",
            timing.ratio(times[name], times[BASE]),
            None if name == "feature_squeezing" else TARGET,
            f"{1000 * statistics.median(times[name]) / values.passes:.1f} ms",
        )
        for name in DETECTORS
    ]


def main(_: list[str]) -> None:
    """Prints the table."""
    logging.set_verbosity(logging.WARNING)
    report.show(run(), "detector_cost")


if __name__ == "__main__":
    define_flags()
    app.run(main)
