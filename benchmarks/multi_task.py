"""Cost of weighting tasks in an attack: TA-MOO, compared with equal weights of the same tasks.

Both have the same tasks, steps and backward passes; TA-MOO also multiplies the gradients of the
tasks with each other and solves for the weights. This work depends on the number of tasks and
pixels alone, so that the ratio is smaller for larger models.

    python benchmarks/multi_task.py
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
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from absl import app, flags, logging

import keras_robust as kr
from benchmarks import report, timing

CLASSES, BASE = 10, "uniform"
SHAPES = {"small_cnn": (28, 28, 1), "resnet20": (32, 32, 3)}
TARGETS = {"ensemble of 4": 1.15, "7 transformations": 1.15, "universal, groups of 12": 1.25}


class Setting(NamedTuple):
    """A kind of tasks, a model for it, and the number of images to attack."""

    tasks: Any
    model: keras.Model
    images: int


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_enum(
        "net", "resnet20", list(SHAPES), "Architecture of the model.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "solver",
        ["task_oriented"],
        "Solver to compare with uniform; may be repeated.",
        flag_values=values,
    )
    for name, default, text in (
        ("steps", 20, "Number of steps of the attack."),
        ("batch_size", 32, "Images per batch; for universal attacks, the next multiple of 12."),
        ("repeats", 10, "Number of rounds that count."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=1, flag_values=values)


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Runs the benchmark; returns the rows to print."""
    return [row for name in TARGETS for row in compared(name, values)]


def setting(name: str, values: flags.FlagValues) -> Setting:
    """The setting of a name in `TARGETS`."""
    keras.utils.set_random_seed(0)
    shape, batch = SHAPES[values.net], values.batch_size
    if name == "ensemble of 4":
        model = kr.models.build("ensemble", shape, CLASSES, members=(values.net,) * 4)
        return Setting(kr.tasks.Members(), model, batch)
    model = kr.models.build(values.net, shape, CLASSES)
    if name == "7 transformations":
        return Setting(kr.tasks.Transformations(kr.transforms.ALL), model, batch)
    return Setting(kr.tasks.Universal(group=12), model, -(-batch // 12) * 12)


def compared(name: str, values: flags.FlagValues) -> list[report.Row]:
    """The rows for one kind of tasks."""
    tasks, model, images = setting(name, values)
    x = tf.random.stateless_uniform([images, *SHAPES[values.net]], [0, 0])
    y = tf.random.stateless_uniform([images], [0, 1], 0, CLASSES, tf.int32)
    work = {}
    for solver in (BASE, *values.solver):
        attack = kr.attacks.multi_task(
            kr.LinfBall(8 / 255), values.steps, 2 / 255, tasks=tasks, solver=solver
        )
        attacked = attack.compiled(model)
        work[solver] = lambda attacked=attacked: attacked(x, y).numpy()
    times = timing.interleaved(work, values.repeats, warm_ups=2)
    what = f"{values.steps} steps on {name}, {values.net}, {images} images"
    return [
        report.Row(
            f"{what}: time of {solver} / {BASE}",
            timing.ratio(times[solver], times[BASE]),
            report.Target(TARGETS[name]) if solver == "task_oriented" else None,
            f"{1000 * statistics.median(times[solver]):.0f} ms",
        )
        for solver in values.solver
    ]


def main(_: list[str]) -> None:
    """Prints the table."""
    logging.set_verbosity(logging.WARNING)
    report.show(run(), "multi_task")


if __name__ == "__main__":
    define_flags()
    app.run(main)
