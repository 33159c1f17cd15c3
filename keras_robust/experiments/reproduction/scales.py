"""Scales of a reproduction: the original settings, or less of everything for less time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from keras_robust.experiments.flags.recipe_flags import leaves
from keras_robust.experiments.recipes.attack_spec import attack_spec

# Attacks that cost many times those by a few gradients, with their defaults; they have a limit of
# images of their own.
SLOW: dict[str, dict[str, int]] = {
    "auto_attack": {"steps": 100, "queries": 5000},
    "boundary": {"steps": 1000},
    "brendel_bethge": {"steps": 200},
    "carlini_wagner": {"steps": 200, "binary_search_steps": 9},
    "hop_skip_jump": {"steps": 30, "n_directions": 100},
    "spsa": {"steps": 20, "n_directions": 32},
    "square": {"queries": 5000},
}
_COUNTS = ("steps", "n_directions", "binary_search_steps")
_NETWORK = {"variant": "mnist", "dropout": 0.0}  # small_cnn for images of any size
# Networks of an ensemble stay different from each other.
_SMALLEST: dict[str, tuple[str, dict[str, Any]]] = {
    "vgg16": ("mlp", {"hidden": (64, 64)}),
    "googlenet": ("mlp", {"hidden": (64,)}),
    "efficientnet_b0": ("mlp", {"hidden": (32,)}),
}
_SMALL = ("small_cnn", "mlp", "strided_cnn")
TRAINING_IMAGES = {"mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000, "digits": 1437,
                   "toy": 10_000}  # fmt: skip
_SHOWN = {
    "dataset.name": "data set",
    "dataset.limit": "training images",
    "dataset.batch_size": "batch size",
    "dataset.augment.name": "augmentation",
    "epochs": "epochs",
    "model.name": "network",
    "model.options.width": "width of the network",
    "model.options.depth": "depth of the network",
    "model.options.widen_factor": "width of the network",
    "model.options.members": "networks",
    "model.options.options.width": "width of the networks",
    "defense.options.steps": "crafting steps",
    "defense.options.radius_warmup": "steps of the warm-up",
    "defense.options.radius_schedule": "radius schedule",
    "optimizer.name": "optimizer",
    "optimizer.learning_rate": "learning rate",
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """Upper limits on what an experiment takes; None leaves the original value.

    Args:
        name: its name.
        about: who it is for.
        epochs: number of epochs.
        train_images: number of training images.
        crafting_steps: number of steps of the training attack, whose size grows in proportion.
        attack_steps: number of steps of a test attack, and of the directions of its estimates.
        queries: number of queries of a test attack.
        test_images: number of test images.
        slow_images: number of test images of the attacks in `SLOW`.
        width: the width of a network that has one, as a fraction of the original.
        adam: whether Adam replaces the optimizer, which needs many epochs.
        digits: whether scikit-learn's digits and the smallest network replace those of the
            original.
    """

    name: str
    about: str
    epochs: int | None = None
    train_images: int | None = None
    crafting_steps: int | None = None
    attack_steps: int | None = None
    queries: int | None = None
    test_images: int | None = None
    slow_images: int | None = None
    width: float | None = None
    adam: bool = False
    digits: bool = False

    def recipe(self, config: ConfigDict) -> ConfigDict:
        """A copy of a recipe at this scale."""
        config = config.copy_and_resolve_references()
        before = config.epochs * _images(config)
        with config.unlocked():
            if self.digits and config.dataset.name != "toy":
                config.dataset.name = "digits"
                config.dataset.augment = ConfigDict({"name": "none", "options": {}})
                config.dataset.batch_size = 64
            if self.digits:
                config.steps_per_execution = 1
            self._less_data(config)
            self._fewer_epochs(config)
            self._smaller_network(config)
            self._fewer_steps(config, config.epochs * _images(config) / before)
            if self.adam and config.optimizer.name != "adam":
                config.optimizer = ConfigDict(
                    {**config.optimizer.to_dict(), "name": "adam", "learning_rate": 1e-3,
                     "momentum": 0.0, "weight_decay": 0.0}
                )  # fmt: skip
                config.optimizer.schedule.kind = "constant"
        return config

    def _less_data(self, config: ConfigDict) -> None:
        images = _images(config)
        if self.train_images is not None and self.train_images < images:
            config.dataset.limit = self.train_images
            config.dataset.batch_size = min(config.dataset.batch_size, 64)
            if config.dataset.validation >= 1:  # a number of images
                config.dataset.validation = min(
                    config.dataset.validation, max(self.train_images // 10, 20)
                )

    def _fewer_epochs(self, config: ConfigDict) -> None:
        if self.epochs is not None and self.epochs < config.epochs:
            fraction = self.epochs / config.epochs
            schedule = config.optimizer.schedule
            schedule.boundaries = tuple(epoch * fraction for epoch in schedule.boundaries)
            schedule.warmup *= fraction
            config.epochs = self.epochs

    def _smaller_network(self, config: ConfigDict) -> None:
        model = config.model
        if model.name == "ensemble":
            self._smaller_members(model)
        elif self.digits and model.name not in _SMALL:
            name, options = _SMALLEST.get(model.name, ("small_cnn", _NETWORK))
            model.name, model.options, model.features = name, ConfigDict(options), ""
        elif self.digits and model.name == "small_cnn":
            model.options = ConfigDict(_NETWORK)
        elif self.width is not None and model.name not in _SMALL:
            name, options = _narrower(model.name, model.options.to_dict(), self.width)
            model.name, model.options = name, ConfigDict(options)

    def _smaller_members(self, model: ConfigDict) -> None:
        if self.digits:
            model.options.members = len(model.options.members) * ("small_cnn",)
            model.options.options = ConfigDict(_NETWORK)
        elif self.width is not None and not set(model.options.members) & {*_SMALL}:
            options = model.options.get("options", ConfigDict()).to_dict()
            model.options.options = ConfigDict({**options, "width": self.width})

    def _fewer_steps(self, config: ConfigDict, fraction: float) -> None:
        options = config.defense.options
        if "steps" in options:
            fewer = _capped(options.to_dict(), self.crafting_steps, config.ball.radius)
            config.defense.options = ConfigDict(fewer)
        for name in ("radius_warmup", "warmup_steps", "ramp_steps", "demote_ramp_steps"):
            if config.defense.options.get(name):
                config.defense.options[name] = max(round(options[name] * fraction), 1)
        if config.defense.options.get("radius_schedule"):
            config.defense.options.radius_schedule = _sooner(options.radius_schedule, fraction)

    def attack(self, text: str, radius: float | None = None) -> str:
        """An attack, as typed in a shell, with fewer steps.

        Example:
            >>> SCALES["minutes"].attack("pgd:steps=200:step_size=0.01", 0.3)
            'pgd:steps=5:step_size=0.15'
        """
        spec = attack_spec(text)
        options = dict(spec["options"])
        if self.attack_steps is not None:
            options = _capped({**SLOW.get(spec["name"], {}), **options}, self.attack_steps, radius)
        if self.queries is not None and "queries" in options:
            options["queries"] = min(options["queries"], self.queries)
        return ":".join([spec["name"], *(f"{key}={value}" for key, value in options.items())])

    def images(self, attack: str | None, limit: int | None) -> int | None:
        """The number of test images for an attack; None for all."""
        slow = attack is not None and attack_spec(attack)["name"] in SLOW
        given = [limit, self.slow_images if slow else self.test_images]
        return min((one for one in given if one is not None), default=None)


def _images(config: ConfigDict) -> int:
    """The number of training images of a recipe."""
    every = TRAINING_IMAGES.get(config.dataset.name, 50_000)
    return every if config.dataset.limit is None else min(config.dataset.limit, every)


def _capped(options: dict[str, Any], most: int | None, radius: float | None) -> dict[str, Any]:
    """Fewer steps, each as much longer, but of at most 2.5 radii together."""
    options = dict(options)
    steps, size = options.get("steps"), options.get("step_size")
    for name in _COUNTS:
        if most is not None and name in options:
            options[name] = min(options[name], most)
    if most is not None and steps is not None and size is not None and steps > most:
        grown = size * steps / most
        if radius:
            grown = max(size, min(grown, 2.5 * radius / most))
        options["step_size"] = grown
    return options


def _sooner(text: str, fraction: float) -> str:
    """A radius schedule whose steps are a fraction of the original ones."""
    name, *given = text.split(":")
    parts = [one.partition("=")[::2] for one in given]
    return ":".join(
        [name, *(f"{key}={max(round(int(value) * fraction), 1)}" if key in ("steps", "delay")
                 else f"{key}={value}" for key, value in parts)]
    )  # fmt: skip


def _narrower(name: str, options: dict[str, Any], width: float) -> tuple[str, dict[str, Any]]:
    if name == "wrn_34_10":
        return "wide_resnet", {**options, "depth": 16, "widen_factor": 1}
    if name == "wide_resnet":
        depth, widen = options.get("depth", 34), options.get("widen_factor", 10)
        fewer = {"depth": min(depth, 16), "widen_factor": max(round(width * widen), 1)}
        return name, {**options, **fewer}
    return name, {**options, "width": width * options.get("width", 1.0)}


SCALES = {
    one.name: one
    for one in (
        Scale("thesis", "the thesis's settings; days on a GPU"),
        Scale("day", "for one GPU: the thesis's networks and data, fewer epochs", epochs=20,
              slow_images=500, test_images=2000),
        Scale("hour", "for a few CPU cores: narrow networks, few images and epochs", epochs=4,
              train_images=10_000, crafting_steps=5, attack_steps=40, queries=1000, test_images=500,
              slow_images=50, width=0.25, adam=True),
        Scale("minutes", "checks that everything runs; its numbers say nothing", epochs=2,
              train_images=400, crafting_steps=2, attack_steps=5, queries=5, test_images=32,
              slow_images=8, adam=True, digits=True),
    )
}  # fmt: skip


def short(attack: str) -> str:
    """An attack as text, with numbers of four digits.

    Example:
        >>> short("pgd:steps=20:step_size=2/255")
        'pgd:steps=20:step_size=0.007843'
    """
    spec = attack_spec(attack)
    options = (
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in spec["options"].items()
    )
    return ":".join([spec["name"], *options])


def differences(pairs: Iterable[tuple[ConfigDict, ConfigDict]]) -> list[str]:
    """What a scale changed in recipes, a line for each field.

    Args:
        pairs: recipes before and after.

    Example:
        >>> from keras_robust.experiments.recipes.schema import defaults
        >>> differences([(defaults(), SCALES["minutes"].recipe(defaults()))])[:2]
        ['training images: all to 400', 'batch size: 128 to 64']
    """
    found: dict[str, dict[tuple[str, str], None]] = {}
    for before, after in pairs:
        old, new = (_fields(config) for config in (before, after))
        for path, label in _SHOWN.items():
            was, now = (_text(fields.get(path), path) for fields in (old, new))
            if was != now and now != "-":
                was = "full" if was == "-" else was
                found.setdefault(label, {})[was, now] = None
    return [
        f"{label}: {', '.join(f'{was} to {now}' for was, now in changes)}"
        for label, changes in found.items()
    ]


def _fields(config: ConfigDict) -> Mapping[str, Any]:
    return leaves(config.to_dict())


def _text(value: Any, path: str) -> str:
    if value is None:
        return "all" if path == "dataset.limit" else "-"
    if isinstance(value, tuple):
        return " + ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
