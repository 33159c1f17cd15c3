"""Attacks a run's test images with one attack, and saves the results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.attacks.multi_task.trace import Trace
from keras_robust.core.atomic_files import replacing, write_json, write_text
from keras_robust.core.graphs import compiled
from keras_robust.evaluation.multi_task.crafted_batches import in_groups
from keras_robust.evaluation.multi_task.task_history import check_traceable, unpadded
from keras_robust.evaluation.rendering.markdown import markdown_table
from keras_robust.experiments.runs.loaded_run import LoadedRun

ARRAYS_FILE = "adversarial.npz"
ARRAYS = ("images", "labels", "adversarial", "clean_predictions", "predictions")


@dataclasses.dataclass(frozen=True, eq=False)
class AttackedTestSet:
    """Test images before and after an attack.

    Args:
        attack: the attack.
        images: `[n, height, width, channels]` float32 in [0, 1].
        labels: `[n]` int32, the true classes.
        adversarial: the perturbed images.
        clean_predictions: `[n]` int32, the classes predicted for the clean images.
        predictions: `[n]` int32, the classes predicted for the perturbed images.
        target: the target class; None for an untargeted attack.
        tasks: of `keras_robust.tasks`; None without tasks.
        success: success rates of the tasks; None without tasks.
        history: the tasks over the steps of the attack; None if not traced.
        gradients: the tasks' gradients at the end; None if not traced.
    """

    attack: kr.Attack
    images: np.ndarray
    labels: np.ndarray
    adversarial: np.ndarray
    clean_predictions: np.ndarray
    predictions: np.ndarray
    target: int | None = None
    tasks: kr.tasks.TaskKind | None = None
    success: kr.evaluation.TaskSuccess | None = None
    history: kr.evaluation.TaskHistory | None = None
    gradients: kr.evaluation.TaskGradients | None = None

    def summary(self) -> str:
        """The success of the attack in a few lines."""
        correct = self.clean_predictions == self.labels
        fooled = correct & (self.predictions != self.labels)
        distance = self.attack.ball.distance(self.adversarial, self.images).numpy().max()
        lines = [
            f"{self.attack.name}: of {len(correct)} images {correct.sum()} were classified "
            f"correctly; {fooled.sum()} of these are now misclassified "
            f"({fooled.sum() / max(correct.sum(), 1):.1%}).",
            f"Largest distance {distance:.4g}, radius {float(self.attack.ball.radius):.4g}.",
        ]
        if self.target is not None:
            reached = (self.predictions == self.target).mean()
            lines.append(f"{reached:.1%} of the images are classified as {self.target}.")
        if self.success is not None:
            lines.append(
                f"Success rate {self.success.all_tasks:.1%} on all {len(self.success.names)} tasks "
                f"at once, {self.success.average:.1%} on average."
            )
        return "\n".join(lines)

    def save(self, directory: Path, pictures: int = 0) -> None:
        """Writes the arrays, and the first images as PNG files of 8 bits per channel.

        Args:
            directory: created if it does not exist.
            pictures: number of images to write as PNG, a clean and an adversarial file each.
        """
        arrays = {name: getattr(self, name) for name in ARRAYS}
        with replacing(directory / ARRAYS_FILE) as draft, draft.open("wb") as file:
            np.savez_compressed(file, **arrays)
        for row in range(min(pictures, len(self.labels))):
            label, prediction = self.labels[row], self.predictions[row]
            _save_png(directory / f"{row:04d}_label{label}_clean.png", self.images[row])
            _save_png(
                directory / f"{row:04d}_label{label}_adversarial_as{prediction}.png",
                self.adversarial[row],
            )


def attack_run(
    run: LoadedRun,
    attack: kr.Attack,
    *,
    target: int | None = None,
    tasks: kr.tasks.TaskKind | None = None,
    success_criterion: str | None = None,
    population: str | None = None,
    trace: bool = False,
    limit: int | None = None,
    seed: int = 0,
) -> AttackedTestSet:
    """Attacks the test images of a run.

    Args:
        run: the run.
        attack: the attack; a targeted one if there is a target.
        target: the class to reach; images of that class are left out.
        tasks: of `keras_robust.tasks`, whose success rates to measure; default those of the attack.
            If images share a perturbation, groups are drawn, and the images that do not fill a
            group are left out.
        success_criterion, population: as for `keras_robust.evaluation.task_success`.
        trace: whether to record the steps of a multi-task attack.
        limit: number of test images, from the first one.
        seed: seed of the attack.

    Returns:
        The images, before and after.

    Raises:
        ValueError: no test images, an unknown target, or tasks that the model does not have.
    """
    x, y = _images(run, target, limit)
    if tasks is None:
        tasks = attack.task_kind
    size = min(run.config.dataset.batch_size, len(y))
    x, y, size = in_groups(
        run.model, x, y, size, attack, tasks, seed, success_criterion, population
    )
    traces: list[Trace] = []
    crafted = _attacked(run, attack, x, y, size, target, seed, traces if trace else None)
    arrays: dict[str, Any] = dict(zip(ARRAYS, crafted, strict=True))
    targets = None if target is None or not attack.takes_targets else np.full(len(y), target)
    found = AttackedTestSet(attack, **arrays, target=target, tasks=tasks)
    if tasks is None:
        return found
    about: dict[str, Any] = {"tasks": tasks, "batch_size": size, "seed": seed}
    success = kr.evaluation.success_rates(
        run.model,
        x,
        found.adversarial,
        y,
        attack,
        success_criterion=success_criterion,
        targets=targets,
        **about,
    )
    found = dataclasses.replace(found, success=success)
    if not traces:
        return found
    weights = np.concatenate([one.weights[-1] for one in traces], axis=1)
    return dataclasses.replace(
        found,
        history=kr.evaluation.TaskHistory.of(traces, success.names),
        gradients=kr.evaluation.task_gradients_at(
            run.model, found.adversarial, y, attack, weights=weights, **about
        ),
    )


def _images(run: LoadedRun, target: int | None, limit: int | None) -> tuple[tf.Tensor, tf.Tensor]:
    """The test images to attack, and their labels."""
    x, y = run.test_images(limit)
    if target is not None:
        classes = run.splits.info.classes
        if not 0 <= target < classes:
            raise ValueError(f"target is {target}; expected a class from 0 to {classes - 1}.")
        x, y = x[y != target], y[y != target]
    if not len(y):
        raise ValueError("No test images are left to attack; expected a limit of at least 1.")
    return x, y


def _attacked(
    run: LoadedRun,
    attack: kr.Attack,
    x: np.ndarray,
    y: np.ndarray,
    size: int,
    target: int | None,
    seed: int,
    traces: list[Trace] | None,
) -> list[np.ndarray]:
    """The arrays of `ARRAYS`, crafted in batches of `size` images; adds to `traces`, if any."""
    craft = attack.compiled(run.model) if traces is None else _traced(run.model, attack)
    predict = tf.function(
        lambda x: tf.argmax(run.model(x, training=False)["logits"], 1, tf.int32),
        reduce_retracing=True,
    )
    parts = []
    for number, start in enumerate(range(0, len(y), size)):
        images, labels = x[start : start + size], y[start : start + size]
        targets = None if target is None else tf.fill(labels.shape, target)
        adversarial = craft(images, labels, seed=(seed, number), targets=targets)
        if traces is not None:
            traces.append(unpadded(adversarial, len(labels), len(labels)))
            adversarial = adversarial.images
        parts.append((images, labels, adversarial, predict(images), predict(adversarial)))
    return [np.concatenate([np.asarray(part) for part in column])
            for column in zip(*parts, strict=True)]  # fmt: skip


def _traced(model: keras.Model, attack: kr.Attack) -> Callable[..., Trace]:
    """`(x, y, seed, targets) -> the trace of the attack`, compiled."""
    trace = check_traceable(attack)
    run = compiled(lambda x, y, seed, targets: trace(model, x, y, seed=seed, targets=targets))
    return lambda x, y, seed, targets: run(x, y, as_seed(seed), targets)


def write_task_success(
    directory: Path, name: str, attacked: Mapping[str, AttackedTestSet], command: str, seed: int
) -> None:
    """Writes success rates as `task_success.md` and `task_success.json`; nothing without tasks.

    Args:
        directory: the directory of the files.
        name: the name of the attack.
        attacked: the results by name, such as that of the solver.
        command: the command of the user.
        seed: seed of the attack.
    """
    success = {key: one.success for key, one in attacked.items() if one.success is not None}
    if not success:
        return
    groups = isinstance(next(iter(attacked.values())).tasks, kr.tasks.Universal)
    # A task of a universal perturbation is one of many images: its own rate is of little interest.
    table = kr.evaluation.success_table(success, per_task=not groups)
    points = next(iter(success.values())).num_points
    head = f"Success rates of {name} on {points:,} {'groups of images' if groups else 'images'}"
    text = f"{head}\n\n{markdown_table(table)}\n\nCommand: `{command}`\n"
    write_text(directory / "task_success.md", text)
    rows = [
        {"name": key, "attack": attacked[key].attack.name, "average": rates.average}
        | {"radius": float(attacked[key].attack.ball.radius), **dataclasses.asdict(rates)}
        for key, rates in success.items()
    ]
    document = {"command": command, "seed": seed, "attacks": rows}
    write_json(directory / "task_success.json", document)


def _save_png(path: Path, image: np.ndarray) -> None:
    pixels = np.round(image * 255).astype(np.uint8)
    with replacing(path) as draft:
        draft.write_bytes(tf.io.encode_png(pixels).numpy())
