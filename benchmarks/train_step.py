"""Training step through Keras `fit`, compared with the gradients that it needs.

PGD adversarial training of the MNIST CNN with k steps needs k input gradients and one weight
gradient. The lower bound is these gradients, compiled: no projection, optimizer, clean accuracy,
metrics, data pipeline or callbacks. A step is measured from the end of one to the end of the next,
so that all of these count, and the start of an epoch does not.

    python benchmarks/train_step.py
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
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from absl import app, flags, logging

import keras_robust as kr
from benchmarks import gradients, report, timing

SHAPE, CLASSES, RADIUS = (28, 28, 1), 10, 0.3
OURS, BOUND = "PGD-AT", "lower bound"


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    for name, default, text in (
        ("k", 10, "Number of steps of PGD."),
        ("batch_size", 128, "Images per batch."),
        ("fit_steps", 6, "Steps per epoch; all but the first are timed."),
        ("repeats", 10, "Epochs of each implementation that count."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=1, flag_values=values)


class TimedTraining:
    """A model that trains for one epoch at each call and returns the duration of a step.

    Args:
        model: the compiled model.
        images, labels, batch_size: the training data.
    """

    def __init__(self, model: keras.Model, images: Any, labels: Any, batch_size: int):
        self.model = model
        self.traces = 0
        self._data = kr.data.training_epochs(images, labels, batch_size)
        self._step, model.train_step = model.train_step, self._counted

    def _counted(self, data: Any) -> Any:
        self.traces += 1  # Python runs this only while TensorFlow traces it
        return self._step(data)

    def __call__(self) -> float:
        """Trains an epoch; returns the seconds of a step."""
        ends: list[float] = []
        end = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
        )
        self.model.fit(self._data, epochs=1, verbose=0, callbacks=[end])
        return (ends[-1] - ends[0]) / (len(ends) - 1)


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Runs the benchmark; returns the rows to print."""
    batch, steps, k = values.batch_size, values.fit_steps + 1, values.k
    images = tf.random.stateless_uniform([batch * steps, *SHAPE], [0, 0])
    labels = tf.random.stateless_uniform([batch * steps], [0, 1], 0, CLASSES, tf.int32)
    models = {name: TimedTraining(model, images, labels, batch) for name, model in built(k).items()}
    bound = lower_bound(models[OURS].model.classifier, images, labels, batch, k)
    work = {BOUND: lambda: repeated(bound, values.fit_steps), **models}
    for implementation in work.values():
        implementation()
    traced = {name: model.traces for name, model in models.items()}
    times = timing.interleaved(work, values.repeats, measure=lambda work: work(), warm_ups=1)
    retraced = sum(model.traces - traced[name] for name, model in models.items())
    what = f"training step through `fit`, k = {k}, MNIST CNN, batch {batch}"
    return [
        *(
            report.Row(
                f"{what}: time of {name} / the {k + 1} gradients of PGD-AT",
                timing.ratio(times[name], times[BOUND]),
                report.Target(1.05) if name == OURS else None,
                f"{1000 * statistics.median(times[name]):.0f} ms",
            )
            for name in models
        ),
        report.Row(
            f"{what}: traces in {values.repeats + 1} more epochs of each",
            retraced,
            report.Target(0),
        ),
    ]


def built(k: int) -> dict[str, keras.Model]:
    """The implementations, each on its own network with the same weights."""
    ball = kr.LinfBall(RADIUS)
    factories = {
        OURS: lambda net: kr.defenses.pgd_at(net, ball, steps=k),
        f"{OURS}, bfloat16 crafting": lambda net: kr.defenses.pgd_at(
            net, ball, steps=k, crafting_dtype="bfloat16"
        ),
        "TRADES": lambda net: kr.defenses.trades(net, ball, steps=k),
        "MART": lambda net: kr.defenses.mart(net, ball, steps=k),
        "a clean step": kr.defenses.standard,
    }
    models = {}
    for name, factory in factories.items():
        keras.utils.set_random_seed(0)
        models[name] = factory(kr.models.build("small_cnn", SHAPE, CLASSES))
        models[name].compile(optimizer=keras.optimizers.Adam(1e-4))
    return models


def lower_bound(
    classifier: keras.Model, images: tf.Tensor, labels: tf.Tensor, batch: int, k: int
) -> Callable[[], Any]:
    """The gradients of a step: k w.r.t. images in one compiled function, and one w.r.t. weights."""
    chained = gradients.chained(classifier)
    weights = tf.function(gradients.weight_gradients(classifier), autograph=False)
    x, y = images[:batch], labels[:batch]
    points = tf.random.stateless_uniform([k, *x.shape], [0, 2])
    return lambda: (chained(points, y), weights(x, y))


def repeated(work: Callable[[], Any], times: int) -> float:
    """Mean seconds of several calls."""
    return timing.seconds(lambda: [work() for _ in range(times)]) / times


def main(_: list[str]) -> None:
    """Prints the table."""
    logging.set_verbosity(logging.WARNING)
    report.show(run(), "train_step")


if __name__ == "__main__":
    define_flags()
    app.run(main)
