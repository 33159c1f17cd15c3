"""The fields of a recipe with their defaults, and reading recipes from files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, config_dict

from keras_robust.core.bounded_files import read_json
from keras_robust.experiments.flags.lookup import number
from keras_robust.experiments.recipes.attack_spec import (
    AttackLike,
    attack_spec,
    read_evaluation,
    recipe_options,
)

# Recipes of a defense that is built over another one: its name, and the name of its base.
OVER = {
    "udr_pgd_at": ("udr", "pgd_at"),
    "udr_trades": ("udr", "trades"),
    "udr_mart": ("udr", "mart"),
    "adr_pgd_at": ("adr", "pgd_at"),
    "adr_trades": ("adr", "trades"),
}
# The same in a union of balls.
UNIONS = {"union_pgd_at": ("union", "pgd_at"), "union_trades": ("union", "trades")}
# Recipes of a defense for ensembles: its name, and its own options.
ENSEMBLES: dict[str, tuple[str, dict[str, Any]]] = {
    "ensemble_at": ("ensemble_at", {}),
    "adp": ("adp", {}),
    "cce_robustness": ("cce", {"mode": "robustness"}),
    "cce_detection": ("cce", {"mode": "detection"}),
    "cce_base": ("cce", {"mode": "base"}),
    "ta_moo": ("ta_moo", {"solver": "task_oriented"}),
}

# Recipes of contrastive pretraining, after which a head is trained: its defense.
PRETRAINING = {"scl_pretraining": "scl", "ascl_pretraining": "ascl"}
# Defenses that train on certified bounds.
CERTIFIED = ("ibp", "crown_ibp", "sabr")


def defaults() -> ConfigDict:
    """A recipe with every field at its default.

    Radii and step sizes are in units of the [0, 1] pixel range. `options` holds arguments of the
    function that the `name` next to it stands for.

    Returns:
        A recipe that can be changed.

    Example:
        >>> defaults().dataset.batch_size
        128
    """
    config = ConfigDict()
    config.name = ""
    config.seed = 0  # for the weights, the order of the data and all random starts
    config.epochs = 10
    config.mixed_precision = "float32"  # or "mixed_float16", "mixed_bfloat16"
    config.steps_per_execution = 1  # training steps per TensorFlow call; a divisor of an epoch
    config.jit_compile = False  # compile steps by XLA: faster for certified training, also on a CPU
    config.dataset = ConfigDict(
        {
            "name": "digits",  # or a name in TensorFlow Datasets
            "batch_size": 128,
            "data_dir": config_dict.placeholder(str),  # of TensorFlow Datasets; None: its default
            "limit": config_dict.placeholder(int),  # the number of training images; None: all
            "validation": 0.1,  # held out of the training set: a fraction, or a number of images
            "augment": {"name": "none", "options": {}},  # or "pad_crop_flip", "shift_flip", "shift"
            # A .npz file with further training images and their labels, and their part of a batch.
            "extra": {"file": "", "proportion": 0.5},
            "random_erasing": 0.0,  # the fraction of training images with an erased rectangle
        }
    )
    # A name in keras_robust.models. `features` names the layer whose output is the latent; "": the
    # model's default. `weights` is a .keras file of an earlier training to begin with, or several
    # for the members of an ensemble, with commas; "": new ones. `trainable` is the part that is
    # trained: "all", "all_but_batch_norm", "head"; "": what the model's function decides.
    config.model = ConfigDict(
        {"name": "small_cnn", "options": {}, "features": "", "weights": "", "trainable": ""}
    )
    config.defense = ConfigDict({"name": "standard", "options": {}})  # in keras_robust.defenses
    # Or "l2", "l1", "l0"; or a union such as "linf=8/255+l2=0.5", whose radius is a factor of all
    # radii.
    config.ball = ConfigDict({"norm": "linf", "radius": 0.1})
    config.optimizer = ConfigDict(
        {
            "name": "adam",  # or "sgd", "adamw", "rmsprop"
            "learning_rate": 1e-3,
            "momentum": 0.0,  # for SGD and RMSprop
            # As in Keras: each step subtracts this fraction times the learning rate of each weight.
            "weight_decay": 0.0,
            # Decay of the averaged weights that are validated and kept, with batch-norm statistics
            # of their own; 0: off.
            "ema": 0.0,
            "global_clipnorm": 0.0,  # clips the norm of all gradients together; 0: off
            "schedule": {
                "kind": "constant",  # or "step", "cosine", "one_cycle"
                "boundaries": (),  # for "step": after so many epochs
                "factor": 0.1,  # for "step": multiplies the rate at each boundary
                "peak": 0.4,  # for "one_cycle": the fraction of the steps with a growing rate
                "warmup": 0.0,  # number of epochs over which the rate grows; not for "one_cycle"
            },
        }
    )
    # The metric on the validation images that selects the best checkpoint.
    config.monitor = "val_robust_accuracy"
    # Notices catastrophic overfitting of single-step training after each epoch.
    config.single_step_check = ConfigDict(
        {
            "images": 0,  # number of validation images that are attacked; 0: off
            "steps": 10,  # of PGD
            "threshold": 0.25,  # the largest difference of accuracies of a good epoch
            "restore": True,  # the weights of the last good epoch
            "stop": False,  # the training
        }
    )
    # Logs R-DIV of the latents of validation images.
    config.latent_divergence = ConfigDict(
        {
            "images": 0,  # number of validation images that are attacked; 0: off
            "every": 1,  # number of epochs between two measurements
        }
    )
    config.evaluation = ConfigDict(
        {
            # Accuracy over radius is measured with the strongest.
            "attacks": (
                {"name": "pgd", "options": {"steps": 20}},
                {"name": "fgsm", "options": {}},
            ),
            "radii": (),
            "limit": config_dict.placeholder(int),  # the number of test images; None: all
        }
    )
    # The score is one of keras_robust.detection.NAMES, with options as in "lid:k=10";
    # "disagreement" needs an ensemble.
    config.detector = ConfigDict({"score": "entropy", "false_alarm_rate": 0.05})
    # How often to write a checkpoint within an epoch; 0: never.
    config.checkpoint = ConfigDict({"seconds": 60.0, "steps": 0})
    return config.lock()


def with_defense(config: ConfigDict, name: str, options: dict[str, dict[str, Any]]) -> ConfigDict:
    """Sets the defense of a recipe, with its options.

    Args:
        config: the recipe, which is changed.
        name: a defense of `keras_robust.defenses`, or a key of `OVER`, `UNIONS`, `PRETRAINING` or
            `ENSEMBLES`. For the latter, the model becomes an ensemble of two of the recipe's.
        options: name -> options of the defense. A defense over another one takes those of its base,
            a defense for ensembles those of `"ensembles"`.

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
    over = {**OVER, **UNIONS}
    if name in over:
        config.defense.name, base = over[name]
        config.defense.options = ConfigDict({**options[base], "base": base})
        if config.defense.name == "adr" and config.model.name == "small_cnn":
            config.model.features = "flatten"  # after the last convolution, as in the paper
        if name == "udr_mart":
            config.defense.options.boosted_on = "clean"  # the loss of the thesis
        return config
    if name in PRETRAINING:
        config.defense.name = PRETRAINING[name]
        own = {**options[PRETRAINING[name]], "mode": "pretraining"}
        own.pop("selection", None)  # the logits are not trained, and predict nothing to select by
        config.defense.options = ConfigDict(own)
        config.monitor = "val_contrastive"
        return config
    config.defense.name = name
    config.defense.options = ConfigDict(options[name])
    if name == "standard":
        config.monitor = "val_accuracy"  # robust accuracy does not measure its progress
    if name in CERTIFIED:
        config.monitor = "val_verified_accuracy"
    return config


def in_union(config: ConfigDict, norm: str) -> ConfigDict:
    """Puts a recipe into a union of balls; its lengths become fractions of their radii.

    Args:
        config: the recipe, which is changed.
        norm: the union, as in `linf=8/255+l2=0.5`.

    Returns:
        The same recipe.
    """
    radius = config.ball.radius
    config.ball.norm, config.ball.radius = norm, 1.0
    options = [config.defense.options, *(one["options"] for one in config.evaluation.attacks)]
    for one in options:
        if one.get("step_size"):
            one["step_size"] /= radius
    config.evaluation.radii = tuple(round(one / radius, 3) for one in config.evaluation.radii)
    return config


def single_step(config: ConfigDict, options: dict[str, Any]) -> ConfigDict:
    """Sets N-FGSM as the defense of a recipe, with the schedule and the checks of fast training.

    The learning rate rises over the first half of the steps and falls to 0; a few validation images
    are attacked after each epoch to notice catastrophic overfitting.

    Args:
        config: the recipe, which is changed.
        options: options of the defense.

    Returns:
        The same recipe.

    Reference: de Jorge et al., "Make Some Noise" (2022), section 5.
    """
    config.defense.name = "n_fgsm"
    config.defense.options = ConfigDict(options)
    config.optimizer.schedule.kind = "one_cycle"
    config.optimizer.schedule.boundaries = ()
    config.optimizer.schedule.peak = 0.5
    config.single_step_check.images = 256
    return config


def normalize(config: ConfigDict, listed: Iterable[AttackLike] = ()) -> ConfigDict:
    """Splits the lists that a shell passes as text, such as `pgd,fgsm` and `0.1,8/255`.

    Args:
        config: the recipe, which is changed.
        listed: the attacks of the recipe before they were changed; an attack that is given by its
            name takes its options there.

    Returns:
        The same recipe.

    Raises:
        ValueError: a radius or a boundary that is not a number, or an invalid attack.

    Example:
        >>> config = defaults()
        >>> config.evaluation.radii = ("0.1,1/4",)
        >>> normalize(config).evaluation.radii
        (0.1, 0.25)
    """
    evaluation, schedule = config.evaluation, config.optimizer.schedule
    if "members" in config.model.options:
        members = config.model.options.members
        # Text if the recipe's own model is not an ensemble.
        members = _flat((members,) if isinstance(members, str) else members)
        config.model.options.members = tuple(map(str, members))
    listed = tuple(listed)
    specs = []
    for item in _flat(evaluation.attacks):
        spec = attack_spec(item)
        if isinstance(item, str):
            spec["options"] = recipe_options(spec["name"], listed, spec["options"])
        specs.append(spec)
    evaluation.attacks = tuple(specs)
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
    """Reads a recipe from a file that `trainers.train` wrote.

    Args:
        path: a `recipe.json`, of this release or of 0.1.

    Returns:
        A recipe that can be changed.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a recipe.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no recipe at {path}.")
    try:
        return from_document(read_json(path))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a recipe that this release reads ({error}); expected a recipe.json "
            "that `python -m trainers.train` wrote."
        ) from error


def from_document(document: Mapping[str, Any]) -> ConfigDict:
    """The recipe in a JSON document.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the document is not a recipe.
    """
    dataset = {**document["dataset"]}
    dataset.pop("class_names", None)  # for exports only
    evaluation = read_evaluation(document.get("evaluation", {}))
    config = defaults()
    _fill(config, _tuples({**document, "dataset": dataset, "evaluation": evaluation}))
    options = config.defense.options
    is_former = "steps" in document.get("evaluation", {})  # of release 0.1
    has_price = {"gamma", "multiplier"} & set(options)
    if is_former and config.defense.name == "wrm" and not has_price:
        options.gamma = 1.3 / 2  # its default, in the units of the paper
    return config


def _fill(config: ConfigDict, values: dict[str, Any]) -> None:
    """Sets the fields of a recipe; raises for unknown ones, except in `options`."""
    for name, value in values.items():
        if isinstance(value, dict) and name != "options":
            _fill(config[name], value)
        else:
            config[name] = ConfigDict(value) if isinstance(value, dict) else value


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
