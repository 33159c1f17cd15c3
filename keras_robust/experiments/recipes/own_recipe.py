"""Recipes in a file of one's own: Python with a function `get_config`, or JSON."""

from __future__ import annotations

import os
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from keras_robust.core.bounded_files import read_json
from keras_robust.core.validation import did_you_mean
from keras_robust.experiments.recipes.schema import defaults, from_document

SUFFIXES = (".py", ".json")


def from_file(path: str | os.PathLike[str]) -> ConfigDict:
    """Reads a recipe from a file; fields that it does not set have their defaults.

    Args:
        path: a `.py` file with a function `get_config()` that returns a recipe, such as
            `schema.defaults()` or `trainers.recipes.load("digits/trades")` with other values, which
            is run; or a `.json` file with fields, such as the recipe.json of a run.

    Returns:
        A recipe that can be changed; its name is that of the file if it has none.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be run, is not a recipe, or has an unknown field.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no recipe at {path}.")
    document = _run(path) if path.suffix == ".py" else _parsed(path)
    _check_fields(path, document, defaults().to_dict())
    try:
        config = from_document({"dataset": {}, **document})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a recipe that this release reads ({error}); expected fields of "
            "`keras_robust.experiments.recipes.schema.defaults()`, or a recipe.json that `python "
            "-m trainers.train` wrote."
        ) from error
    config.name = config.name or path.stem
    return config


def _run(path: Path) -> dict[str, Any]:
    try:
        names = runpy.run_path(str(path))
        config = names["get_config"]() if "get_config" in names else None
    except Exception as error:  # of the user's code
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        received = "returns " + type(config).__name__ if "get_config" in names else "is missing"
        raise ValueError(
            f"get_config() of {path} {received}; expected a function that returns a ConfigDict, "
            "such as keras_robust.experiments.recipes.schema.defaults() with other values."
        )
    return config.to_dict()


def _parsed(path: Path) -> dict[str, Any]:
    try:
        document = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is not a recipe: it is not JSON ({error}).") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path} is not a recipe: it holds {type(document).__name__}.")
    return document


def _check_fields(path: Path, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raises for a field at the top that no recipe has, which is more often a typing error."""
    for name in given:
        if name not in known:
            raise ValueError(
                f"{path} has the field {name!r}; the fields of a recipe are "
                f"{did_you_mean(name, sorted(known))}"
            )
