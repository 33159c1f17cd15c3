"""Every field that a recipe has, with its default; reading recipes from files, and back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, config_dict

from keras_robust.experiments.flags.lookup import number

# Recipes of a defense over another one: its name, and that of its base.
OVER = {
    "udr_pgd_at": ("udr", "pgd_at"),
    "udr_trades": ("udr", "trades"),
    "udr_mart": ("udr", "mart"),
    "adr_pgd_at": ("adr", "pgd_at"),
    "adr_trades": ("adr", "trades"),
}
# Recipes of a defense of ensembles: its name, and its own options.
ENSEMBLES: dict[str, tuple[str, dict[str, Any]]] = {
    "ensemble_at": ("ensemble_at", {}),
    "adp": ("adp", {}),
    "cce_robustness": ("cce", {"mode": "robustness"}),
    "cce_detection": ("cce", {"mode": "detection"}),
    "cce_base": ("cce", {"mode": "base"}),
    "ta_moo": ("ta_moo", {"solver": "task_oriented"}),
}


def defaults() -> ConfigDict:
    """A recipe with every field: what a new recipe starts from.

    Radii and step sizes are in units of the [0, 1] pixel range. `options` hold the further
    arguments of the function that the `name` beside them stands for.

    Returns:
        A recipe that can be changed.

    Example:
        >>> defaults().dataset.batch_size
        128
    """
    config = ConfigDict()
    config.name = ""
    config.seed = 0  # of the weights, the order of the data and all random starts
    config.epochs = 10
    config.mixed_precision = "float32"  # or "mixed_float16", "mixed_bfloat16"
    config.steps_per_execution = 1  # training steps in one call of TensorFlow; divides an epoch
    config.dataset = ConfigDict(
        {
            "name": "digits",  # or a name in TensorFlow Datasets
            "batch_size": 128,
            "data_dir": config_dict.placeholder(str),  # of TensorFlow Datasets; None: its own
            "limit": config_dict.placeholder(int),  # use only so many training images
            "validation": 0.1,  # taken from the training set: a part below 1, or a number of images
            "augment": {"name": "none", "options": {}},  # or "pad_crop_flip", "shift_flip", "shift"
        }
    )
    # Of keras_robust.models. `features` names the layer whose output is the latent; "": its own.
    config.model = ConfigDict({"name": "small_cnn", "options": {}, "features": ""})
    config.defense = ConfigDict({"name": "standard", "options": {}})  # of keras_robust.defenses
    config.ball = ConfigDict({"norm": "linf", "radius": 0.1})  # or "l2", "l1"
    config.optimizer = ConfigDict(
        {
            "name": "adam",  # or "sgd", "adamw", "rmsprop"
            "learning_rate": 1e-3,
            "momentum": 0.0,  # of SGD and RMSprop
            # As in Keras: each step takes this part times the learning rate off every weight.
            "weight_decay": 0.0,
            "ema": 0.0,  # momentum of an average of the weights, judged and kept as best; 0: none
            "schedule": {
                "kind": "constant",  # or "step", "cosine"
                "boundaries": (),  # of "step", in epochs that are over
                "factor": 0.1,  # of "step", at each boundary
            },
        }
    )
    # What chooses the best checkpoint, always on the validation images.
    config.monitor = "val_robust_accuracy"
    config.evaluation = ConfigDict(
        {
            "attacks": ("pgd", "fgsm"),  # accuracy over radius is of the strongest
            "steps": 20,
            "step_size": config_dict.placeholder(float),  # None: 2.5 radius / steps
            "restarts": 1,
            "radii": (),
            "limit": config_dict.placeholder(int),  # only the first so many test images
        }
    )
    # The score is one of keras_robust.detection.scores.SCORES; "disagreement" is of ensembles alone.
    config.detector = ConfigDict({"score": "entropy", "false_alarm_rate": 0.05})
    # How often to keep what a killed run goes on with, beside the end of each epoch; 0: not so.
    config.checkpoint = ConfigDict({"seconds": 60.0, "steps": 0})
    return config.lock()


def with_defense(config: ConfigDict, name: str, options: dict[str, dict[str, Any]]) -> ConfigDict:
    """The recipe with a defense of that name and its options.

    Args:
        config: the recipe, which is changed.
        name: a defense of `keras_robust.defenses`, or one of `OVER` or `ENSEMBLES`. Of the latter,
            the model becomes an ensemble of two such as the recipe has.
        options: for each name, the options of the defense; one over another has those of its base,
            and one of ensembles has those of `"ensembles"`.

    Returns:
        The same recipe.
    """
    if name in ENSEMBLES:
        config.defense.name, own = ENSEMBLES[name]
        config.defense.options = ConfigDict({**options["ensembles"], **own})
        member = config.model.to_dict()
        config.model.name = "ensemble"
        config.model.options = ConfigDict(
            {"members": 2 * (member["name"],), "options": member["options"]}
        )
        return config
    if name in OVER:
        config.defense.name, base = OVER[name]
        config.defense.options = ConfigDict({**options[base], "base": base})
        if config.defense.name == "adr" and config.model.name == "small_cnn":
            config.model.features = "flatten"  # after the last convolution, as the paper has it
        if name == "udr_mart":
            config.defense.options.boosted_on = "clean"  # the risk of the thesis
        return config
    config.defense.name = name
    config.defense.options = ConfigDict(options[name])
    if name == "standard":
        config.monitor = "val_accuracy"  # its robust accuracy says nothing of how well it trains
    return config


def normalised(config: ConfigDict) -> ConfigDict:
    """The same recipe with lists as a shell gives them taken apart: `pgd,fgsm`, `0.1,8/255`.

    Raises:
        ValueError: a radius or a boundary that is not a number.

    Example:
        >>> config = defaults()
        >>> config.evaluation.radii = ("0.1,1/4",)
        >>> normalised(config).evaluation.radii
        (0.1, 0.25)
    """
    evaluation, schedule = config.evaluation, config.optimizer.schedule
    if "members" in config.model.options:
        config.model.options.members = tuple(map(str, _flat(config.model.options.members)))
    evaluation.attacks = tuple(map(str, _flat(evaluation.attacks)))
    evaluation.radii = tuple(number("radius", item) for item in _flat(evaluation.radii))
    schedule.boundaries = tuple(
        int(value) if value == int(value) else value
        for value in (number("boundary", item) for item in _flat(schedule.boundaries))
    )
    return config


def _flat(items: tuple[Any, ...]) -> list[Any]:
    parts = [item.split(",") if isinstance(item, str) else [item] for item in items]
    return [item.strip() if isinstance(item, str) else item for part in parts for item in part]


def from_json(path: str | os.PathLike[str]) -> ConfigDict:
    """The recipe in a file that `trainers.train` wrote, to run it again.

    Args:
        path: a `recipe.json`.

    Returns:
        A recipe that can be changed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a recipe.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no recipe at {path}.")
    try:
        document = json.loads(path.read_text("utf-8"))
        document["dataset"].pop("class_names", None)  # told for those who export the model
        config = defaults()
        _fill(config, _tuples(document))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a recipe that this release reads ({error}); expected a recipe.json "
            "that `python -m trainers.train` wrote."
        ) from error
    return config


def _fill(config: ConfigDict, values: dict[str, Any]) -> None:
    """Sets the fields of a recipe; refuses others, except among options."""
    for name, value in values.items():
        if isinstance(value, dict) and name != "options":
            _fill(config[name], value)
        else:
            config[name] = ConfigDict(value) if isinstance(value, dict) else value


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
