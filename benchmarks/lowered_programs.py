"""What `lowered.py --write` writes: attacks on ResNet18, and a step of TRADES."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import keras_robust as kr
from benchmarks import lowering
from benchmarks.lowered import Arrays
from benchmarks.lowering import Case, numpy_of
from keras_robust.attacks.crafting.base import Attack

BALL = kr.LinfBall(8 / 255)
STEP = 2 / 255
# So small that no image falls, and Square makes all its queries: 50, after which its batch would
# shrink to the images that are left, which StableHLO cannot say.
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


FULL = Sizes(32, 1.0, 16, (128, 1024), (512,), (128,), (128, 512), 50)
SMALL = Sizes(8, 0.0625, 4, (6,), (6,), (6,), (6,), 20)


def write(directory: Path, small: bool = False) -> None:
    """Writes the programs, and the results of the checked ones as TensorFlow's XLA finds them.

    Args:
        directory: is made; programs that are in it are replaced.
        small: a tiny network and tiny batches, for tests.
    """
    sizes = SMALL if small else FULL
    arrays = images(sizes)
    # What the network says, or most attacks had nothing to do.
    arrays["y"] = predicted(network("float32", sizes), arrays["x"])
    cases = (case for dtype in DTYPES for case in _cases(dtype, sizes, arrays))
    lowering.write(directory, cases, arrays)


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


def _cases(dtype: str, sizes: Sizes, arrays: Arrays) -> Iterator[Case]:
    """The programs of one dtype; those of float32 have a batch that is compared."""
    net = network(dtype, sizes)
    short = min(20, sizes.queries)
    pgd = kr.attacks.pgd(BALL, 20, step_size=STEP)
    timed = {
        "PGD-20": (pgd, sizes.pgd),
        "APGD-100": (kr.attacks.apgd(BALL, 100), sizes.apgd),
        f"Square-{sizes.queries}": (kr.attacks.square(SMALL_BALL, sizes.queries), sizes.square),
    }
    checked = {
        "PGD-20": (pgd, (sizes.checked,)),
        "APGD-10": (kr.attacks.apgd(BALL, 10), (sizes.checked,)),
        f"Square-{short}": (kr.attacks.square(BALL, short), (sizes.checked,)),
    }
    for is_checked in (True, False) if dtype == "float32" else (False,):
        for name, (attack, batches) in (checked if is_checked else timed).items():
            for batch in batches:
                yield _named(name, dtype, arrays, batch, is_checked, *_attack(attack, net))
        for batch in (sizes.checked,) if is_checked else sizes.trades:
            step = _trades(dtype, sizes)
            yield _named("step of TRADES, k = 10", dtype, arrays, batch, is_checked, *step)


def _named(
    name: str,
    dtype: str,
    arrays: Arrays,
    batch: int,
    is_checked: bool,
    function: Callable[..., Any],
    variables: list[keras.Variable],
) -> Case:
    title = f"{name}, {dtype}, {batch} images"
    file = title.lower().replace(", ", "-").replace(" = ", "").replace(" ", "_")
    given = {n: tf.constant(arrays[n][:batch]) for n in ("x", "y")}
    has_state = name.startswith("step")
    if not has_state:  # with a seed of its own a program would hold the random starts as constants
        given["seed"] = tf.constant(arrays["seed"])
    return Case(title, file, function, given, variables, batch, has_state, is_checked)


def _attack(attack: Attack, net: keras.Model) -> tuple[Callable, list[keras.Variable]]:
    def perturbed(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return attack(net, tf.cast(x, tf.float32) / 255, y, seed=seed)

    return perturbed, list(net.variables)


def _trades(dtype: str, sizes: Sizes) -> tuple[Callable, list[keras.Variable]]:
    model = kr.defenses.trades(network(dtype, sizes), BALL, beta=6.0, steps=10, step_size=STEP)
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))

    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return model._train_on(tf.cast(x, tf.float32) / 255, y, None)["loss"]

    return step, lowering.variables_of(model)
