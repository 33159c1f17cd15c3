"""Estimates how long a reproduction takes on this machine."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.evaluation.rendering.wording import radius_text
from keras_robust.experiments.recipes import build, schema
from keras_robust.experiments.recipes.attack_spec import attack_spec
from keras_robust.experiments.reproduction.runner import Reproduction
from keras_robust.experiments.reproduction.scales import TRAINING_IMAGES

SHAPES = {"mnist": (28, 28, 1), "digits": (8, 8, 1), "toy": (1, 2, 1)}
CLASSES = {"cifar100": 100, "toy": 2}
TEST_IMAGES = {"digits": 360, "toy": 2000}
START = 15.0  # seconds to build and trace a training or an attack
# What the measurements measure, where their names do not say it.
_MEASURED = {
    "Attacked": "accuracy",
    "Detected": "detection",
    "TasksAttacked": "success on tasks",
    "TasksTransferred": "transferred success on tasks",
}
EFFICIENCY = 0.5  # of a network, compared with one of its convolutions


@dataclasses.dataclass(frozen=True)
class Job:
    """A training or a measurement of one seed.

    Args:
        path: its directory or file.
        text: what it is.
        finished: whether it is done already.
        seconds: about how long it takes; 0 if it is done.
    """

    path: Path
    text: str
    finished: bool
    seconds: float


def jobs(reproduction: Reproduction) -> Iterator[Job]:
    """The distinct trainings and measurements of an experiment, for each seed.

    An estimate counts the multiplications of all gradients, and times a convolution on this
    machine. It is right within a factor of about three.
    """
    rate = multiplications_per_second()
    network: dict[str, float] = {}
    for path, training in reproduction.trainings().items():
        config = reproduction.config(training)
        network[str(path)] = cost = gradient_cost(config)
        images = config.dataset.limit or TRAINING_IMAGES.get(_data_set(config), 50_000)
        steps = config.defense.options.get("steps", 0) if config.defense.name != "standard" else 0
        # Each batch crafts, then takes the gradient of the weights on clean and attacked images.
        seconds = START + config.epochs * images * (steps + 2) * cost / rate
        for seed in range(reproduction.seeds):
            done = reproduction.is_trained(training, seed)
            text = f"training {training.recipe}, seed {seed}, {config.epochs} epochs"
            where = reproduction.path(training, seed)
            yield Job(where, text, done, 0.0 if done else seconds)
    for row, what in reproduction.measurements().values():
        config = reproduction.config(row.trainings[0])
        cost = sum(network[str(reproduction.path(one))] for one in row.trainings)
        images = what.limit or TEST_IMAGES.get(_data_set(config), 10_000)
        seconds = START + images * what.passes() * cost / rate
        for seed in range(reproduction.seeds):
            where = reproduction.file(row, what, seed)
            done = where.is_file()
            text = f"{row.trainings[0].recipe}, seed {seed}: {in_words(what)}"
            yield Job(where, text, done, 0.0 if done else seconds)


def _data_set(config: ConfigDict) -> str:
    """The name of the data set, without the number of a draw."""
    return config.dataset.name.partition("/")[0]


def in_words(what: Any) -> str:
    """A measurement in words: what it measures, and what differs from its defaults.

    Example:
        >>> from keras_robust.experiments.reproduction.measurements import Attacked
        >>> in_words(Attacked("pgd:steps=40:step_size=0.01", radius=8 / 255, limit=500))
        'accuracy under pgd (steps 40, step size 0.01), radius 8/255, 500 images'
    """
    name = type(what).__name__
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    parts = [_MEASURED.get(name, split)]
    for field in dataclasses.fields(what):
        value = getattr(what, field.name)
        if field.name == "attack":
            parts[0] += f" under {_attack_in_words(value)}"
        elif value != field.default:
            parts.append(_field_in_words(field.name, value))
    return ", ".join(parts)


def _attack_in_words(text: str) -> str:
    spec = attack_spec(text)
    options = [
        f"{name.replace('_', ' ')} {_option_in_words(value)}"
        for name, value in spec["options"].items()
    ]
    return spec["name"] + (f" ({', '.join(options)})" if options else "")


def _option_in_words(value: Any) -> str:
    if isinstance(value, float):
        return radius_text(value)
    # An attack that another one starts from, as in `pgd+steps=20`.
    return _attack_in_words(value.replace("+", ":")) if "=" in str(value) else str(value)


def _field_in_words(name: str, value: Any) -> str:
    if name == "radius":
        return f"radius {radius_text(value)}"
    if name == "limit":
        return f"{value:,} images"
    if isinstance(value, bool):
        return f"{'with' if value else 'without'} {name}"
    values = value if isinstance(value, tuple) else (value,)
    texts = [str(getattr(one, "recipe", one)) for one in values]
    return f"{name} {', '.join(_attack_in_words(one) if ':' in one else one for one in texts)}"


def gradient_cost(config: ConfigDict) -> float:
    """The multiplications of one gradient of the recipe's network for one image."""
    network = {"model": config.model.to_dict(), "dataset": {"name": _data_set(config)}}
    return _gradient_cost(json.dumps(network))


@functools.cache
def _gradient_cost(network: str) -> float:
    """The same for a network, its options and its data set as JSON: many trainings share one."""
    config = schema.from_document(json.loads(network))
    name = config.dataset.name
    shape, classes = SHAPES.get(name, (32, 32, 3)), CLASSES.get(name, 10)
    info = kr.data.DatasetInfo(name, "", shape, classes, (), 1000, 100, 100, "test")
    return 3.0 * multiplications(build.classifier(config, info))


def multiplications(model: keras.Model) -> float:
    """The multiplications of convolutions and dense layers in a forward pass of one image.

    Example:
        >>> dense = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> multiplications(dense)
        12.0
    """
    total = 0.0
    for layer in model._flatten_layers():
        kernel = getattr(layer, "kernel", None)
        if kernel is None:
            continue
        if isinstance(layer, keras.layers.Dense):
            total += float(np.prod(kernel.shape))
        else:
            total += float(np.prod(kernel.shape) * np.prod(layer.output.shape[1:-1]))
    return total


def multiplications_per_second(repetitions: int = 3) -> float:
    """Measures a convolution with its gradient on this machine."""
    x, kernel = tf.ones([64, 16, 16, 64]), tf.ones([3, 3, 64, 64])

    @tf.function
    def gradient(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = tf.nn.conv2d(x, kernel, 1, "SAME")
        dx, dk = tape.gradient(y, [x, kernel])
        return tf.reduce_sum(dx) + tf.reduce_sum(dk)

    gradient(x).numpy()
    start = time.perf_counter()
    for _ in range(repetitions):
        gradient(x).numpy()
    seconds = (time.perf_counter() - start) / repetitions
    return EFFICIENCY * 3 * 64 * 16 * 16 * 9 * 64 * 64 / seconds


def summary(found: Iterable[Job]) -> str:
    """Jobs as lines of text, the total last; those that experiments share count once.

    Example:
        >>> first, second = Path("a"), Path("b")
        >>> jobs = [Job(first, "training a", False, 7200), Job(second, "training b", True, 0)]
        >>> print(summary([*jobs, *jobs]))
        about 2.0 hours: training a
        finished: training b
        In all about 2.0 hours for 1 of 2 trainings and measurements.
    """
    found = {job.path: job for job in found}.values()
    lines = [
        f"finished: {job.text}" if job.finished else f"{_time(job.seconds)}: {job.text}"
        for job in found
    ]
    left = [job.seconds for job in found if not job.finished]
    total = f"In all {_time(sum(left))} for {len(left)} of {len(found)} trainings and measurements."
    return "\n".join([*lines, total])


def _time(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            count = seconds / size
            return f"about {count:.{0 if count >= 10 else 1}f} {unit}"
    return f"about {seconds:.0f} seconds"
