"""A recipe's training and its judge as StableHLO, for an accelerator without TensorFlow.

    python -m benchmarks.lowered_training --write=DIR --seeds=3 --recipe=mnist_hour/trades
    python -m benchmarks.lowered_loop --train=DIR --seed=0   # with NumPy and JAX alone
    python -m benchmarks.lowered_training --read=DIR/seed0.npz --output=model.keras --recipe=...

`--write` takes the flags of `trainers.train` as well. It lowers the step of training, the
batch-norm statistics of averaged weights, and attacks of AutoAttack on a batch of test images; and
writes the first weights of each seed, and the data into `DIR/../data.npz`, where directories of
several recipes share them. `--read` makes a model of trained weights.

Differs from `trainers.train`: the last epoch's weights are kept, as nothing is validated; all seeds
share the noise of the attacks, and differ in first weights (rounded to half precision) and in the
order of the data.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from ml_collections import ConfigDict

import keras_robust as kr
from benchmarks import lowering
from benchmarks.lowered import Arrays
from benchmarks.lowered_loop import Plan
from benchmarks.lowering import Case, numpy_of
from keras_robust.attacks.crafting.base import Attack
from keras_robust.core.atomic_files import write_json
from keras_robust.core.types import Ball
from keras_robust.data import tfds_reader
from keras_robust.experiments.recipes import build
from keras_robust.training.defense_factory import RobustModel
from trainers import train

JUDGED = 1000
JUDGES = ("auto_attack", "apgd")


def write(directory: Path, config: ConfigDict, seeds: int, judge: str, judged_ball: Ball) -> None:
    """Writes a recipe's programs, data and first weights.

    Args:
        directory: is made; files that are in it are replaced.
        config: the recipe, of a dataset of TFDS.
        seeds: number of trainings.
        judge: `"auto_attack"`, or `"apgd"` for its first two attacks alone.
        judged_ball: the ball of these attacks.
    """
    settings = config.dataset
    info = build.data(config).info
    count = (settings.limit or info.train_size + info.validation_size) - int(settings.validation)
    steps = count // settings.batch_size
    model = build.robust_model(config, info, steps)
    cases = list(_cases(model, config, judge, judged_ball))
    plan = _plan(model, config, count)
    arrays: Arrays = {}
    for seed in range(seeds):
        with config.unlocked():
            config.seed = seed
        first = _weights(build.classifier(config, info))
        arrays |= {f"{seed}:{v.path}": numpy_of(v).astype(np.float16) for v in first}
    lowering.write(directory, cases, arrays)
    write_json(directory / "plan.json", dataclasses.asdict(plan))
    if not (directory.parent / "data.npz").exists():
        np.savez_compressed(directory.parent / "data.npz", **_data(config))


def _data(config: ConfigDict) -> Arrays:
    """Training images, and the test images that are judged."""
    source = _source(config)
    train, test = source["train"], source["test"]
    return {
        "x_train": train.images[: config.dataset.limit],
        "y_train": train.labels[: config.dataset.limit].astype(np.int32),
        "x": test.images[:JUDGED],
        "y": test.labels[:JUDGED].astype(np.int32),
    }


def _source(config: ConfigDict) -> dict[str, kr.data.splits.Arrays]:
    """The examples in memory, as 8-bit images."""
    source = tfds_reader.read(config.dataset.name, config.dataset.data_dir)
    return {"train": source.train, "test": source.test}


def _weights(net: keras.Model) -> list[keras.Variable]:
    """Weights and statistics, without the states of random generators."""
    return [v for v in net.variables if "seed_generator" not in v.path]


def _plan(model: RobustModel, config: ConfigDict, images: int) -> Plan:
    averaged = {}
    if model.optimizer.use_ema:
        averages = model.optimizer._model_variables_moving_average
        averaged = {
            v.path: a.path for v, a in zip(model.trainable_variables, averages, strict=True)
        }
    return Plan(
        epochs=config.epochs,
        images=images,
        batch=config.dataset.batch_size,
        augment=config.dataset.augment.name,
        averaged=averaged,
        statistics=[v.path for v in kr.training.BatchNormStatistics(model).variables],
    )


def _cases(model: RobustModel, config: ConfigDict, judge: str, ball: Ball) -> Iterator[Case]:
    net = model.classifier
    shape, own = net.input_shape[1:], lowering.variables_of(model)

    def batch(size: int, dtype: tf.DType = tf.uint8) -> dict[str, tf.Tensor]:
        return {"x": tf.zeros([size, *shape], dtype), "y": tf.zeros([size], tf.int32)}

    def step(x: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
        logs = model._train_on(tf.cast(x, tf.float32) / 255, y, None)
        return [logs["loss"], logs["robust_accuracy"]]

    size = config.dataset.batch_size
    yield Case("step", "step", step, batch(size), own, size, has_state=True, rounds=True)

    rule, seed = kr.training.BatchNormStatistics(model), {"seed": tf.zeros([2], tf.int32)}
    if rule.variables:
        for name, of_batch in (("clean", rule._clean), ("all", rule._all)):

            def found(
                x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor, of_batch: Callable[..., Any] = of_batch
            ) -> list[tf.Tensor]:
                return of_batch(tf.cast(x, tf.float32) / 255, y, seed)

            name = f"statistics_{name}"
            yield Case(name, name, found, batch(size) | seed, own, size, rounds=True)

    attacks = kr.attacks.auto_attack(ball).attacks(classes=10)
    for attack in attacks if judge == "auto_attack" else attacks[:2]:

        def perturbed(
            x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor, attack: Attack = attack
        ) -> tf.Tensor:
            return attack(net, tf.cast(x, tf.float32) / 255, y, seed=seed)

        name = "attack_" + attack.name.lower().replace(" ", "_")
        given, used = batch(JUDGED) | seed, list(net.variables)
        yield Case(name, name, perturbed, given, used, JUDGED, rounds=True)

    def correct(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        # As 8-bit images are made, whose values survive the way over them.
        predicted = tf.argmax(net(x, training=False)["logits"], axis=1, output_type=tf.int32)
        return tf.cast(predicted == y, tf.int32)

    # In float32 as it is, whatever the attacks rounded.
    given = batch(JUDGED, tf.float32)
    yield Case("verdict", "verdict", correct, given, list(net.variables), JUDGED)


def read(file: Path, output: Path, config: ConfigDict) -> None:
    """Writes a `.keras` file with trained weights.

    Args:
        file: what `lowered_loop.py` wrote.
        output: the model's file.
        config: the recipe.
    """
    net = build.classifier(config, build.data(config).info)
    with np.load(file) as values:
        for variable in _weights(net):
            variable.assign(values[variable.path])
    net.save(output)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes programs, or reads trained weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", type=Path, metavar="DIR", help="write the programs there")
    parser.add_argument("--seeds", type=int, default=3, help="number of trainings")
    parser.add_argument("--judge", choices=JUDGES, default=JUDGES[0], help="the attacks")
    parser.add_argument("--judged_radius", type=float, help="if not that of the training")
    parser.add_argument("--read", type=Path, metavar="FILE", help="weights of --train")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the .keras file of --read")
    options, rest = parser.parse_known_args(arguments)
    values = flags.FlagValues()
    train.define_flags(values)
    train.parse(["lowered_training", *rest, "--output_dir=unused"], values)
    config = values.config
    if options.read:
        read(options.read, options.output, config)
    elif options.write:
        ball = build.ball(config)
        if options.judged_radius:
            ball = ball.replace(radius=options.judged_radius)
        write(options.write, config, options.seeds, options.judge, ball)
    else:
        parser.error("expected --write=DIR or --read=FILE")


if __name__ == "__main__":
    main()
