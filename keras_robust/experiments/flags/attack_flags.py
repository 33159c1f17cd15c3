"""The flags of an attack, which the programs that attack share."""

from __future__ import annotations

import math
from typing import Any

from absl import flags

from keras_robust.experiments.flags.recipe_flags import NumberParser

flags.disclaim_key_flags()  # `--help` is to show them as the program's own


def define(values: flags.FlagValues) -> None:
    """Declares the flags of a run and of an attack; what is not given is as the recipe says."""

    def number(name: str, text: str) -> None:
        flags.DEFINE(NumberParser(), name, None, text, values)

    def whole(name: str, text: str, least: int) -> None:
        flags.DEFINE_integer(name, None, text, lower_bound=least, flag_values=values)

    flags.DEFINE_enum(
        "checkpoint",
        None,
        ["best", "last"],
        "By default the best one if there is one.",
        flag_values=values,
    )
    flags.DEFINE_string("data_dir", None, "Of TensorFlow Datasets.", flag_values=values)
    flags.DEFINE_enum("norm", None, ["linf", "l2", "l1"], "Of the ball.", flag_values=values)
    number("radius", "Of the ball, such as 0.3 or 8/255.")
    whole("steps", "Of iterated attacks.", 1)
    number(
        "step_size",
        "Of iterated attacks; with other steps or another ball than the recipe's, by default "
        "2.5 radius / steps.",
    )
    whole("restarts", "Of attacks with a random start.", 1)
    flags.DEFINE_enum(
        "loss",
        None,
        ["cross_entropy", "margin", "dlr", "kl", "detector_aware"],
        "What attacks climb; detector_aware also lowers the score of the run's detector.",
        flag_values=values,
    )
    whole("queries", "Of attacks by random search, for each image.", 1)
    whole("limit", "Use only the first so many test images.", 1)
    flags.DEFINE_integer("seed", 0, "Of random starts.", flag_values=values)


def define_time_budget(values: flags.FlagValues) -> None:
    """Declares how long the attacks on a run may take."""
    name = "time_budget"
    flags.DEFINE(
        NumberParser(),
        name,
        None,
        "Seconds for the attacks on each run, after which nothing more is begun; the same command, "
        "with another budget or none, goes on there. What --checks and --card ask for comes when "
        "the attacks are done, and is not counted.",
        values,
    )
    flags.register_validator(
        name,
        lambda seconds: seconds is None or 0 < seconds < math.inf,
        message="expected a number of seconds above 0",
        flag_values=values,
    )


def settings(values: flags.FlagValues) -> dict[str, Any]:
    """What was given of `keras_robust.experiments.recipes.attack_options.Settings`; None where nothing was."""
    names = ("steps", "step_size", "restarts", "loss", "queries")
    return {name: values[name].value for name in names}


def define_tasks(values: flags.FlagValues) -> None:
    """Declares the flags of attacks on many tasks."""
    flags.DEFINE_enum(
        "tasks",
        None,
        ["members", "universal", "transformations"],
        "What one perturbation is to fool: the members of an ensemble, many images, or the model "
        "however the image is transformed. Of other attacks than multi_task, what is looked at.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "group",
        None,
        "Images that share a perturbation, of --tasks=universal; by default a batch.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "stochastic",
        None,
        "Whether each step draws how strong --tasks=transformations are.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "solver",
        None,
        "What weighs the tasks of --attack=multi_task: uniform, min_max, min_norm, task_oriented, "
        "pcgrad, cagrad, hvm; with settings as in task_oriented:lam=10:balance=20; or several, to "
        "compare.",
        flag_values=values,
    )


def task_settings(values: flags.FlagValues) -> dict[str, Any]:
    """What was given of the settings of tasks; None where nothing was."""
    return {name: values[name].value for name in ("tasks", "group", "stochastic")}
