"""The recipe inside a checkpoint: a run is what its checkpoints were trained by."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from keras_robust.core.bounded_files import check_archive, parse_json
from keras_robust.experiments.flags.recipe_flags import leaves

# Fields that may change between the sessions of a training: its steps do not depend on them.
_FREE = ("epochs", "evaluation.", "detector.", "checkpoint.", "dataset.data_dir", "name")
_ENTRY = "recipe.json"


def training_fields(config: ConfigDict) -> dict[str, Any]:
    """The fields of a recipe on which the training steps depend, by their full paths.

    Example:
        >>> from keras_robust.experiments.recipes.schema import defaults
        >>> fields = training_fields(defaults())
        >>> fields["ball.radius"], "epochs" in fields
        (0.1, False)
    """
    fields = leaves(config.to_dict())
    return {name: value for name, value in fields.items() if not name.startswith(_FREE)}


def stamp(file: Path, config: ConfigDict) -> None:
    """Writes the recipe into a `.keras` file, which is a zip archive."""
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(_ENTRY, json.dumps(training_fields(config)))


def check_stamp(file: Path, config: ConfigDict) -> None:
    """Raises unless a checkpoint was trained by a recipe.

    Fields that one of the two does not have are not compared, nor are checkpoints of release 0.1,
    which hold no recipe.

    Raises:
        ValueError: a field differs.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            check_archive(archive, file.stat().st_size)
            stamped = parse_json(archive.read(_ENTRY))
    except (KeyError, OSError, ValueError, zipfile.BadZipFile):
        return  # no recipe inside; what is damaged is reported by the one who loads it
    expected = json.loads(json.dumps(training_fields(config)))
    different = [
        f"{name} ({stamped[name]!r}, not {expected[name]!r})"
        for name in sorted(stamped.keys() & expected.keys())
        if stamped[name] != expected[name]
    ]
    if different:
        raise ValueError(
            f"{file} was trained by another recipe than the run's recipe.json: it differs in "
            f"{', '.join(different)}. The files of two runs are mixed; train the run again."
        )
