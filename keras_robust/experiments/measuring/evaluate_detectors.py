"""Compares detectors of a trained model under oblivious and adaptive attacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.orthogonal_pgd import orthogonal_pgd
from keras_robust.core.atomic_files import write_json, write_text
from keras_robust.core.types import Ball
from keras_robust.evaluation.detector_comparison import (
    AttackOn,
    DetectorComparison,
    compare_detectors,
)
from keras_robust.evaluation.running.batching import Progress, arrays
from keras_robust.experiments.recipes import detector_spec

# Every score that a single classifier has.
DETECTORS = (
    *("entropy", "least_confidence", "mahalanobis", "relative_mahalanobis", "nearest_neighbors"),
    *("lid:bank=1000", "feature_squeezing", "layer_inconsistency", "conformal:base=mahalanobis"),
)


@dataclasses.dataclass(frozen=True)
class DetectorPlan:
    """What to compare.

    Args:
        detectors: names of scores, with options as in `lid:k=10`.
        radius: of the Linf ball of PGD, AutoAttack, Square and the adaptive attacks.
        l2_radius: of the ball of the attack of Carlini and Wagner.
        steps: of PGD and of the adaptive attacks.
        queries: of Square.
        cw_steps: of the attack of Carlini and Wagner, for each of 3 constants.
        auto_attack_steps: of each part of AutoAttack.
        limit: number of test images.
        fit_limit: number of training images that detectors are fitted on.
        calibration_limit: number of validation images that thresholds are set on.
        other: dataset of other images, resized; None for none.
        seed: of attacks and noise.
    """

    detectors: Sequence[str] = DETECTORS
    radius: float = 0.3
    l2_radius: float = 2.0
    steps: int = 50
    queries: int = 500
    cw_steps: int = 60
    auto_attack_steps: int = 10
    limit: int | None = 200
    fit_limit: int | None = 5000
    calibration_limit: int | None = 2000
    other: str | None = None
    seed: int = 0

    def attacks(self) -> dict[str, kr.Attack]:
        """The oblivious attacks, by name."""
        ball, l2 = kr.LinfBall(self.radius), kr.L2Ball(self.l2_radius)
        cw = kr.attacks.carlini_wagner(
            l2, self.cw_steps, 0.05, initial_const=1.0, binary_search_steps=3
        )
        small = kr.attacks.auto_attack(
            ball, steps=self.auto_attack_steps, queries=self.queries // 5 or 1
        )
        return {
            f"PGD-{self.steps}": kr.attacks.pgd(ball, self.steps),
            f"AutoAttack, {self.auto_attack_steps} steps": small,
            f"C&W, L2 {self.l2_radius:g}": cw,
            f"Square, {self.queries} queries": kr.attacks.square(ball, self.queries),
        }

    def adaptive(self) -> dict[str, AttackOn]:
        """The adaptive attacks, by name."""
        ball: Ball = kr.LinfBall(self.radius)
        steps = self.steps

        def selective(score: Any) -> kr.Attack:
            return kr.attacks.pgd(ball, steps, loss=kr.objectives.AdaptiveObjective(score))

        return {
            f"selective PGD-{steps}": selective,
            f"orthogonal PGD-{steps}": lambda score: orthogonal_pgd(ball, score, steps),
        }


def evaluate_detectors(
    model: keras.Model,
    splits: kr.data.Splits,
    plan: DetectorPlan,
    data_dir: str | None = None,
    progress: Progress | None = None,
) -> DetectorComparison:
    """Fits, calibrates and compares the detectors of a plan.

    Args:
        model: a classifier.
        splits: its data: detectors are fitted on the training images, calibrated on the validation
            images, and compared on the test images.
        plan: what to compare.
        data_dir: the directory of TensorFlow Datasets, for other images.
        progress: called with lines of text.

    Raises:
        ValueError: an unknown score, or data without validation images.
    """
    if splits.validation is None:
        raise ValueError("Detectors are calibrated on validation images, of which there are none.")
    built = {text: detector_spec.build(text, model) for text in plan.detectors}
    # Read once: the training split is drawn and shuffled anew each time it is read.
    train = arrays(splits.train, plan.fit_limit)[:2]
    detectors = {name: detector.fit(train) for name, detector in built.items()}
    x, _, _ = arrays(splits.test, plan.limit)
    return compare_detectors(
        model,
        splits.test,
        detectors,
        plan.attacks(),
        calibration=arrays(splits.validation, plan.calibration_limit)[:2],
        adaptive=plan.adaptive(),
        other_images=other_images(x, plan.other, plan.seed, data_dir),
        limit=plan.limit,
        seed=plan.seed,
        progress=progress,
    )


def other_images(
    x: np.ndarray, dataset: str | None, seed: int, data_dir: str | None = None
) -> dict[str, np.ndarray]:
    """Corrupted images, and images of other distributions, as many as of `x` at most.

    Args:
        x: test images `[n, height, width, channels]` in [0, 1].
        dataset: a name for `keras_robust.data.load`, whose test images are resized; None for none.
        seed: of the noise.
        data_dir: the directory of TensorFlow Datasets.
    """
    random = np.random.default_rng(seed)
    noisy = np.clip(x + random.normal(scale=0.2, size=x.shape), 0, 1)
    found = {
        "Gaussian noise 0.2 (corruption)": noisy,
        "half contrast (corruption)": 0.25 + 0.5 * x,
        "uniform noise": random.uniform(size=x.shape),
        "inverted images": 1 - x,
    }
    if dataset is not None:
        batches = kr.data.load(dataset, data_dir=data_dir).test
        other = tf.image.resize(arrays(batches, len(x))[0], x.shape[1:3], antialias=True)
        channels = other.shape[-1]
        if channels != x.shape[-1]:
            other = tf.reduce_mean(other, axis=-1, keepdims=True)
            other = tf.tile(other, [1, 1, 1, x.shape[-1]])
        found[dataset] = np.clip(other.numpy(), 0, 1)
    return {name: images.astype(np.float32) for name, images in found.items()}


def write_comparison(
    directory: Path, comparison: DetectorComparison, about: Mapping[str, Any], command: str = ""
) -> None:
    """Writes `detectors.md` and `detectors.json`."""
    lines = [f"- {name}: {value}" for name, value in about.items()]
    lines.append(f"- clean accuracy: {100 * comparison.clean_accuracy:.1f} %")
    lines.append(f"- clean test images: {comparison.samples}")
    parts = ["# Detectors", "\n".join(lines), comparison.markdown()]
    if command:
        parts.append(f"```\n{command}\n```\n")
    write_text(directory / "detectors.md", "\n\n".join(parts))
    document = {"about": dict(about), "command": command, **comparison.to_dict()}
    write_json(directory / "detectors.json", document)
