"""What `lowered.py --write` writes: attacks on ResNet18, and a step of TRADES."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import keras_robust as kr
from benchmarks.lowered import Arrays, Program
from benchmarks.lowering import distinct, lower, names_of, numpy_of, small
from keras_robust.attacks.crafting.base import Attack
from keras_robust.core.atomic_files import write_json

BALL = kr.LinfBall(8 / 255)
STEP = 2 / 255
# So small that no image falls, and Square makes all its queries.
SMALL_BALL = kr.LinfBall(1e-5)
DTYPES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


class Sizes(NamedTuple):
    """Sizes of the programs; `checked` is the batch whose results are written beside."""

    image: int
    width: float
    checked: int
    pgd: tuple[int, ...]
    apgd: tuple[int, ...]
    square: tuple[int, ...]
    trades: tuple[int, ...]
    queries: int


FULL = Sizes(32, 1.0, 16, (128, 1024), (512,), (128,), (128, 512), 5000)
SMALL = Sizes(8, 0.0625, 4, (6,), (6,), (6,), (6,), 20)


def write(directory: Path, small: bool = False) -> None:
    """Writes the programs, and the results of the checked ones as TensorFlow's XLA finds them.

    Args:
        directory: is made; programs that are in it are replaced.
        small: a tiny network and tiny batches, for tests.
    """
    directory.mkdir(parents=True, exist_ok=True)
    sizes = SMALL if small else FULL
    # Float32 is float32: without this, products are rounded to TF32 on an NVIDIA device.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    arrays = images(sizes)
    # What the network says, or most attacks had nothing to do.
    arrays["y"] = predicted(network("float32", sizes), arrays["x"])
    programs = []
    for dtype in DTYPES:
        for program, module, found in _programs(dtype, sizes, arrays):
            (directory / program.module).write_text(module)
            programs.append(dataclasses.asdict(program))
            arrays |= found
            print(f"{program.name}: {len(module) // 1024} KB", flush=True)
    np.savez_compressed(directory / "arrays.npz", **arrays)
    write_json(directory / "programs.json", programs)


def images(sizes: Sizes) -> Arrays:
    """Random images of 8 bits, smooth as photographs are."""
    most = max(sizes.checked, *sizes.pgd, *sizes.apgd, *sizes.square, *sizes.trades)
    random = np.random.default_rng(0)
    coarse = random.uniform(size=[most, 4, 4, 3]).astype(np.float32)
    x = tf.image.resize(coarse, [sizes.image, sizes.image]).numpy()
    return {"x": np.round(x * 255).astype(np.uint8), "seed": np.array([0, 0], np.int32)}


def predicted(net: keras.Model, x: np.ndarray) -> np.ndarray:
    """The classes that a network predicts for 8-bit images."""
    found = [
        net(tf.cast(part, tf.float32) / 255, training=False)["logits"].numpy().argmax(1)
        for part in np.array_split(x, -(-len(x) // 128))
    ]
    return np.concatenate(found).astype(np.int32)


def network(dtype: str, sizes: Sizes) -> keras.Model:
    """ResNet18 with random weights, which half precision holds."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(DTYPES[dtype])
    try:
        net = kr.models.resnet18([sizes.image, sizes.image, 3], 10, width=sizes.width)
    finally:
        keras.config.set_dtype_policy("float32")
    for variable in net.variables:
        if variable.dtype == "float32":
            variable.assign(numpy_of(variable).astype(np.float16).astype(np.float32))
    return net


class _Case(NamedTuple):
    """A function to lower, and the network or model whose variables it uses."""

    name: str
    file: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]
    variables: list[keras.Variable]
    images: int
    is_checked: bool


def _programs(dtype: str, sizes: Sizes, arrays: Arrays) -> Iterator[tuple[Program, str, Arrays]]:
    """Programs with their modules, and the arrays that they add."""
    for case in _cases(dtype, sizes):
        given = [
            tf.constant(arrays[name][: case.images] if name in ("x", "y") else arrays[name])
            for name in case.arguments
        ]
        lowered = lower(case.function, given, case.variables)
        names = names_of(lowered.variables)
        values = {n: small(numpy_of(v)) for n, v in zip(names, lowered.variables, strict=True)}
        expected: dict[str, int] = {}
        if case.is_checked:
            before = [numpy_of(variable) for variable in case.variables]
            jitted = tf.function(case.function, jit_compile=True, autograph=False)
            for place, result in enumerate(tf.nest.flatten(jitted(*given))):
                expected[f"expected/{case.file}/{place}"] = place
                values[f"expected/{case.file}/{place}"] = result.numpy()
            for variable, value in zip(case.variables, before, strict=True):
                variable.assign(value)
        module = f"{case.file}.mlir"
        arguments = [*case.arguments, *names]
        program = Program(case.name, module, arguments, lowered.results, case.images, expected)
        yield program, lowered.module, values


def _cases(dtype: str, sizes: Sizes) -> Iterator[_Case]:
    """The programs of one dtype; those of float32 have a batch that is compared."""
    net = network(dtype, sizes)
    short = min(20, sizes.queries)
    attacks = {
        "PGD-20": (kr.attacks.pgd(BALL, 20, step_size=STEP), sizes.pgd),
        "APGD-100": (kr.attacks.apgd(BALL, 100), sizes.apgd),
        f"Square-{sizes.queries}": (kr.attacks.square(SMALL_BALL, sizes.queries), sizes.square),
    }
    checked = {
        "PGD-20": attacks["PGD-20"][0],
        "APGD-10": kr.attacks.apgd(BALL, 10),
        f"Square-{short}": kr.attacks.square(BALL, short),
    }
    if dtype == "float32":
        for name, attack in checked.items():
            yield _attack(name, attack, net, dtype, sizes.checked, True)
        yield _trades(dtype, sizes, sizes.checked, True)
    for name, (attack, batches) in attacks.items():
        for batch in batches:
            yield _attack(name, attack, net, dtype, batch, False)
    for batch in sizes.trades:
        yield _trades(dtype, sizes, batch, False)


def _attack(
    name: str, attack: Attack, net: keras.Model, dtype: str, batch: int, checked: bool
) -> _Case:
    # With a seed of its own a program would hold the random starts as constants.
    def perturbed(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return attack(net, tf.cast(x, tf.float32) / 255, y, seed=seed)

    title = f"{name}, {dtype}, {batch} images"
    arguments = ("x", "y", "seed")
    return _Case(title, _file(title), perturbed, arguments, list(net.variables), batch, checked)


def _trades(dtype: str, sizes: Sizes, batch: int, checked: bool) -> _Case:
    net = network(dtype, sizes)
    model = kr.defenses.trades(net, BALL, beta=6.0, steps=10, step_size=STEP)
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    model.optimizer.build(model.trainable_variables)

    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return model._train_on(tf.cast(x, tf.float32) / 255, y, None)["loss"]

    variables = [*model.variables, *model.optimizer.variables]
    before = [numpy_of(variable) for variable in variables]
    # The counters of the metrics exist after a step.
    model.train_on_batch(np.zeros([2, *net.input_shape[1:]], np.float32), np.array([0, 1]))
    model.reset_metrics()
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    variables += [v for metric in model.metrics for v in metric.variables]
    title = f"step of TRADES, k = 10, {dtype}, {batch} images"
    return _Case(title, _file(title), step, ("x", "y"), distinct(variables), batch, checked)


def _file(title: str) -> str:
    return title.lower().replace(", ", "-").replace(" = ", "").replace(" ", "_")
