"""A trained run, opened: its recipe, its classifier, its data and its detector."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.types import Ball
from trainers import attack_settings, build
from trainers.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """A run to judge or to attack.

    Attributes:
        run: the directory.
        config: its recipe.
        checkpoint: `"best"` or `"last"`, whichever was read.
        model: the classifier.
        splits: the data.
    """

    run: RunDirectory
    config: ConfigDict
    checkpoint: str
    model: keras.Model
    splits: kr.data.Splits

    @functools.cached_property
    def detector(self) -> kr.detection.Detector | None:
        """A calibrated detector of the model; None where the run has none."""
        validation = self.splits.validation
        if validation is None or not self.run.detector_file.is_file():
            return None
        calibration = kr.detection.Calibration.load(self.run.detector_file)
        if self.checkpoint == self.run.checkpoint().stem:
            return kr.detection.Detector.from_calibration(self.model, calibration)
        # A threshold means nothing for another model than the one it was calibrated for.
        detector = kr.detection.Detector(self.model, scored_by=calibration.score)
        return detector.calibrate(validation, calibration.false_alarm_rate)

    def test_images(self, limit: int | None) -> tuple[tf.Tensor, tf.Tensor]:
        """The first test images and their labels; all of them for None."""
        batches = list(self.splits.test)
        x, y = (tf.concat(parts, axis=0) for parts in zip(*batches, strict=True))
        return x[:limit], y[:limit]

    def ball(self, norm: str | None = None, radius: float | None = None) -> Ball:
        """The threat model of the recipe, or one with another norm or radius.

        Raises:
            ValueError: another norm without a radius, which says nothing in another norm.
        """
        if norm is not None and norm != self.config.ball.norm and radius is None:
            raise ValueError(
                f"The run's radius is {self.config.ball.radius:g} in {self.config.ball.norm}; "
                f"give the radius in {norm} as well."
            )
        changed = self.config.copy_and_resolve_references()
        changed.ball.norm = norm or changed.ball.norm
        changed.ball.radius = changed.ball.radius if radius is None else radius
        return build.ball(changed)

    def attack(
        self,
        name: str,
        settings: Mapping[str, Any] | None = None,
        *,
        norm: str | None = None,
        radius: float | None = None,
        targeted: bool = False,
    ) -> kr.Attack:
        """An attack with the settings of the recipe's evaluation, or others.

        Args:
            name: of the attack.
            settings: those that differ from the recipe's: fields of `attack_settings.Settings`.
                The loss `"detector_aware"` is that of an attacker who knows the run's detector.
                With other steps, or in another ball, the recipe's step size does not hold: the
                default is then the attack's own.
            norm: of the ball.
            radius: of the ball.
            targeted: whether it climbs towards given classes.

        Returns:
            The attack.

        Raises:
            ValueError: a name or a number that cannot be.
        """
        given = {key: value for key, value in (settings or {}).items() if value is not None}
        base = attack_settings.from_recipe(self.config, name)
        if "steps" in given or norm is not None or radius is not None:
            base = dataclasses.replace(base, step_size=None)
        if given.get("loss") == attack_settings.DETECTOR_AWARE:
            given["loss"] = self._knowing()
        ball = self.ball(norm, radius)
        return attack_settings.attack(
            name, ball, dataclasses.replace(base, **given), targeted=targeted
        )

    def _knowing(self) -> kr.objectives.DetectorAware:
        if self.detector is None:
            raise ValueError(
                f"{self.run.path} has no calibrated detector to know of; expected one, as every "
                "training with validation images leaves. Choose another loss."
            )
        return kr.objectives.DetectorAware(self.detector.scored_by)


def open_run(
    path: str | os.PathLike[str], checkpoint: str | None = None, data_dir: str | None = None
) -> Opened:
    """Opens a run directory.

    Args:
        path: of a directory that `trainers.train` made.
        checkpoint: `"best"` or `"last"`; by default the best one if there is one.
        data_dir: where TensorFlow Datasets keeps the data, if not where it was in training.

    Returns:
        The run.

    Raises:
        FileNotFoundError: the run, its checkpoint or its data is not there.
        ValueError: its recipe cannot be read.
    """
    run = RunDirectory(path)
    config = run.recipe()
    if data_dir is not None:
        config.dataset.data_dir = data_dir
    file = run.checkpoint(checkpoint)
    splits = build.data(config)
    model = keras.saving.load_model(file, compile=False)
    return Opened(run, config, file.stem, model.classifier, splits)
