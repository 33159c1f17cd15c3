"""The flags of attacks that the programs share."""

from __future__ import annotations

import math
import re
from typing import Any

from absl import flags

from keras_robust.experiments.flags.recipe_flags import NumberParser

flags.disclaim_key_flags()  # `--help` is to show them as the program's own

OPTIONS = ("steps", "step_size", "restarts", "loss", "queries")
TASKS = ("tasks", "group", "stochastic")
NORMS = ("linf", "l2", "l1", "l0")
_ONE = f"({'|'.join(NORMS)})"
_NORM = re.compile(rf"{_ONE}|{_ONE}=[^=+]+(\+{_ONE}=[^=+]+)+")
NAMES_HELP = "options as in pgd:steps=40:step_size=0.01,apgd:restarts=2"


def define(values: flags.FlagValues) -> None:
    """Declares the flags of a run and an attack; the run's recipe sets what is not given."""

    def integer(name: str, text: str) -> None:
        flags.DEFINE_integer(name, None, text, lower_bound=1, flag_values=values)

    define_files(values)
    define_ball(values)
    define_images(values)
    integer("steps", "Number of steps of the attack.")
    _define_number(
        "step_size",
        "Step size of the attack, e.g. 0.01 or 2/255. With other steps or another ball than the "
        "recipe's, the default is 2.5 radius / steps.",
        values,
    )
    integer("restarts", "Number of restarts of an attack with a random start.")
    flags.DEFINE_enum(
        "loss",
        None,
        ["cross_entropy", "margin", "dlr", "kl", "detector_aware"],
        "Loss that the attack maximizes; detector_aware also lowers the score of the run's "
        "detector (an adaptive attack).",
        flag_values=values,
    )
    integer("queries", "Number of queries of the attack for each image.")


def define_files(values: flags.FlagValues) -> None:
    """Declares the checkpoint of a run, and where the data is."""
    flags.DEFINE_enum(
        "checkpoint",
        None,
        ["best", "last"],
        "Checkpoint of the run; by default the best one if there is one.",
        flag_values=values,
    )
    flags.DEFINE_string("data_dir", None, "Directory of TensorFlow Datasets.", flag_values=values)


def define_ball(values: flags.FlagValues) -> None:
    """Declares the threat model."""
    flags.DEFINE_string(
        "norm",
        None,
        "Norm of the ball: linf, l2 or l1; another norm than the recipe's needs --radius. Or a "
        "union of balls, as in linf=8/255+l2=0.5: an attack runs in each of them.",
        flag_values=values,
    )
    flags.register_validator(
        "norm",
        lambda norm: norm is None or bool(_NORM.fullmatch(norm)),
        message=f"expected {', '.join(NORMS)}, or a union such as linf=8/255+l2=0.5",
        flag_values=values,
    )
    _define_number("radius", "Radius of the ball, e.g. 0.3 or 8/255.", values)


def define_images(values: flags.FlagValues) -> None:
    """Declares how many images to attack, and the seed."""
    flags.DEFINE_integer(
        "limit",
        None,
        "Number of test images, from the first one; by default all.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer("seed", 0, "Seed of the attack.", flag_values=values)


def _define_number(name: str, text: str, values: flags.FlagValues) -> None:
    flags.DEFINE(NumberParser(), name, None, text, values)


def define_budgets(values: flags.FlagValues) -> None:
    """Declares the limits of time and of passes for the attacks on a run."""
    flags.DEFINE_integer(
        "budget_per_image",
        None,
        "Passes through the model, forward and backward, of each attack on an image, which are "
        "counted; an attack that needs more ends there.",
        lower_bound=1,
        flag_values=values,
    )
    name = "time_budget"
    flags.DEFINE(
        NumberParser(),
        name,
        None,
        "Seconds for the attacks on each run, after which no further batch is attacked; the same "
        "command, with another budget or none, resumes. Sanity checks and model cards follow the "
        "finished attacks and are not counted.",
        values,
    )
    flags.register_validator(
        name,
        lambda seconds: seconds is None or 0 < seconds < math.inf,
        message="expected a number of seconds above 0",
        flag_values=values,
    )


def define_tasks(values: flags.FlagValues) -> None:
    """Declares the flags of multi-task attacks."""
    flags.DEFINE_enum(
        "tasks",
        None,
        ["members", "universal", "transformations"],
        "Tasks of one perturbation: to fool the members of an ensemble, a group of images, or the "
        "model under transformations of the image. With another attack than multi_task, the tasks "
        "whose success rates are measured.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "group",
        None,
        "Number of images that share a perturbation with --tasks=universal; by default a batch.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "stochastic",
        None,
        "Draw the strength of --tasks=transformations in each step.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "success_criterion",
        None,
        ["label", "prediction"],
        "A task is achieved if the prediction differs from the label or from the clean prediction; "
        "by default the label for members, the prediction for the others.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "population",
        None,
        ["all", "correct"],
        "Attack all images, or those that the model classifies correctly; by default the latter if "
        "success is a changed prediction.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "solver",
        None,
        "Solver that weights the tasks of --attack=multi_task: uniform, min_max, min_norm, "
        "task_oriented, pcgrad, cagrad or hvm; with options as in "
        "task_oriented:lam=10:balance=20 or min_norm:initial=0.2+0.3+0.5. Several solvers are "
        "compared.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "trace",
        False,
        "Write and draw the weights, losses, successes and gradient norms of the tasks over the "
        "steps of --attack=multi_task, and the gradients at the end.",
        flag_values=values,
    )


def options(values: flags.FlagValues) -> dict[str, Any]:
    """The options of attacks that were given."""
    return _given(values, OPTIONS)


def task_options(values: flags.FlagValues) -> dict[str, Any]:
    """The options of tasks that were given."""
    return _given(values, TASKS)


def _given(values: flags.FlagValues, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name].value for name in names if values[name].value is not None}
