"""Trains a recipe, and keeps everything about it in a run directory.

    python -m trainers.train --recipe=digits/trades --output_dir=runs/digits

Any field of the recipe can be changed: --config.epochs=3 --config.ball.radius=8/255
--config.defense.options.beta=1. What was run is kept in the directory as recipe.json, which
--recipe takes as well. With --resume, the same command goes on with a run that was killed.
--strategy=mirrored trains on several GPUs, --strategy=multi_worker on several machines.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict

from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import command_line, recipe_flags, strategy_flags
from keras_robust.experiments.recipes import schema
from keras_robust.experiments.runs.run_directory import RunDirectory
from trainers import recipes

if TYPE_CHECKING:
    from keras_robust.experiments.training.training_state import Training

PROGRAM = "trainers.train"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program, but for those of the recipe."""
    flags.DEFINE_string(
        "recipe",
        None,
        f"One of {', '.join(recipes.names())}; or the recipe.json of a run.",
        flag_values=values,
    )
    flags.DEFINE_string("output_dir", None, "The run directory.", flag_values=values)
    flags.DEFINE_string(
        "data_dir",
        None,
        "Where TensorFlow Datasets keeps its data; short for --config.dataset.data_dir.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "resume",
        False,
        "Go on with the run in --output_dir where it stopped; begin it if there is none.",
        flag_values=values,
    )
    flags.DEFINE_bool("overwrite", False, "Lose the run in --output_dir.", flag_values=values)
    strategy_flags.define(values)


def parse(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses the command line, the fields of the recipe included.

    Args:
        argv: the command line, the program's name first.
        values: holds the program's flags; gets `config` as well.

    Returns:
        The program's name.

    Raises:
        ValueError, OSError, absl.flags.Error: what the user can mend.
    """
    seen = command_line.early(argv, define_flags)
    if seen.resume and seen.overwrite:
        raise ValueError("--resume and --overwrite exclude each other.")
    if seen.recipe or (seen.resume and seen.output_dir):
        recipe_flags.define(_recipe(seen), argv, values)
    rest = command_line.parse(argv, define_flags, values)
    command_line.required(values, "output_dir", "runs/digits")
    if not values.recipe and not values.resume:
        raise ValueError(
            f"--recipe is missing; there are {', '.join(recipes.names())}, or the recipe.json of a "
            "run."
        )
    strategy_flags.strategy_config(values)
    return rest


def _recipe(seen: flags.FlagValues) -> ConfigDict:
    if not seen.recipe:
        return RunDirectory(seen.output_dir).recipe()
    if seen.recipe.endswith(".json"):
        return schema.from_json(seen.recipe)
    return recipes.load(seen.recipe)


def configured(values: flags.FlagValues) -> ConfigDict:
    """The recipe that the parsed flags describe.

    Raises:
        ValueError: a list in it holds something that is no number.
    """
    config = schema.normalised(values.config)
    if values.data_dir is not None:
        config.dataset.data_dir = values.data_dir
    return config


def main(argv: list[str]) -> int:
    """Trains; what the user can mend ends it with one sentence before anything is written."""
    values = flags.FLAGS
    wanted = strategy_flags.strategy_config(values)
    if wanted.workers > 1:
        print(f"Worker {wanted.worker} of {wanted.workers}, waiting for the others.", flush=True)
    with quiet_start():
        from keras_robust.experiments.training import train_run
        from keras_robust.experiments.training.strategies import make, workers_lost
    try:
        with quiet_start():
            devices = make(wanted)
            command_line.initialize_devices()
        with workers_lost(devices):
            ready = train_run.prepare(
                configured(values),
                values.output_dir,
                resume=values.resume,
                overwrite=values.overwrite,
                devices=devices,
            )
    except command_line.USER_ERRORS as error:
        command_line.fail(PROGRAM, error)
    return _complete(ready, values.output_dir, wanted)


def _complete(ready: Training, output_dir: str, wanted: strategy_flags.StrategyConfig) -> int:
    """Trains what is ready; the exit code."""
    from keras_robust.experiments.training import train_run
    from keras_robust.experiments.training.strategies import workers_lost

    command = f"python -m {PROGRAM} {shlex.join(sys.argv[1:])}"
    chief = ready.devices.chief
    if chief:
        describe(ready)
    try:
        with workers_lost(ready.devices):
            # Of several workers one tells how far they are.
            verbose = (1 if sys.stdout.isatty() else 2) if chief else 0
            train_run.complete(ready, command=command, verbose=verbose)
    except KeyboardInterrupt:
        again = ["--resume", f"--output_dir={output_dir}", *strategy_flags.typed(wanted)]
        print(f"\nStopped. Go on with: python -m {PROGRAM} {shlex.join(again)}")
        return 130
    except (OSError, FloatingPointError) as error:
        command_line.fail(PROGRAM, error)
    run = shlex.quote(output_dir)
    if chief:
        print(f"Trained: {run}\nJudge it with: python -m trainers.evaluate --run={run}")
    return 0


def describe(ready: Training) -> None:
    """Prints what is about to be trained, in two lines."""
    config, info = ready.config, ready.splits.info
    done = ready.progress.step % ready.steps_per_epoch
    replicas = ready.devices.replicas
    print(
        f"{config.name}: {config.defense.name} of {config.model.name} "
        f"({ready.model.classifier.count_params():,} parameters) on {info.name}, "
        f"{config.ball.norm} radius {config.ball.radius:.4g}\n"
        f"{info.train_size:,} training, {info.validation_size:,} validation images; epochs "
        f"{len(ready.progress.rows) + 1} to {config.epochs} of {ready.steps_per_epoch} steps"
        + (f", of which {done} are done" if done else "")
        + (f", on {replicas} replicas" if replicas > 1 else ""),
        flush=True,
    )


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags, parse)
