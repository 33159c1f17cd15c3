"""A recipe's training and its judge as StableHLO, for an accelerator without TensorFlow.

    python -m benchmarks.lowered_training --write=DIR --seeds=3 --recipe=mnist_hour/trades
    python benchmarks/lowered.py --train=DIR --seed=0        # with NumPy and JAX alone
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
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from ml_collections import ConfigDict

import keras_robust as kr
from benchmarks.lowered import Arrays, Plan, Program
from benchmarks.lowering import distinct, lower, names_of, numpy_of, small
from keras_robust.attacks.crafting.base import Attack
from keras_robust.core.atomic_files import write_json
from keras_robust.core.types import Ball
from keras_robust.data import tfds_reader
from keras_robust.experiments.recipes import build
from keras_robust.training.defense_factory import RobustModel
from trainers import train

JUDGED = 1000
JUDGES = ("auto_attack", "apgd")


class _Case(NamedTuple):
    """A function to lower.

    Attributes:
        arguments: name -> a tensor of its shape.
        images: the size of its batch.
        rounds: whether an accelerator may round products to TF32.
        has_state: whether the variables after a call are those of the next one.
    """

    name: str
    function: Callable[..., Any]
    arguments: dict[str, tf.Tensor]
    variables: list[keras.Variable]
    images: int
    rounds: bool = True
    has_state: bool = False


def write(directory: Path, config: ConfigDict, seeds: int, judge: str, judged_ball: Ball) -> None:
    """Writes a recipe's programs, data and first weights.

    Args:
        directory: is made; files that are in it are replaced.
        config: the recipe, of a dataset of TFDS.
        seeds: number of trainings.
        judge: `"auto_attack"`, or `"apgd"` for its first two attacks alone.
        judged_ball: the ball of these attacks.
    """
    directory.mkdir(parents=True, exist_ok=True)
    settings = config.dataset
    info = build.data(config).info
    count = (settings.limit or info.train_size + info.validation_size) - int(settings.validation)
    steps = count // settings.batch_size
    model = _model(config, info, steps)
    arrays: Arrays = {}
    programs = []
    for case in _cases(model, config, judge, judged_ball):
        program, module, values = _lowered(case)
        (directory / program.module).write_text(module)
        programs.append(dataclasses.asdict(program))
        arrays |= values
        print(f"{program.name}: {len(module) // 1024} KB", flush=True)
    for seed in range(seeds):
        with config.unlocked():
            config.seed = seed
        first = _weights(build.classifier(config, info))
        arrays |= {f"{seed}:{v.path}": numpy_of(v).astype(np.float16) for v in first}
    np.savez_compressed(directory / "arrays.npz", **arrays)
    write_json(directory / "programs.json", programs)
    write_json(directory / "plan.json", dataclasses.asdict(_plan(model, config, count)))
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


def _model(config: ConfigDict, info: kr.data.DatasetInfo, steps: int) -> RobustModel:
    """The recipe's model with all its variables, as before the first step."""
    model = build.robust_model(config, info, steps)
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    before = [numpy_of(variable) for variable in variables]
    # The counters of the metrics exist after a step.
    model.train_on_batch(np.zeros([2, *info.image_shape], np.float32), np.array([0, 1]))
    model.reset_metrics()
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return model


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


def _lowered(case: _Case) -> tuple[Program, str, Arrays]:
    """A program, its module, and the values of its variables."""
    tf.config.experimental.enable_tensor_float_32_execution(case.rounds)
    lowered = lower(case.function, case.arguments.values(), case.variables)
    names = names_of(lowered.variables)
    values = {n: small(numpy_of(v)) for n, v in zip(names, lowered.variables, strict=True)}
    places = {name: lowered.outputs + place for place, name in enumerate(names)}
    program = Program(
        case.name,
        f"{case.name}.mlir",
        [*case.arguments, *names],
        lowered.results,
        case.images,
        state=places if case.has_state else {},
    )
    return program, lowered.module, values


def _cases(model: RobustModel, config: ConfigDict, judge: str, ball: Ball) -> Iterator[_Case]:
    net = model.classifier
    shape, own = net.input_shape[1:], distinct([*model.variables, *model.optimizer.variables])

    def batch(size: int, dtype: tf.DType = tf.uint8) -> dict[str, tf.Tensor]:
        return {"x": tf.zeros([size, *shape], dtype), "y": tf.zeros([size], tf.int32)}

    def step(x: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
        logs = model._train_on(tf.cast(x, tf.float32) / 255, y, None)
        return [logs["loss"], logs["robust_accuracy"]]

    metrics = [v for metric in model.metrics for v in metric.variables]
    size = config.dataset.batch_size
    yield _Case("step", step, batch(size), distinct([*own, *metrics]), size, has_state=True)

    rule, seed = kr.training.BatchNormStatistics(model), {"seed": tf.zeros([2], tf.int32)}
    if rule.variables:
        for name, of_batch in (("clean", rule._clean), ("all", rule._all)):

            def found(
                x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor, of_batch: Callable[..., Any] = of_batch
            ) -> list[tf.Tensor]:
                return of_batch(tf.cast(x, tf.float32) / 255, y, seed)

            yield _Case(f"statistics_{name}", found, batch(size) | seed, own, size)

    attacks = kr.attacks.auto_attack(ball).attacks(classes=10)
    for attack in attacks if judge == "auto_attack" else attacks[:2]:

        def perturbed(
            x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor, attack: Attack = attack
        ) -> tf.Tensor:
            return attack(net, tf.cast(x, tf.float32) / 255, y, seed=seed)

        name = "attack_" + attack.name.lower().replace(" ", "_")
        yield _Case(name, perturbed, batch(JUDGED) | seed, list(net.variables), JUDGED)

    def correct(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        # As 8-bit images are made, whose values survive the way over them.
        predicted = tf.argmax(net(x, training=False)["logits"], axis=1, output_type=tf.int32)
        return tf.cast(predicted == y, tf.int32)

    # In float32 as it is, whatever the attacks rounded.
    given = batch(JUDGED, tf.float32)
    yield _Case("verdict", correct, given, list(net.variables), JUDGED, rounds=False)


def read(file: Path, output: Path, config: ConfigDict) -> None:
    """Writes a `.keras` file with trained weights.

    Args:
        file: what `lowered.py --train` wrote.
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
