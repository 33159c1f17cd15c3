"""Builds the parts of a recipe: data, classifier, robust model, optimizer."""

from __future__ import annotations

import inspect
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.core.bounded_files import open_arrays
from keras_robust.core.classifier import classifier_of, members_of
from keras_robust.core.types import Ball
from keras_robust.core.validation import check_integer, check_number, lookup
from keras_robust.experiments.flags.lookup import check_options, number
from keras_robust.experiments.recipes import attack_options, defense_options, detector_spec
from keras_robust.experiments.recipes.attack_spec import attack_spec
from keras_robust.experiments.recipes.schema import ENSEMBLES
from keras_robust.losses import uncertainty as scores
from keras_robust.models.adapting.trainable_parts import PARTS
from keras_robust.models.loading import load_model
from keras_robust.models.registry import architecture, member_options

BALLS: dict[str, Callable[[float], Ball]] = {
    "linf": kr.LinfBall,
    "l2": kr.L2Ball,
    "l1": kr.L1Ball,
    "l0": kr.L0Ball,
}
UNION = "="  # in the norm of a recipe: a union of balls, as in `linf=8/255+l2=0.5`
OPTIMIZERS: dict[str, type[keras.optimizers.Optimizer]] = {
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "rmsprop": keras.optimizers.RMSprop,
}
SCHEDULES = ("constant", "step", "cosine", "one_cycle")
_ENSEMBLE_DEFENSES = {name for name, _ in ENSEMBLES.values()}
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


def check(config: ConfigDict) -> None:
    """Raises unless names and numbers of a recipe are valid; reads no data.

    Raises:
        ValueError: an invalid field.
    """
    for name in ("epochs", "steps_per_execution"):
        check_integer(name, config[name], 1)
    lookup("precision (mixed_precision)", config.mixed_precision, PRECISIONS)
    augmentation(config)
    check_number("dataset.extra.proportion", config.dataset.extra.proportion, above=0, below=1)
    _check_model(config.model.name, config.model.options)
    lookup("part (model.trainable)", config.model.trainable or "all", PARTS)
    defense_options.resolved(config.defense.name, config.defense.options)
    if config.defense.name in _ENSEMBLE_DEFENSES and config.model.name != "ensemble":
        raise ValueError(
            f"The defense {config.defense.name!r} trains ensembles, and model.name is "
            f"{config.model.name!r}; expected 'ensemble', with at least two names in "
            "model.options.members."
        )
    detector_spec.check(config.detector.score, "score (detector.score)")
    _check_attacks(config)
    check_number("single_step_check.images", config.single_step_check.images)
    check_integer("latent_divergence.images", config.latent_divergence.images)
    check_integer("latent_divergence.every", config.latent_divergence.every, 1)
    optimizer(config, steps_per_epoch=1)
    for name, value in config.checkpoint.items():
        check_number(f"checkpoint.{name}", value)
    check_number("detector.false_alarm_rate", config.detector.false_alarm_rate, above=0, below=1)


def _check_attacks(config: ConfigDict) -> None:
    """Builds the attacks of the evaluation, which raises for invalid ones."""
    for one in config.evaluation.attacks:
        spec = attack_spec(one)
        options = spec["options"]
        if options.get("loss") == attack_options.DETECTOR_AWARE:
            # That of a fitted score needs a model; any score shows whether the attack takes one.
            options["loss"] = kr.objectives.AdaptiveObjective()
        attack_options.build_attack(spec["name"], ball(config), options)


def _check_model(name: str, options: Mapping[str, Any]) -> None:
    check_options("model", name, architecture(name), 2, options)
    if name == "ensemble":
        for member in options.get("members", ()):
            _check_model(member, member_options(member, options.get("options", {})))


def check_score(config: ConfigDict, classifier: keras.Model) -> None:
    """Raises unless the classifier has the detector's score.

    Args:
        config: the recipe.
        classifier: the model to train.

    Raises:
        ValueError: a score of ensembles, and the classifier is a single model; a score of layers
            that it does not expose; an invalid option.
    """
    detector = detector_spec.build(config.detector.score, classifier)
    if not isinstance(detector, kr.detection.FittedDetector):
        _check_outputs(config, classifier)


def _check_outputs(config: ConfigDict, classifier: keras.Model) -> None:
    outputs = {key: tf.zeros([1, *value.shape[1:]]) for key, value in classifier.output.items()}
    try:
        scores.get(config.detector.score).of(outputs)
    except ValueError as error:
        raise ValueError(f"detector.score is {config.detector.score!r}: {error}") from error


def augmentation(config: ConfigDict) -> kr.data.Augmentation | None:
    """The augmentation of training images, or None.

    Raises:
        ValueError: an unknown augmentation or option.
    """
    settings = config.dataset.augment
    name = lookup("augmentation", settings.name, ("none", *defense_options.AUGMENTATIONS))
    check_number("dataset.random_erasing", config.dataset.random_erasing, most=1)
    found: list[kr.data.Augmentation] = []
    if name != "none":
        factory = defense_options.AUGMENTATIONS[name]
        check_options("augmentation", name, factory, 0, settings.options)
        found.append(factory(**settings.options))
    if config.dataset.random_erasing:
        found.append(kr.data.random_erasing(config.dataset.random_erasing))
    return kr.data.chain(*found) if len(found) > 1 else next(iter(found), None)


def data(config: ConfigDict, *, for_training: bool = True) -> kr.data.Splits:
    """Reads the data.

    Args:
        config: the recipe.
        for_training: whether to read extra images too.

    Raises:
        ValueError: an unknown dataset.
        FileNotFoundError: the dataset is not on this machine; the message has the command that
            downloads it.
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
        extra=extra_images(config) if for_training else None,
    )


def extra_images(config: ConfigDict) -> kr.data.ExtraImages | None:
    """The further training images of a recipe, or None.

    Raises:
        ValueError: a file without images and labels, or an invalid value.
        FileNotFoundError: the file does not exist.
    """
    settings = config.dataset.extra
    if not settings.file:
        return None
    try:
        with open_arrays(settings.file) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"dataset.extra.file is {settings.file!r}; expected a .npz file with the arrays "
            f"'images' and 'labels' ({error})."
        ) from error
    return kr.data.extra_images(images, labels, settings.proportion)


def ball(config: ConfigDict) -> Ball:
    """The threat model: of one norm, or a union as in `linf=8/255+l2=0.5`.

    The radius of a union is a factor of all its radii.

    Raises:
        ValueError: an unknown norm, or a negative radius.

    Example:
        >>> from keras_robust.experiments.recipes.schema import defaults
        >>> config = defaults()
        >>> config.ball.norm, config.ball.radius = "linf=0.25+l2=1", 1.0
        >>> [one.radius for one in ball(config).balls]
        [0.25, 1.0]
    """
    norm, radius = config.ball.norm, config.ball.radius
    if UNION not in norm:
        return BALLS[lookup("norm (ball.norm)", norm, BALLS)](radius)
    parts = (part.partition(UNION) for part in norm.split("+"))
    return kr.UnionBall(
        tuple(
            BALLS[lookup("norm (ball.norm)", name, BALLS)](number("ball.norm", value))
            for name, _, value in parts
        ),
        radius,
    )


def classifier(config: ConfigDict, info: kr.data.DatasetInfo) -> keras.Model:
    """Builds a classifier with new weights, drawn from the recipe's seed, or with those of a file.

    Args:
        config: the recipe.
        info: the shape of an image and the number of classes.

    Returns:
        A functional model, in the precision of the recipe.

    Raises:
        ValueError: an invalid option of the architecture, or weights of another one.
        FileNotFoundError: there is no file of the weights (`model.weights`).
    """
    keras.utils.set_random_seed(config.seed)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.mixed_precision)
    try:
        settings = config.model
        model = kr.models.build(
            settings.name, info.image_shape, info.classes, **settings.options.to_dict()
        )
        model = kr.models.adapt(model, features=settings.features or None)
    finally:
        keras.config.set_dtype_policy(before)  # the layers keep theirs
    if settings.weights:
        _copy_weights(settings.weights.split(","), model)
    if settings.trainable:
        kr.models.set_trainable(model, settings.trainable)
    return model


def _copy_weights(files: Sequence[str], model: keras.Model) -> None:
    """Sets the weights of a classifier, or of all members of an ensemble, to those of files."""
    loaded = [classifier_of(load_model(file.strip())) for file in files]
    sources = [part for one in loaded for part in members_of(one) or (one,)]
    targets = members_of(model) or (model,)
    where = f"model.weights ({', '.join(files)})"
    if len(sources) != len(targets):
        raise ValueError(
            f"{where} has {len(sources)} networks; expected {len(targets)}, as in {model.name!r}."
        )
    for source, target in zip(sources, targets, strict=True):
        # Without the outputs of a training, such as the projection of contrastive terms.
        outputs = {name: source.output[name] for name in ("logits", "features")}
        values = keras.Model(source.inputs, outputs).get_weights()
        shapes = [[one.shape for one in values], [tuple(one.shape) for one in target.weights]]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{where} has weights of the shapes {shapes[0]}; expected those of "
                f"{target.name!r}, {shapes[1]}."
            )
        target.set_weights(values)


def robust_model(
    config: ConfigDict, info: kr.data.DatasetInfo, steps_per_epoch: int
) -> kr.RobustModel:
    """Builds and compiles the model to train.

    Args:
        config: the recipe.
        info: the shape of an image and the number of classes.
        steps_per_epoch: number of batches in an epoch.

    Raises:
        ValueError: an invalid option of the model or the defense.
        FileNotFoundError: there is no file of the helper (`defense.options.helper`).
    """
    settings = config.defense
    options = defense_options.resolved(settings.name, settings.options.to_dict())
    if isinstance(options.get("helper"), str):
        options["helper"] = load_model(options["helper"])
    model = getattr(kr.defenses, settings.name)(
        classifier(config, info), ball(config), seed=config.seed, **options
    )
    # Free adversarial training updates several times on each batch.
    rule = optimizer(config, steps_per_epoch * getattr(model, "replays", 1))
    if config.mixed_precision == "mixed_float16":
        # Keras wraps it by itself only under a global policy.
        rule = keras.optimizers.LossScaleOptimizer(rule)
    model.compile(
        optimizer=rule,
        steps_per_execution=config.steps_per_execution,
        jit_compile=config.jit_compile,
    )
    return model


def optimizer(config: ConfigDict, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Builds the optimizer with its schedule.

    Args:
        config: the recipe.
        steps_per_epoch: number of batches in an epoch.

    Raises:
        ValueError: an unknown name, or an invalid number.
    """
    settings = config.optimizer
    kind = OPTIMIZERS[lookup("optimizer", settings.name, OPTIMIZERS)]
    check_number("optimizer.learning_rate", settings.learning_rate, above=0)
    check_number("optimizer.weight_decay", settings.weight_decay)
    check_number("optimizer.ema", settings.ema, below=1)
    check_number("optimizer.global_clipnorm", settings.global_clipnorm)
    options: dict[str, Any] = {
        "weight_decay": settings.weight_decay or None,
        "global_clipnorm": settings.global_clipnorm or None,
    }
    if settings.ema:
        options |= {"use_ema": True, "ema_momentum": settings.ema}
    if "momentum" in inspect.signature(kind).parameters:
        options["momentum"] = settings.momentum
    elif settings.momentum:
        raise ValueError(
            f"optimizer.momentum is {settings.momentum}; {settings.name} has no momentum."
        )
    return kind(learning_rate=_learning_rate(config, steps_per_epoch), **options)


def _learning_rate(
    config: ConfigDict, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    rate, schedule = config.optimizer.learning_rate, config.optimizer.schedule
    kind = lookup("schedule (optimizer.schedule.kind)", schedule.kind, SCHEDULES)
    check_number("optimizer.schedule.warmup", schedule.warmup)
    check_number("optimizer.schedule.peak", schedule.peak, above=0, below=1)
    steps = config.epochs * steps_per_epoch
    if kind == "one_cycle":
        if schedule.warmup:
            raise ValueError(
                f"optimizer.schedule.warmup is {schedule.warmup:g}, but 'one_cycle' begins with a "
                "growing rate; expected 0. Set optimizer.schedule.peak instead."
            )
        return kr.training.OneCycle(rate, steps, schedule.peak)
    if kind == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    elif kind == "step" and schedule.boundaries:
        rate = _steps(config, steps_per_epoch)
    warmup = round(schedule.warmup * steps_per_epoch)
    return kr.training.WarmUp(rate, warmup) if warmup else rate


def _steps(
    config: ConfigDict, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    rate, schedule = config.optimizer.learning_rate, config.optimizer.schedule
    boundaries = schedule.boundaries
    if list(boundaries) != sorted(set(boundaries)) or boundaries[0] <= 0:
        raise ValueError(
            f"optimizer.schedule.boundaries is {boundaries}; expected increasing epochs > 0."
        )
    # Keras applies the old rate at the boundary itself; steps count from 0.
    steps = [max(round(epoch * steps_per_epoch) - 1, 0) for epoch in boundaries]
    rates = [rate * schedule.factor**passed for passed in range(len(boundaries) + 1)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(steps, rates)
