"""A trained run: its recipe, classifier, data and detector."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf
from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.core.classifier import classifier_of
from keras_robust.core.types import Ball
from keras_robust.experiments.recipes import attack_options, build, detector_spec
from keras_robust.experiments.recipes.attack_spec import AttackLike, attack_spec, recipe_options
from keras_robust.experiments.runs.recipe_stamp import check_stamp
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.models.loading import load_model


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedRun:
    """A trained run, to evaluate, attack or export.

    Attributes:
        run: the run directory.
        config: its recipe.
        checkpoint: the checkpoint that was loaded, `"best"` or `"last"`.
        model: the classifier.
    """

    run: RunDirectory
    config: ConfigDict
    checkpoint: str
    model: keras.Model

    @property
    def title(self) -> str:
        """The directory and the checkpoint, for messages."""
        return f"{self.run.path}, {self.checkpoint} checkpoint"

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes; None in a recipe without them."""
        return self.run.class_names()

    @functools.cached_property
    def splits(self) -> kr.data.Splits:
        """The data.

        Raises:
            FileNotFoundError: the dataset is not on this machine.
        """
        return build.data(self.config, for_training=False)

    @functools.cached_property
    def detector(self) -> kr.detection.Detector | None:
        """A calibrated detector of the model; None if the run has none.

        The threshold of the run belongs to its best checkpoint, or to the last one if there is no
        best. For another checkpoint the detector is calibrated on the validation images.

        Raises:
            FileNotFoundError: another checkpoint, and the dataset is not on this machine.
            ValueError: the calibration cannot be read.
        """
        if not self.run.detector_file.is_file():
            return None
        calibration = kr.detection.Calibration.load(self.run.detector_file)
        detector = self._detector(calibration)
        if self.checkpoint == self.run.checkpoint().stem:
            return detector
        # A threshold is valid only for the model that it was calibrated for.
        rate = calibration.false_alarm_rate
        return detector_spec.fitted(detector, self.splits.train, self.validation, rate)

    def _detector(self, calibration: kr.detection.Calibration) -> kr.detection.Detector:
        """The detector of the calibrated checkpoint, around the loaded one."""
        if calibration.score in kr.detection.scores.SCORES:
            return kr.detection.Detector.from_calibration(self.model, calibration)
        return kr.detection.load(self.run.statistics_file, self.model)

    @property
    def validation(self) -> tf.data.Dataset:
        """The validation images.

        Raises:
            FileNotFoundError: the dataset is not on this machine.
            ValueError: the run was trained without validation images.
        """
        if self.splits.validation is None:
            raise ValueError(
                f"{self.run.path} was trained without validation images, and a threshold needs "
                "images that the model was not trained on; expected dataset.validation above 0."
            )
        return self.splits.validation

    def test_images(self, limit: int | None) -> tuple[tf.Tensor, tf.Tensor]:
        """The first `limit` test images and their labels; all of them for None."""
        batches = list(self.splits.test)
        x, y = (tf.concat(parts, axis=0) for parts in zip(*batches, strict=True))
        return x[:limit], y[:limit]

    def ball(self, norm: str | None = None, radius: float | None = None) -> Ball:
        """The threat model of the recipe, or one with another norm or radius.

        The radius of a union, as in `linf=0.3+l2=2`, is a factor of its radii, by default 1.

        Raises:
            ValueError: another norm without a radius.
        """
        is_union = norm is not None and build.UNION in norm
        if is_union:
            radius = 1.0 if radius is None else radius
        elif norm is not None and norm != self.config.ball.norm and radius is None:
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
        attack: AttackLike,
        options: Mapping[str, Any] | None = None,
        *,
        norm: str | None = None,
        radius: float | None = None,
        targeted: bool = False,
    ) -> kr.Attack:
        """Builds an attack; the recipe's evaluation sets the options that are not given.

        Args:
            attack: its name, as in `"pgd"` or `"pgd:steps=40"`, or `{"name", "options"}`.
            options: further options. The loss `"detector_aware"` makes the attack adaptive: it
                also lowers the score of the run's detector. With other steps, or in another ball,
                the step size of the recipe does not apply.
            norm: the norm of the ball, if not the recipe's.
            radius: the radius of the ball, if not the recipe's.
            targeted: whether the attack moves toward given classes.

        Raises:
            ValueError: an unknown attack, an option that it does not take, or an invalid value.
        """
        spec = attack_spec(attack)
        given = {**(options or {}), **spec["options"]}
        listed = self.config.evaluation.attacks
        return self._build(spec["name"], listed, given, norm, radius, targeted)

    def recipe_attacks(
        self,
        options: Mapping[str, Any] | None = None,
        *,
        norm: str | None = None,
        radius: float | None = None,
    ) -> list[kr.Attack]:
        """Builds the attacks of the recipe's evaluation.

        Args:
            options: options that replace the recipe's, of the attacks that take them.
            norm: the norm of the ball, if not the recipe's.
            radius: the radius of the ball, if not the recipe's.

        Raises:
            ValueError: an option that none of the attacks takes, or an invalid value.
        """
        specs = [attack_spec(one) for one in self.config.evaluation.attacks]
        given = attack_options.taken([spec["name"] for spec in specs], options or {})
        return [
            self._build(spec["name"], [spec], given[spec["name"]], norm, radius) for spec in specs
        ]

    def _build(
        self,
        name: str,
        listed: Iterable[AttackLike],
        given: Mapping[str, Any],
        norm: str | None,
        radius: float | None,
        targeted: bool = False,
    ) -> kr.Attack:
        attack_options.check(name, given)
        options = recipe_options(name, listed, given, same_ball=norm is None and radius is None)
        if options.get("loss") == attack_options.DETECTOR_AWARE:
            options["loss"] = self._adaptive_objective()
        ball = self.ball(norm, radius)
        return attack_options.build_attack(name, ball, options, targeted=targeted)

    def _adaptive_objective(self) -> kr.objectives.AdaptiveObjective:
        if self.detector is None:
            raise ValueError(
                f"{self.run.path} has no calibrated detector, which the loss "
                f"{attack_options.DETECTOR_AWARE!r} needs. A training with validation images "
                "writes one; choose another loss."
            )
        return kr.objectives.AdaptiveObjective(self.detector.adaptive_score)


def load_run(
    path: str | os.PathLike[str],
    checkpoint: str | None = None,
    data_dir: str | None = None,
    *,
    read_data: bool = True,
) -> LoadedRun:
    """Loads a run directory.

    Args:
        path: a directory that `trainers.train` wrote.
        checkpoint: `"best"` or `"last"`; by default the best one if there is one.
        data_dir: the directory of TensorFlow Datasets, if not the one of the training.
        read_data: whether to read the data now, or at the first use of `splits`.

    Raises:
        FileNotFoundError: the run, its checkpoint or its dataset is missing.
        ValueError: its recipe cannot be read.
    """
    run = RunDirectory(path)
    config = run.recipe()
    if data_dir is not None:
        config.dataset.data_dir = data_dir
    file = run.checkpoint(checkpoint)
    check_stamp(file, config)
    model = load_model(file)
    loaded = LoadedRun(run, config, file.stem, classifier_of(model))
    if read_data:
        loaded.splits  # noqa: B018
    return loaded
