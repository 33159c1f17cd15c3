"""AutoAttack, compared with the official code: robust accuracy and time.

Each attack of a version of AutoAttack, and the whole, is run by this library and by `pyautoattack`,
the official code, on the same images and the same network: a perceptron for digits or the MNIST
CNN, hardened by PGD-AT. Without PyTorch and pyautoattack only this library is run.

    python benchmarks/auto_attack.py --norm=linf --radius=0.15
    taskset -c 0 python benchmarks/auto_attack.py --model=mnist --run=RUN --radius=0.3 \
        --images=16 --whole --bridge=adapter --clock=processor

The time includes this library's tracing, which the official code does not have. The whole is run a
second time without tracing.
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
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

import keras_robust as kr
from benchmarks import official, report
from keras_robust.evaluation.running.attack_runner import AttackRunner

BALLS = {"linf": kr.LinfBall, "l2": kr.L2Ball, "l1": kr.L1Ball}
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
# Radius of the training.
RADIUS = {"digits": 0.1, "mnist": 0.3}
# Targets for the difference of accuracies, of one attack and of the whole; random draws differ.
CLOSE, CLOSE_AS_A_WHOLE = 0.01, 0.005
# Targets for the time of the official code, relative to this library.
FASTER = {"adapter": 5.0, "pytorch": 1.0}


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_enum("model", "digits", list(RADIUS), "Data and network.", flag_values=values)
    flags.DEFINE_string(
        "data_dir", None, "Directory of TensorFlow Datasets, for MNIST.", flag_values=values
    )
    flags.DEFINE_string(
        "run", None, "Run directory whose last checkpoint is attacked.", flag_values=values
    )
    flags.DEFINE_enum("norm", "linf", list(BALLS), "Norm of the ball.", flag_values=values)
    flags.DEFINE_float("radius", 0.15, "Radius of the ball.", flag_values=values)
    flags.DEFINE_enum(
        "version", "standard", list(official.NAMES), "Version of AutoAttack.", flag_values=values
    )
    flags.DEFINE_multi_enum(
        "bridge", ["pytorch"], official.BRIDGES, "How the official code calls the model: its own "
        "adapter, compiled passes, or a copy in PyTorch.", flag_values=values
    )  # fmt: skip
    flags.DEFINE_bool("whole", False, "Run the whole only, not each attack.", flag_values=values)
    flags.DEFINE_enum(
        "clock", "wall", list(CLOCKS), "Clock; processor is for a core that other programs share.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer("epochs", 15, "Epochs of the training, without --run.", flag_values=values)
    flags.DEFINE_integer("images", 360, "Number of test images.", flag_values=values)
    flags.DEFINE_integer("steps", 100, "Number of steps of APGD and FAB.", flag_values=values)
    flags.DEFINE_integer("queries", 5000, "Number of queries of Square.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Seed of weights and attacks.", flag_values=values)


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Runs the benchmark; returns the rows to print."""
    model = trained(values)
    x, y = images(values)
    whole = kr.attacks.auto_attack(
        BALLS[values.norm](values.radius),
        values.version,
        steps=values.steps,
        queries=values.queries,
    )
    names = official.NAMES[values.version]
    parts = {} if values.whole else dict(zip(names, whole.attacks(10), strict=True))
    theirs = {}
    if official.installed():
        theirs = {bridge: official.reached_by(bridge, model) for bridge in values.bridge}
    rows = []
    for name, attack in {**parts, values.version: whole}.items():
        parts_named = list(names) if attack is whole else [name]
        rows += compared(name, attack, parts_named, model, theirs, x, y, values)
    return rows


def compared(
    name: str, attack: Any, official_names: list[str], model: keras.Model, theirs: dict[str, Any],
    x: np.ndarray, y: np.ndarray, values: flags.FlagValues,
) -> list[report.Row]:  # fmt: skip
    """The rows for one attack; `theirs` is the model by bridge."""
    is_whole = name == values.version
    left, seconds, again = ours(attack, model, x, y, values)
    note = f"keras_robust {left:.4f} in {seconds:.1f} s"
    note += f" and then {again:.1f} s" if is_whole else ""
    what = f"{name}, {values.norm} {values.radius:g}, {len(y)} of {values.model}"
    print(f"{name}: {note}", file=sys.stderr, flush=True)
    if not theirs:
        return [report.Row(f"{what}: robust accuracy", left, None, note)]
    settings = official.Settings(*(getattr(values, field) for field in official.Settings._fields))
    rows = []
    for bridge, reached in theirs.items():
        found, slower = timed(
            functools.partial(official.accuracy_left, reached, settings, official_names, x, y),
            values.clock,
        )
        both = f"{note}; official, {bridge}, {found:.4f} in {slower:.1f} s"
        print(f"{name}: {both}", file=sys.stderr, flush=True)
        close = report.Target(CLOSE_AS_A_WHOLE if is_whole else CLOSE)
        gap = round(abs(left - found), 6)
        rows.append(report.Row(f"{what}: difference of robust accuracies", gap, close, both))
        time_of = f"{what}: time of official, {bridge} / keras_robust"
        aimed = name == "standard" and values.model == "mnist" and bridge in FASTER
        target = report.Target(FASTER[bridge], least=True) if aimed else None
        rows.append(report.Row(time_of, slower / seconds, target))
        if is_whole:
            rows.append(report.Row(f"{time_of}, without tracing", slower / again))
    return rows


def ours(
    attack: Any, model: keras.Model, x: np.ndarray, y: np.ndarray, values: flags.FlagValues
) -> tuple[float, float, float]:
    """The robust accuracy, the seconds of a first run, and of a second one without tracing."""

    def log(text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    def first() -> tuple[AttackRunner, float]:
        data = tf.data.Dataset.from_tensors((x, y))  # one batch, as in the official code
        runner = AttackRunner(model, data, None, values.seed, log)
        return runner, float(runner.run(attack.name, attack).robust.mean())

    (runner, left), seconds = timed(first, values.clock)
    if attack.name != "AutoAttack":
        return left, seconds, seconds
    _, again = timed(lambda: runner.run(attack.name, attack), values.clock)
    return left, seconds, again


def timed(work: Callable[[], Any], clock: str) -> tuple[Any, float]:
    """The result of some work, and its seconds by a clock."""
    begin = CLOCKS[clock]()
    found = work()
    return found, CLOCKS[clock]() - begin


def trained(values: flags.FlagValues) -> keras.Model:
    """The network of a run, or one that is trained here for a short time."""
    if values.run is not None:
        saved = Path(values.run) / "checkpoints" / "last.keras"
        return keras.saving.load_model(saved, compile=False).classifier
    keras.utils.set_random_seed(values.seed)
    name, digits = values.model, values.model == "digits"
    classifier = kr.models.mlp((8, 8, 1), 10) if digits else kr.models.small_cnn((28, 28, 1), 10)
    ball = kr.LinfBall(RADIUS[name])
    warmup = {} if digits else {"radius_warmup": 300}
    model = kr.defenses.pgd_at(classifier, ball, steps=5 if digits else 10, **warmup)
    model.compile(keras.optimizers.Adam(2e-3 if digits else 1e-3))
    train = kr.data.load(name, batch_size=64, data_dir=values.data_dir).train
    model.fit(train, epochs=values.epochs, verbose=0)
    return classifier


def images(values: flags.FlagValues) -> tuple[np.ndarray, np.ndarray]:
    """The first test images, and their labels."""
    test = kr.data.load(values.model, batch_size=values.images, data_dir=values.data_dir).test
    return next(test.as_numpy_iterator())


def main(_: list[str]) -> None:
    """Prints the table."""
    logging.set_verbosity(logging.WARNING)
    report.show(run(), "auto_attack")


if __name__ == "__main__":
    define_flags()
    app.run(main)
