"""Attacks a run's test images with one attack, and keeps what came out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust.core.atomic_files import replacing
from keras_robust.evaluation.multi_task.crafted_batches import in_groups
from keras_robust.experiments.runs.loaded_run import LoadedRun

ARRAYS_FILE = "adversarial.npz"
ARRAYS = ("images", "labels", "adversarial", "clean_predictions", "predictions")


@dataclasses.dataclass(frozen=True, eq=False)
class AttackedTestSet:
    """Test images and what an attack made of them.

    Args:
        attack: what crafted them.
        images: `[n, height, width, channels]` float32 in [0, 1].
        labels: `[n]` int32, the true classes.
        adversarial: the perturbed images.
        clean_predictions: `[n]` int32, what the model says of the images.
        predictions: `[n]` int32, what it says of the perturbed ones.
        target: the class that was aimed at; None for any other than the label.
        goals: what was achieved of tasks; None where there are none.
    """

    attack: kr.Attack
    images: np.ndarray
    labels: np.ndarray
    adversarial: np.ndarray
    clean_predictions: np.ndarray
    predictions: np.ndarray
    target: int | None = None
    goals: kr.evaluation.TaskSuccess | None = None

    def summary(self) -> str:
        """What the attack achieved, in a few lines."""
        right = self.clean_predictions == self.labels
        fooled = right & (self.predictions != self.labels)
        distance = self.attack.ball.distance(self.adversarial, self.images).numpy().max()
        lines = [
            f"{self.attack.name}: of {len(right)} images the model got {right.sum()} right; "
            f"{fooled.sum()} of these are fooled ({fooled.sum() / max(right.sum(), 1):.1%}).",
            f"Largest distance {distance:.4g}, radius {float(self.attack.ball.radius):.4g}.",
        ]
        if self.target is not None:
            reached = (self.predictions == self.target).mean()
            lines.append(f"{reached:.1%} of the images are taken for class {self.target}.")
        if self.goals is not None:
            lines.append(
                f"{self.goals.together:.1%} achieve all {len(self.goals.names)} goals, "
                f"{self.goals.average:.1%} a goal on average."
            )
        return "\n".join(lines)

    def save(self, directory: Path, pictures: int = 0) -> None:
        """Writes the arrays, and the first images as PNG files of 8 bits per channel.

        Args:
            directory: made if it is not there.
            pictures: how many images to write as PNG, a clean and an adversarial file each.
        """
        arrays = {name: getattr(self, name) for name in ARRAYS}
        with replacing(directory / ARRAYS_FILE) as draft, draft.open("wb") as file:
            np.savez_compressed(file, **arrays)
        for row in range(min(pictures, len(self.labels))):
            label, said = self.labels[row], self.predictions[row]
            _save_png(directory / f"{row:04d}_label{label}_clean.png", self.images[row])
            _save_png(
                directory / f"{row:04d}_label{label}_adversarial_as{said}.png",
                self.adversarial[row],
            )


def attack_run(
    opened: LoadedRun,
    attack: kr.Attack,
    *,
    target: int | None = None,
    tasks: Any = None,
    limit: int | None = None,
    seed: int = 0,
) -> AttackedTestSet:
    """Attacks the test images of a run.

    Args:
        opened: the run.
        attack: the attack; a targeted one if there is a target.
        target: the class to reach; images of that class are left out.
        tasks: of `keras_robust.tasks`, to look which goals are achieved; default those of the
            attack, if it has any. Where they are images of a group, groups are drawn, and images
            that fill none left out; where a goal is another prediction than the clean one, images
            that the model gets wrong as well.
        limit: use only the first so many test images.
        seed: of all random starts.

    Returns:
        The images, before and after.

    Raises:
        ValueError: no test images are left, the target is no class, or the model has no members
            that tasks ask for.
    """
    x, y = _images(opened, target, limit)
    if tasks is None:
        tasks = attack.task_kind
    size = min(opened.config.dataset.batch_size, len(y))
    x, y, size = in_groups(opened.model, x, y, size, attack, tasks, seed)
    arrays = dict(zip(ARRAYS, _attacked(opened, attack, x, y, size, target, seed), strict=True))
    goals = None
    if tasks is not None:
        goals = kr.evaluation.success_rates(
            opened.model, x, arrays["adversarial"], y, attack, tasks=tasks, batch=size, seed=seed
        )
    return AttackedTestSet(attack, **arrays, target=target, goals=goals)


def _images(
    opened: LoadedRun, target: int | None, limit: int | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """The test images to attack, and their labels."""
    x, y = opened.test_images(limit)
    if target is not None:
        if not 0 <= target < opened.splits.info.classes:
            raise ValueError(
                f"The target is {target}; expected a class from 0 to "
                f"{opened.splits.info.classes - 1}."
            )
        x, y = x[y != target], y[y != target]
    if not len(y):
        raise ValueError("No test images are left to attack; expected a limit of at least 1.")
    return x, y


def _attacked(
    opened: LoadedRun,
    attack: kr.Attack,
    x: np.ndarray,
    y: np.ndarray,
    size: int,
    target: int | None,
    seed: int,
) -> list[np.ndarray]:
    """The arrays of `ARRAYS`, crafted in batches of that size."""
    run = attack.compiled(opened.model)
    predict = tf.function(
        lambda x: tf.argmax(opened.model(x, training=False)["logits"], 1, tf.int32),
        reduce_retracing=True,
    )
    parts = []
    for number, start in enumerate(range(0, len(y), size)):
        images, labels = x[start : start + size], y[start : start + size]
        targets = None if target is None else tf.fill(labels.shape, target)
        adversarial = run(images, labels, seed=(seed, number), targets=targets)
        parts.append((images, labels, adversarial, predict(images), predict(adversarial)))
    return [np.concatenate([np.asarray(part) for part in column])
            for column in zip(*parts, strict=True)]  # fmt: skip


def _save_png(path: Path, image: np.ndarray) -> None:
    pixels = np.round(image * 255).astype(np.uint8)
    with replacing(path) as draft:
        draft.write_bytes(tf.io.encode_png(pixels).numpy())
