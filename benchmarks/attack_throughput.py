"""What the crafting loop costs beside the bare gradients it cannot do without.

Prints ratios within one run: PGD as the library runs it, and the same loop with the gradient
inlined, each against as many compiled forward and backward passes with nothing between them.

    python benchmarks/attack_throughput.py --steps=20 --repeats=5
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import statistics
import time

import tensorflow as tf
from absl import app, flags

import keras_robust as kr
from keras_robust import ascent

_STEPS = flags.DEFINE_integer("steps", 20, "Steps of PGD.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch_size", 128, "Images in a batch.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed repeats of each contender.", lower_bound=1)
_MODEL = flags.DEFINE_string("model", "small_cnn", "Architecture, on 28 x 28 x 1 images.")


def contenders(classifier, x, y, steps):
    """Name -> a function that does the work once."""
    ball = kr.LinfBall(0.3)
    gradient = tf.function(
        lambda x: ascent.value_and_gradient(
            lambda x_adv: kr.losses.cross_entropy(classifier(x_adv, training=False)["logits"], y), x
        )
    )

    def bare():
        for _ in range(steps):
            gradient(x)

    out_of_line = kr.attacks.pgd(ball, steps).compiled(classifier)
    kept, ascent.out_of_line = ascent.out_of_line, lambda function: function
    inlined = kr.attacks.pgd(ball, steps).compiled(classifier)
    inlined(x, y)  # traced while the gradient is inlined
    ascent.out_of_line = kept
    return {
        "bare gradients": bare,
        "PGD": lambda: out_of_line(x, y),
        "PGD, gradient inlined": lambda: inlined(x, y),
    }


def main(_):
    """Times the contenders in turn, so that a slow spell of the machine strikes all alike."""
    classifier = kr.models.build(_MODEL.value, (28, 28, 1), 10)
    x = tf.random.stateless_uniform([_BATCH.value, 28, 28, 1], seed=[0, 0])
    y = tf.random.stateless_uniform([_BATCH.value], [0, 1], 0, 10, tf.int64)
    work = contenders(classifier, x, y, _STEPS.value)
    seconds = {name: [] for name in work}
    for run in work.values():
        run()  # traces and warms up
    for _ in range(_REPEATS.value):
        for name, run in work.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    floor = seconds["bare gradients"]
    print(f"{_MODEL.value}, batch {_BATCH.value}, {_STEPS.value} steps, x bare gradients")
    for name, times in seconds.items():
        ratios = sorted(t / f for t, f in zip(times, floor, strict=True))
        print(f"{name:24s} {statistics.median(ratios):.2f}  ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    app.run(main)
