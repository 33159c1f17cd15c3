"""Trains a recipe, and writes everything about the training into a run directory.

    python -m trainers.train --recipe=digits/trades --output_dir=runs/digits

Every field of the recipe is a flag: --config.epochs=3 --config.ball.radius=8/255
--config.defense.options.beta=1 --config.evaluation.attacks=pgd:steps=100,fgsm. The recipe is
written to the directory as recipe.json, which --recipe reads as well, as it does a file of your own
(--recipe=mine.py). With --resume, the same
command resumes an interrupted run. --strategy=mirrored trains on several GPUs,
--strategy=multi_worker on several machines.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import command_line, recipe_flags, strategy_flags
from keras_robust.experiments.flags.output_path import check_output
from keras_robust.experiments.recipes import own_recipe, schema
from keras_robust.experiments.runs.run_directory import RunDirectory
from trainers import recipes

PROGRAM = "trainers.train"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program, except those of the recipe."""
    flags.DEFINE_string(
        "recipe",
        None,
        f"Name of the recipe, one of {recipes.listing()}; the recipe.json of a run; or a file of "
        "your own, .json or .py with a function get_config().",
        flag_values=values,
    )
    flags.DEFINE_string("output_dir", None, "Run directory.", flag_values=values)
    flags.DEFINE_string(
        "data_dir",
        None,
        "Directory of TensorFlow Datasets; short for --config.dataset.data_dir.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "resume",
        False,
        "Resume the run in --output_dir from its last checkpoint; start it if there is none.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Delete the existing run in --output_dir and start over.",
        flag_values=values,
    )
    strategy_flags.define(values)


def parse(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses the command line, including the fields of the recipe.

    Args:
        argv: the command line, the program's name first.
        values: holds the program's flags; gets `config` as well.

    Returns:
        The program's name.

    Raises:
        ValueError, OSError, absl.flags.Error: a user error.
    """
    seen = command_line.early(argv, define_flags)
    if seen.resume and seen.overwrite:
        raise ValueError("--resume and --overwrite exclude each other.")
    recipe = _recipe(seen) if seen.recipe or (seen.resume and seen.output_dir) else None
    listed = () if recipe is None else recipe.evaluation.attacks
    if recipe is not None:
        recipe_flags.define(recipe, argv, values)
    rest = command_line.parse(argv, define_flags, values)
    command_line.required(values, "output_dir", "runs/digits")
    if recipe is None:
        raise command_line.UsageError(
            f"--recipe is missing; there are {recipes.listing()}, or the recipe.json of a run."
        )
    schema.normalize(values.config, listed)
    if values.data_dir is not None:
        values.config.dataset.data_dir = values.data_dir
    strategy_flags.strategy_config(values)
    return rest


def _recipe(seen: flags.FlagValues) -> ConfigDict:
    if not seen.recipe:
        return RunDirectory(seen.output_dir).recipe()
    if seen.recipe.endswith(own_recipe.SUFFIXES):
        return own_recipe.from_file(seen.recipe)
    return recipes.load(seen.recipe)


def resume_hint() -> str:
    """The epoch in which the training was interrupted, and how to resume it."""
    values = flags.FLAGS
    run = RunDirectory(values.output_dir)
    if not run.is_run:
        return f"nothing was trained, and {command_line.START_OVER}"
    again = [f"--output_dir={values.output_dir}"]
    again += strategy_flags.as_flags(strategy_flags.strategy_config(values))
    return (
        f"{len(run.rows())} of {values.config.epochs} epochs are trained. "
        f"Resume with: python -m {PROGRAM} --resume {shlex.join(again)}"
    )


def main(_: list[str]) -> None:
    """Runs the program; nothing is written before user errors are found."""
    values = flags.FLAGS
    check_output(values.output_dir)
    strategy = strategy_flags.strategy_config(values)
    if strategy.workers > 1:
        print(f"Worker {strategy.worker} of {strategy.workers} waits for the others.", flush=True)
    with quiet_start():
        from keras_robust.experiments.training import train_run
        from keras_robust.experiments.training.strategies import make, workers_lost

        devices = make(strategy)
        command_line.initialize_devices()
    with workers_lost(devices):
        training = train_run.prepare(
            values.config,
            values.output_dir,
            resume=values.resume,
            overwrite=values.overwrite,
            devices=devices,
        )
    if devices.chief:
        print(training.summary(), flush=True)
    verbose = (1 if sys.stdout.isatty() else 2) if devices.chief else 0  # one worker logs
    try:
        with workers_lost(devices):
            train_run.complete(training, command=command_line.command(PROGRAM), verbose=verbose)
    except ValueError as error:  # not a user error, as the recipe was checked before
        raise RuntimeError(f"The training failed: {error}") from error
    if devices.chief:
        run = shlex.quote(values.output_dir)
        print(f"Trained: {run}\nEvaluate it with: python -m trainers.evaluate --run={run}")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags, parse, resume_hint)
