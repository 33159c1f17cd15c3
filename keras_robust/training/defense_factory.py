"""Defenses: functions `(classifier, ball, **options) -> RobustModel`, also known by name."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypedDict

from keras_robust.attacks.crafting.base import Attack
from keras_robust.core.validation import did_you_mean, lookup
from keras_robust.training.label_mixing import Mixing
from keras_robust.training.radius_schedules import RadiusSchedule
from keras_robust.training.robust_model import RobustModel, model_options
from keras_robust.training.weight_perturbation import AWP

P = ParamSpec("P")
Defense = Callable[..., RobustModel]

# Descriptions of arguments that most defenses share, unless their docstrings have others.
_SHARED = {
    "classifier": 'a built functional model that maps images to `{"logits", "features"}`.',
    "ball": "the threat model.",
    "steps": "number of attack steps.",
    "step_size": "length of a step, in the units of the images; default `2.5 * radius / steps`.",
    "validation_attack": "crafts the images of validation; default the defense's own.",
}

_DEFENSES: dict[str, Defense] = {}


class RobustModelOptions(TypedDict, total=False):
    """The options of `RobustModel`, which every defense takes and passes on."""

    validation_attack: Attack | None
    crafting_mode: str
    crafting_dtype: str
    radius_warmup: int
    radius_schedule: RadiusSchedule | None
    label_smoothing: float
    mixing: Mixing | None
    microbatches: int
    weight_perturbation: AWP | None
    seed: int
    name: str | None


def defense(factory: Callable[P, RobustModel]) -> Callable[P, RobustModel]:
    """Declares a function as a defense, which another one may name as its `base`.

    The function ends in `**options`, options of `RobustModel`. Its signature and its docstring then
    show them one by one, and unknown options are refused before anything is built.

    Args:
        factory: `(classifier, ball, *, ..., **options) -> RobustModel`. With a parameter `base`, it
            may take options of that defense too. Its docstring describes only its own arguments.

    Raises:
        ValueError: another module has a defense of that name.

    Example:
        >>> import keras_robust as kr
        >>> kr.defenses.mart(None, kr.LinfBall(0.1), betta=5.0)
        Traceback (most recent call last):
        ...
        TypeError: mart() has no option 'betta'; expected one of beta, boosted_on, steps, \
step_size, validation_attack, crafting_mode, crafting_dtype, radius_warmup, radius_schedule, \
label_smoothing, mixing, microbatches, weight_perturbation, seed, name. Did you mean 'beta'?
    """
    signature = _spelled_out(factory)

    @functools.wraps(factory)
    def checked(*args: P.args, **kwargs: P.kwargs) -> RobustModel:
        _check_names(factory.__name__, signature, kwargs)
        return factory(*args, **kwargs)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    checked.__doc__ = _described(factory.__doc__, signature)
    other = _DEFENSES.get(factory.__name__)
    if other is not None and other.__module__ != factory.__module__:
        raise ValueError(
            f"{factory.__name__} is defined twice: in {other.__module__} and {factory.__module__}."
        )
    _DEFENSES[factory.__name__] = checked
    return checked


def get(defense: str | Defense) -> Defense:
    """The defense of a name; a function is returned as it is.

    Raises:
        ValueError: an unknown name.
        TypeError: not a name or a function.

    Example:
        >>> import keras_robust as kr
        >>> get("trades") is kr.defenses.trades
        True
    """
    if isinstance(defense, str):
        return _DEFENSES[lookup("defense", defense, _DEFENSES)]
    if not callable(defense):
        raise TypeError(
            f"base is {defense!r}; expected a defense, such as `keras_robust.defenses.trades`, or "
            "its name."
        )
    return defense


def validated_by(options: RobustModelOptions, attack: Attack | None) -> RobustModelOptions:
    """The options, with a default for `validation_attack`."""
    return {**options, "validation_attack": options.get("validation_attack") or attack}


def _spelled_out(factory: Callable[..., RobustModel]) -> inspect.Signature:
    """The signature of a defense, with the options of `RobustModel` one by one."""
    signature = inspect.signature(factory)
    parameters = [p for p in signature.parameters.values() if p.kind != p.VAR_KEYWORD]
    names = {p.name for p in parameters}
    parameters += [p for p in model_options() if p.name not in names]
    if "base" in names:  # options of the base follow
        parameters += [p for p in signature.parameters.values() if p.kind == p.VAR_KEYWORD]
    return signature.replace(parameters=parameters)


def _described(doc: str | None, signature: inspect.Signature) -> str | None:
    """The docstring of a defense, with a description of every parameter and of the result."""
    if doc is None:
        return None
    doc = inspect.cleandoc(doc) + "\n"
    known = {**_arguments(RobustModel.__doc__ or ""), **_SHARED, **_arguments(doc)}
    listed = [
        f"    {'**' * (p.kind == p.VAR_KEYWORD)}{p.name}: {known[p.name]}"
        for p in signature.parameters.values()
        if p.name in known
    ]
    doc = re.sub(r"^Args:\n(?: {4}.*\n)+\n?", "", doc, flags=re.M)
    first = re.search(r"^(?:Returns|Raises|Example|Reference|Differs):", doc, flags=re.M)
    start = first.start() if first else len(doc)
    returns = "" if "\nReturns:" in doc else "Returns:\n    A model to `compile` and `fit`."
    parts = (doc[:start].rstrip(), "\n".join(["Args:", *listed]), returns, doc[start:])
    return "\n\n".join(part for part in parts if part)


def _arguments(doc: str) -> dict[str, str]:
    """The descriptions in the section `Args` of a docstring, by name; `a, b: ...` is of both."""
    section = re.search(r"^Args:\n((?: {4}.*\n)+)", inspect.cleandoc(doc) + "\n", flags=re.M)
    lines = section[1] if section else ""
    found = re.findall(r"^ {4}\**(\w+(?:,\s+\w+)*): (.*(?:\n {8}.*)*)", lines, flags=re.M)
    return {name: text for names, text in found for name in re.split(r",\s+", names)}


def _check_names(name: str, signature: inspect.Signature, options: dict[str, Any]) -> None:
    """Raises TypeError for the first option that a defense, or its base, does not take."""
    known = _keywords(signature)
    if known is None:  # the options of the base follow
        known = [p.name for p in signature.parameters.values() if p.kind != p.VAR_KEYWORD]
        base = _keywords(inspect.signature(get(options["base"]))) if "base" in options else []
        if base is None:
            return
        known = [*dict.fromkeys([*known, *base])]
    unknown = next((option for option in options if option not in known), None)
    if unknown is not None:
        shown = [option for option in known if option not in ("classifier", "ball")]
        raise TypeError(
            f"{name}() has no option {unknown!r}; expected one of {did_you_mean(unknown, shown)}"
        )


def _keywords(signature: inspect.Signature) -> list[str] | None:
    """The names of a function's parameters; None if it takes any keyword."""
    parameters = signature.parameters.values()
    if any(p.kind == p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters]
