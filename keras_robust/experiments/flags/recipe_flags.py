"""`--config.FIELD=VALUE`: the fields of a recipe as flags, by `ml_collections.config_flags`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags
from ml_collections.config_flags import tuple_parser

from keras_robust.core.validation import did_you_mean
from keras_robust.experiments.flags.lookup import number

_FIELD = re.compile(r"--?(?:no)?config(?:\.([^=]+))?(?:=|$)")
# Groups of arguments of a function, which checks their names itself.
_OPEN = ("options",)


class NumberParser(flags.FloatParser):
    """Parses a float that may be typed as a fraction, such as `8/255`."""

    def convert(self, argument: Any) -> float:
        """The number."""
        return number("number", argument)


class ListParser(tuple_parser.TupleParser):
    """Parses a tuple; text that is not one, such as `pgd:steps=40,fgsm`, is split later."""

    def parse(self, argument: Any) -> tuple[Any, ...]:
        """The tuple, or the text as its only element."""
        try:
            return super().parse(argument)
        except ValueError:
            return (argument,)


config_flags.register_flag_parser_for_type(float, NumberParser())
config_flags.register_flag_parser_for_type(tuple, ListParser())


def define(config: ConfigDict, argv: Sequence[str], values: flags.FlagValues) -> None:
    """Declares the flag `--config`, and one for each field that the command line changes.

    If the command line changes the model, the options of the recipe's own model are dropped.

    Args:
        config: the recipe; parsing the flags changes it.
        argv: the command line.
        values: where to declare the flags.

    Raises:
        ValueError: an unknown field, or a group of fields.
    """
    arguments = values.read_flags_from_files(list(argv), force_gnu=False)
    given = list(_given(arguments[1:]))
    _drop_options_of_replaced_model(config, {path: text for path, text in given if path})
    for path, _ in given:
        _check(config, path)
    config_flags.DEFINE_config_dict(
        "config",
        config,
        "The recipe; change a field with --config.FIELD=VALUE.",
        flag_values=values,
        sys_argv=arguments,
    )


def field_called(name: str, values: flags.FlagValues) -> str | None:
    """The recipe's field that a flag without `config.` may refer to.

    Args:
        name: the flag, such as `"epochs"` or `"ball.radius"`.
        values: the flags, with or without a recipe.

    Returns:
        The full path of the field, such as `"ball.radius"`; None if there is no such field.
    """
    if "config" not in values:
        return None
    recipe: Any = values["config"].default
    paths = leaves(recipe.to_dict())
    return next((path for path in paths if f".{path}".endswith(f".{name}")), None)


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """The fields of a recipe by their full paths.

    Example:
        >>> leaves({"epochs": 3, "ball": {"radius": 0.3}})
        {'epochs': 3, 'ball.radius': 0.3}
    """
    if not isinstance(value, dict):
        return {path: value}
    parts = [leaves(item, f"{path}.{key}" if path else key) for key, item in value.items()]
    return {name: item for part in parts for name, item in part.items()}


def _given(arguments: Sequence[str]) -> Iterator[tuple[str | None, str]]:
    """The recipe fields on a command line, each with the text of its value."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        match = _FIELD.match(argument)
        if match:
            yield match.group(1), argument.partition("=")[2] or following


def _drop_options_of_replaced_model(config: ConfigDict, given: Mapping[str, str]) -> None:
    """Drops options of the recipe's model, which another model would refuse."""
    model = config.model
    with config.unlocked():
        if given.get("model.name", model.name) != model.name:
            model.options, model.features = ConfigDict(), ""
        members = given.get("model.options.members")
        if members and set(re.findall(r"\w+", members)) != set(model.options.get("members", ())):
            model.options.options = ConfigDict()


def _check(config: ConfigDict, path: str | None) -> None:
    """Raises unless `path` is a field; creates the field of a new option."""
    if path is None:
        raise ValueError(
            "--config stands for the whole recipe; choose one with --recipe=NAME, and change its "
            "fields with --config.FIELD=VALUE."
        )
    *groups, field = path.split(".")
    group = config
    for depth, name in enumerate(groups):
        where = ".".join(groups[:depth])
        if name not in group and where.endswith(_OPEN) and _is_part(name):
            with group.unlocked():
                group[name] = ConfigDict()  # options of a part, or of an ensemble's member
        if name not in group:
            raise ValueError(_unknown(path, where, name, group))
        if not isinstance(group[name], ConfigDict):
            whole = ".".join(groups[: depth + 1])
            raise ValueError(f"--config.{path}: {name!r} holds a value; set --config.{whole}.")
        group = group[name]
    if field not in group and set(groups).intersection(_OPEN):
        with group.unlocked():
            group[field] = config_dict.placeholder(object)
    if field not in group:
        raise ValueError(_unknown(path, ".".join(groups), field, group))
    if isinstance(group[field], ConfigDict):
        inside = ", ".join(f"--config.{path}.{name}" for name in group[field]) or (
            f"--config.{path}.NAME"
        )
        raise ValueError(f"--config.{path} is a group of fields; set {inside}.")


def _is_part(name: str) -> bool:
    """Whether options may be those of a part, or of an ensemble's members of an architecture."""
    from keras_robust.models.registry import ARCHITECTURES  # late: it imports TensorFlow

    return name in _OPEN or name in ARCHITECTURES


def _unknown(path: str, where: str, name: str, group: ConfigDict) -> str:
    inside = f"in {where!r}" if where else "at the top"
    return (
        f"--config.{path}: the recipe has no field {name!r} {inside}; "
        f"valid fields: {did_you_mean(name, list(group))}"
    )
