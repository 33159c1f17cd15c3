"""From a recipe to its parts: data, classifier, robust model, optimizer."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import tensorflow as tf
from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.core.types import Ball
from keras_robust.core.validation import lookup
from keras_robust.experiments.flags.lookup import check_options
from keras_robust.experiments.recipes import attack_options, defense_options
from keras_robust.experiments.recipes.schema import ENSEMBLES
from keras_robust.losses import uncertainty as scores
from keras_robust.models.registry import architecture

BALLS: dict[str, Any] = {"linf": kr.LinfBall, "l2": kr.L2Ball, "l1": kr.L1Ball}
OPTIMIZERS: dict[str, type[keras.optimizers.Optimizer]] = {
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "rmsprop": keras.optimizers.RMSprop,
}
SCHEDULES = ("constant", "step", "cosine")
_OF_ENSEMBLES = {name for name, _ in ENSEMBLES.values()}
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


def check(config: ConfigDict) -> None:
    """Refuses names and numbers of a recipe that cannot be, before any data is read.

    Args:
        config: the recipe.

    Raises:
        ValueError: naming the field, what it holds and what it may hold.
    """
    for name, least in (("epochs", 1), ("steps_per_execution", 1)):
        if config[name] < least:
            raise ValueError(f"{name} is {config[name]}; expected a whole number >= {least}.")
    lookup("precision (mixed_precision)", config.mixed_precision, PRECISIONS)
    augmentation(config)
    _check_model(config.model.name, config.model.options)
    defense_options.resolved(config.defense.name, config.defense.options)
    if config.defense.name in _OF_ENSEMBLES and config.model.name != "ensemble":
        raise ValueError(
            f"The defense {config.defense.name!r} trains ensembles, and model.name is "
            f"{config.model.name!r}; expected 'ensemble', with at least two names in "
            "model.options.members."
        )
    where = ball(config)
    for name in config.evaluation.attacks:
        attack_options.attack(name, where, attack_options.from_recipe(config, name))
    optimizer(config, steps_per_epoch=1)
    for name, value in config.checkpoint.items():
        if value < 0:
            raise ValueError(f"checkpoint.{name} is {value}; expected 0 for never, or more.")
    rate = config.detector.false_alarm_rate
    if not 0 < rate < 1:
        raise ValueError(f"detector.false_alarm_rate is {rate}; expected a share in (0, 1).")
    lookup("score (detector.score)", config.detector.score, scores.SCORES)


def _check_model(name: str, options: Any) -> None:
    check_options("model", name, architecture(name), 2, options)
    if name == "ensemble":
        for member in options.get("members", ()):
            _check_model(member, options.get("options", {}))


def check_score(config: ConfigDict, classifier: keras.Model) -> None:
    """Refuses a detector's score that the classifier has not, before it is trained for hours.

    Args:
        config: the recipe.
        classifier: what will be trained.

    Raises:
        ValueError: the score is of ensembles alone, and this is none.
    """
    outputs = {key: tf.zeros([1, *value.shape[1:]]) for key, value in classifier.output.items()}
    try:
        scores.get(config.detector.score).of(outputs)
    except ValueError as error:
        raise ValueError(f"detector.score is {config.detector.score!r}: {error}") from error


def augmentation(config: ConfigDict) -> Any:
    """The augmentation of training images, or None.

    Raises:
        ValueError: there is no such augmentation, or no such option of it.
    """
    settings = config.dataset.augment
    name = lookup("augmentation", settings.name, ("none", *defense_options.AUGMENTATIONS))
    if name == "none":
        return None
    factory = defense_options.AUGMENTATIONS[name]
    check_options("augmentation", name, factory, 0, settings.options)
    return factory(**settings.options)


def data(config: ConfigDict) -> kr.data.Splits:
    """Reads the data.

    Raises:
        ValueError: there is no such data set.
        FileNotFoundError: it is not there; the message is the command that fetches it.
    """
    settings = config.dataset
    held_out = settings.validation
    return kr.data.load(
        settings.name,
        settings.batch_size,
        settings.data_dir,
        validation=int(held_out) if held_out >= 1 else held_out,
        limit=settings.limit,
        seed=config.seed,
        augment=augmentation(config),
    )


def ball(config: ConfigDict) -> Ball:
    """The threat model.

    Raises:
        ValueError: there is no such norm, or the radius is negative.
    """
    name = lookup("norm (ball.norm)", config.ball.norm, BALLS)
    return BALLS[name](config.ball.radius)


def classifier(config: ConfigDict, info: kr.data.DatasetInfo) -> keras.Model:
    """A classifier with new weights, drawn from the recipe's seed.

    Args:
        config: the recipe.
        info: of the data: the shape of an image, and the number of classes.

    Returns:
        A functional model, in the precision of the recipe.

    Raises:
        ValueError: an option that the architecture refuses.
    """
    keras.utils.set_random_seed(config.seed)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.mixed_precision)
    try:
        settings = config.model
        model = kr.models.build(
            settings.name, info.image_shape, info.classes, **settings.options.to_dict()
        )
        return kr.models.adapt(model, features=settings.features or None)
    finally:
        keras.config.set_dtype_policy(before)  # the layers keep theirs


def robust_model(
    config: ConfigDict, info: kr.data.DatasetInfo, steps_per_epoch: int
) -> kr.RobustModel:
    """The model to train, compiled.

    Args:
        config: the recipe.
        info: of the data.
        steps_per_epoch: batches in an epoch.

    Returns:
        A model to `fit`.

    Raises:
        ValueError: an option that the model or the defense refuses.
    """
    settings = config.defense
    options = defense_options.resolved(settings.name, settings.options.to_dict())
    model = getattr(kr.defenses, settings.name)(
        classifier(config, info), ball(config), seed=config.seed, **options
    )
    rule: Any = optimizer(config, steps_per_epoch)
    if config.mixed_precision == "mixed_float16":
        # Keras would wrap it by itself only under a global policy.
        rule = keras.optimizers.LossScaleOptimizer(rule)
    model.compile(optimizer=rule, steps_per_execution=config.steps_per_execution)
    return model


def optimizer(config: ConfigDict, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer with its schedule.

    Args:
        config: the recipe.
        steps_per_epoch: batches in an epoch.

    Returns:
        A new optimizer.

    Raises:
        ValueError: an unknown name, or a number that the optimizer refuses.
    """
    settings = config.optimizer
    kind = OPTIMIZERS[lookup("optimizer", settings.name, OPTIMIZERS)]
    if not settings.learning_rate > 0:
        raise ValueError(f"optimizer.learning_rate is {settings.learning_rate}; expected > 0.")
    if not (settings.weight_decay >= 0 and 0 <= settings.ema < 1):
        raise ValueError(
            f"optimizer.weight_decay is {settings.weight_decay} and optimizer.ema is "
            f"{settings.ema}; expected >= 0, and a share in [0, 1)."
        )
    options: dict[str, Any] = {"weight_decay": settings.weight_decay or None}
    if settings.ema:
        options |= {"use_ema": True, "ema_momentum": settings.ema}
    if "momentum" in inspect.signature(kind).parameters:
        options["momentum"] = settings.momentum
    elif settings.momentum:
        raise ValueError(f"optimizer.momentum is {settings.momentum}; {settings.name} takes none.")
    return kind(learning_rate=_learning_rate(config, steps_per_epoch), **options)


def _learning_rate(config: ConfigDict, steps_per_epoch: int) -> Any:
    rate, schedule = config.optimizer.learning_rate, config.optimizer.schedule
    kind = lookup("schedule (optimizer.schedule.kind)", schedule.kind, SCHEDULES)
    boundaries = schedule.boundaries
    if kind == "cosine":
        return keras.optimizers.schedules.CosineDecay(rate, config.epochs * steps_per_epoch)
    if kind == "constant" or not boundaries:
        return rate
    if list(boundaries) != sorted(set(boundaries)) or boundaries[0] <= 0:
        raise ValueError(
            f"optimizer.schedule.boundaries is {boundaries}; expected increasing epochs > 0."
        )
    # Keras still gives the old rate at the boundary itself, which is a step's number from 0.
    steps = [max(round(epoch * steps_per_epoch) - 1, 0) for epoch in boundaries]
    rates = [rate * schedule.factor**passed for passed in range(len(boundaries) + 1)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(steps, rates)
