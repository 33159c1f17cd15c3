"""Attacks as recipes and flags hold them, `{name, options}`; needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from keras_robust.experiments.flags.lookup import number

# Attacks that move by steps of one length. One that a recipe does not list takes the steps and the
# step size of the first listed attack that has them.
FIXED_STEP_ATTACKS = ("pgd", "bim", "mim", "spsa", "multi_task", "multi_targeted", "union_pgd")
_COMMON_IN_0_1 = ("steps", "step_size", "restarts")  # fields of an evaluation, for all attacks
# The attacks that release 0.1 repeated.
_REPEATED_IN_0_1 = (
    *("pgd", "r_fgsm", "apgd", "fab", "spsa", "square"),
    *("boundary", "brendel_bethge", "hop_skip_jump"),
)
_WORDS = {"true": True, "false": False, "none": None}


class AttackSpec(TypedDict):
    """An attack by its name, with the arguments of its factory."""

    name: str
    options: dict[str, Any]


# An attack as given: its name, with options or without, or a mapping with both.
AttackLike = str | Mapping[str, Any]


def attack_spec(value: AttackLike) -> AttackSpec:
    """An attack as typed in a shell, or as a recipe holds it.

    Args:
        value: `NAME`, or `NAME:OPTION=VALUE:...`; or a mapping with `name` and, if any, `options`.

    Returns:
        Its name and options; values that were typed are numbers and booleans where they look so.

    Raises:
        ValueError: neither of the two.

    Example:
        >>> attack_spec("pgd:steps=40:step_size=2/8")
        {'name': 'pgd', 'options': {'steps': 40, 'step_size': 0.25}}
    """
    if isinstance(value, str):
        name, *options = value.strip().split(":")
        return {"name": name, "options": dict(map(_option, options))}
    if isinstance(value, Mapping) and "name" in value and not set(value) - {"name", "options"}:
        return {"name": str(value["name"]), "options": dict(value.get("options") or {})}
    raise ValueError(
        f"{value!r} is not an attack; expected its name, as in 'pgd' or 'pgd:steps=40', or "
        "{'name': 'pgd', 'options': {'steps': 40}}."
    )


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(
            f"{text!r} is not an option of an attack; expected OPTION=VALUE, as in pgd:steps=40."
        )
    return name, _literal(name, value)


def _literal(name: str, text: str) -> Any:
    """The value that was typed: an integer, a number, true, false or none, else the text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return number(name, text)
    except ValueError:
        return text


def recipe_options(
    name: str,
    listed: Iterable[AttackLike],
    given: Mapping[str, Any],
    *,
    same_ball: bool = True,
) -> dict[str, Any]:
    """The options of an attack: those that are given, and for the rest those of a recipe.

    Args:
        name: the attack.
        listed: the attacks of the recipe.
        given: options that replace the recipe's.
        same_ball: whether the attack is in the recipe's ball. With another ball, or with other
            steps, the recipe's step size does not apply.

    Returns:
        The options.

    Example:
        >>> recipe_options("bim", ["pgd:steps=40:loss=margin"], {"step_size": 0.1})
        {'steps': 40, 'step_size': 0.1}
    """
    specs = [attack_spec(one) for one in listed]
    own = next((one["options"] for one in specs if one["name"] == name), None)
    if own is None:
        stepped = (one["options"] for one in specs if one["name"] in FIXED_STEP_ATTACKS)
        first = next((options for options in stepped if "steps" in options), {})
        own = {key: first[key] for key in ("steps", "step_size") if key in first}
        own = own if name in FIXED_STEP_ATTACKS else {}
    if "steps" in given or not same_ball:
        own = {key: value for key, value in own.items() if key != "step_size"}
    return {**own, **given}


def read_evaluation(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation of a `recipe.json`, of this release or of 0.1.

    Release 0.1 listed the names of the attacks, with one number of steps, step size and number of
    restarts for all of them; these become options of the attacks that they applied to.

    Raises:
        ValueError: an invalid attack, or fields of both releases.

    Example:
        >>> read_evaluation({"attacks": ["pgd", "fgsm"], "steps": 40, "restarts": 1})
        {'attacks': [{'name': 'pgd', 'options': {'steps': 40}}, {'name': 'fgsm', 'options': {}}]}
    """
    common = {key: evaluation[key] for key in _COMMON_IN_0_1 if key in evaluation}
    fields = {key: value for key, value in evaluation.items() if key not in common}
    attacks = fields.get("attacks", ("pgd", "fgsm") if common else None)
    if attacks is None:
        return fields
    if common and not all(isinstance(one, str) for one in attacks):
        raise ValueError(f"{', '.join(common)} of an evaluation; set the options of each attack")
    specs = [attack_spec(one) for one in attacks]
    for spec in specs:
        takes: tuple[str, ...] = (
            ("steps", "step_size") if spec["name"] in FIXED_STEP_ATTACKS else ()
        )
        if spec["name"] in _REPEATED_IN_0_1 and common.get("restarts") != 1:
            takes += ("restarts",)
        spec["options"] |= {key: common[key] for key in takes if common.get(key) is not None}
    return {**fields, "attacks": specs}
