"""What tracing costs a user: evaluations in a row, many classes, and the first adversarial batch.

python benchmarks/tracing.py
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

import os

import keras
import numpy as np
from absl import app, flags, logging

import keras_robust as kr
from benchmarks import report, timing
from benchmarks.new_process import printed

WIDE = 1.5  # the target for many classes, relative to few
_COLD = """
import numpy as np
import keras_robust as kr
model = kr.models.mlp((8, 8, 1), 10)
attack = kr.attacks.pgd(kr.LinfBall(0.1), 10).compiled(model)
attack(np.full((64, 8, 8, 1), 0.5, "float32"), np.zeros(64, int)).numpy()
"""


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_integer("images", 160, "Images of an evaluation.", flag_values=values)
    flags.DEFINE_integer("classes", 1000, "Classes of the wide model.", flag_values=values)
    flags.DEFINE_integer("repeats", 3, "Fresh processes that are timed.", flag_values=values)


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Runs the benchmark; returns the rows to print."""
    model = kr.models.mlp((8, 8, 1), 10)
    x = np.random.default_rng(0).random((values.images, 8, 8, 1), np.float32)
    y = model(x)["logits"].numpy().argmax(axis=1)
    attack = kr.attacks.auto_attack(kr.LinfBall(0.01), steps=2, queries=2)

    def evaluate() -> None:
        kr.evaluation.evaluate(model, (x, y), attack, radii=[0.005], limit=values.images)

    first, second = processor_seconds(evaluate), processor_seconds(evaluate)
    few, many = (traced(classes) for classes in (10, values.classes))
    cold = timing.spread([processor_seconds(lambda: printed(_COLD)) for _ in range(values.repeats)])
    spent = f"{first:.2f} and {second:.2f} s"
    wide = f"{few:.2f} and {many:.2f} s"
    return [
        report.Row(
            "AutoAttack of few steps, twice: time of the second evaluation / the first",
            second / first, None, spent,
        ),
        report.Row(
            f"multi-targeted PGD, first batch: time on {values.classes} classes / on 10",
            many / few, report.Target(WIDE), wide,
        ),
        report.Row("from the shell to the first adversarial batch, PGD-10: seconds", cold),
    ]  # fmt: skip


def traced(classes: int) -> float:
    """The seconds to trace a multi-targeted attack on a model with so many classes."""
    inputs = keras.Input([8])
    model = keras.Model(inputs, {"logits": keras.layers.Dense(classes)(inputs)})
    targeted = kr.attacks.pgd(kr.LinfBall(0.1), 2, targeted=True)
    attack = kr.attacks.multi_targeted(targeted).compiled(model)
    return processor_seconds(lambda: attack(np.full((1, 8), 0.5, "float32"), [0]))


def processor_seconds(work: timing.Work) -> float:
    """The processor time of one call, with that of the processes that it waits for."""
    before = sum(os.times()[:4])
    work()
    return sum(os.times()[:4]) - before


def main(_: list[str]) -> None:
    """Prints the table."""
    logging.set_verbosity(logging.WARNING)
    report.show(run(), "tracing")


if __name__ == "__main__":
    define_flags()
    app.run(main)
