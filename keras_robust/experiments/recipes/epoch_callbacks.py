"""The callbacks of a recipe that measure validation images after each epoch."""

from __future__ import annotations

import keras
import tensorflow as tf
from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.training.catastrophic_overfitting import check_single_step


def epoch_callbacks(
    config: ConfigDict, model: kr.RobustModel, validation: tf.data.Dataset | None
) -> list[keras.callbacks.Callback]:
    """Builds the callbacks that a recipe switches on; each writes its measurements into the logs.

    Args:
        config: the recipe; `single_step_check` notices catastrophic overfitting,
            `latent_divergence` logs R-DIV.
        model: the model to train.
        validation: the validation images, if there are any.

    Raises:
        ValueError: no validation images, a check of a training with several steps, or an invalid
            number.
    """
    found: list[keras.callbacks.Callback] = []
    if _is_on("single_step_check", config, validation):
        check_single_step(model)
        settings = config.single_step_check.to_dict()
        found.append(kr.training.CatastrophicOverfitting(validation, **settings))
    if _is_on("latent_divergence", config, validation):
        settings = config.latent_divergence.to_dict()
        found.append(kr.evaluation.LatentDivergence(validation, seed=config.seed, **settings))
    return found


def _is_on(field: str, config: ConfigDict, validation: tf.data.Dataset | None) -> bool:
    """Whether a callback is switched on; raises if there is nothing to measure."""
    images = config[field].images
    if images and validation is None:
        raise ValueError(
            f"{field}.images is {images}, and there are no validation images to attack; expected "
            "0, or a larger dataset.validation."
        )
    return bool(images)
