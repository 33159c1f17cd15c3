"""The flags of an attack, which `trainers.evaluate` and `trainers.attack` share."""

from __future__ import annotations

from typing import Any

from absl import flags

from trainers.recipe_flags import NumberParser

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
        ["cross_entropy", "margin", "dlr", "kl"],
        "What attacks climb.",
        flag_values=values,
    )
    whole("queries", "Of attacks by random search, for each image.", 1)
    whole("limit", "Use only the first so many test images.", 1)
    flags.DEFINE_integer("seed", 0, "Of random starts.", flag_values=values)


def settings(values: flags.FlagValues) -> dict[str, Any]:
    """What was given of `trainers.attack_settings.Settings`; None where nothing was."""
    names = ("steps", "step_size", "restarts", "loss", "queries")
    return {name: values[name].value for name in names}
