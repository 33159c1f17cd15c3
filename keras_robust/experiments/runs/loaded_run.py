"""A trained run: its recipe, its classifier, its data and its detector."""

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
from keras_robust.core.classifier import classifier_of
from keras_robust.core.types import Ball
from keras_robust.experiments.recipes import attack_options, build
from keras_robust.experiments.runs.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedRun:
    """A run to judge, attack or export.

    Attributes:
        run: the directory.
        config: its recipe.
        checkpoint: `"best"` or `"last"`, whichever was read.
        model: the classifier.
    """

    run: RunDirectory
    config: ConfigDict
    checkpoint: str
    model: keras.Model

    @functools.cached_property
    def splits(self) -> kr.data.Splits:
        """The data.

        Raises:
            FileNotFoundError: the data set is not on this machine.
        """
        return build.data(self.config)

    @functools.cached_property
    def detector(self) -> kr.detection.Detector | None:
        """A calibrated detector of the model; None where the run has none.

        The run's threshold is of its best checkpoint, or of the last one if there is no best. For
        another checkpoint the detector is calibrated anew on the validation images.

        Raises:
            FileNotFoundError: another checkpoint, and the data set is not on this machine.
            ValueError: the calibration cannot be read.
        """
        if not self.run.detector_file.is_file():
            return None
        calibration = kr.detection.Calibration.load(self.run.detector_file)
        if self.checkpoint == self.run.checkpoint().stem:
            return kr.detection.Detector.from_calibration(self.model, calibration)
        # A threshold means nothing for another model than the one it was calibrated for.
        detector = kr.detection.Detector(self.model, scored_by=calibration.score)
        return detector.calibrate(self.validation, calibration.false_alarm_rate)

    @property
    def validation(self) -> tf.data.Dataset:
        """The validation images, on which the model was not trained.

        Raises:
            FileNotFoundError: the data set is not on this machine.
            ValueError: the run held no images out.
        """
        if self.splits.validation is None:
            raise ValueError(
                f"{self.run.path} was trained without validation images, and a threshold needs "
                "images that the model was not trained on; expected dataset.validation above 0."
            )
        return self.splits.validation

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
        base = attack_options.from_recipe(self.config, name)
        if "steps" in given or norm is not None or radius is not None:
            base = dataclasses.replace(base, step_size=None)
        if given.get("loss") == attack_options.DETECTOR_AWARE:
            given["loss"] = self._knowing()
        ball = self.ball(norm, radius)
        return attack_options.attack(
            name, ball, dataclasses.replace(base, **given), targeted=targeted
        )

    def _knowing(self) -> kr.objectives.AdaptiveObjective:
        if self.detector is None:
            raise ValueError(
                f"{self.run.path} has no calibrated detector to know of; expected one, as every "
                "training with validation images leaves. Choose another loss."
            )
        return kr.objectives.AdaptiveObjective(self.detector.scored_by)


def load_run(
    path: str | os.PathLike[str],
    checkpoint: str | None = None,
    data_dir: str | None = None,
    *,
    read_data: bool = True,
) -> LoadedRun:
    """Loads a run directory.

    Args:
        path: of a directory that `trainers.train` made.
        checkpoint: `"best"` or `"last"`; by default the best one if there is one.
        data_dir: where TensorFlow Datasets keeps the data, if not where it was in training.
        read_data: read the data now; if False, at the first use of `splits`.

    Raises:
        FileNotFoundError: the run, its checkpoint or its data is not there.
        ValueError: its recipe cannot be read.
    """
    run = RunDirectory(path)
    config = run.recipe()
    if data_dir is not None:
        config.dataset.data_dir = data_dir
    file = run.checkpoint(checkpoint)
    model = keras.saving.load_model(file, compile=False)
    loaded = LoadedRun(run, config, file.stem, classifier_of(model))
    if read_data:
        loaded.splits  # noqa: B018
    return loaded
