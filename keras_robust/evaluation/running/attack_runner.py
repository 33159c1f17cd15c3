"""Runs attacks on the images that a model still classifies correctly."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack, Round
from keras_robust.attacks.crafting.inputs import check_batch
from keras_robust.core import random
from keras_robust.core.classifier import as_forward, classifier_of
from keras_robust.core.kept_graphs import compiled_forward
from keras_robust.core.types import Ball, Forward, Images
from keras_robust.evaluation.rendering.wording import radius_text
from keras_robust.evaluation.results.parts import Curve, FooledImages
from keras_robust.evaluation.running.adversarial_images import (
    AdversarialImages,
    distance_limit,
    within_bounds,
)
from keras_robust.evaluation.running.batching import Data, Model, Progress, arrays, rows_in_batches
from keras_robust.evaluation.running.model_warnings import (
    chance_warnings,
    logits_warnings,
    range_warnings,
)
from keras_robust.evaluation.running.passes import CountedForward, check_budget
from keras_robust.evaluation.running.run_state import AttackRunState, StateFile
from keras_robust.evaluation.running.time_budget import TimeBudget
from keras_robust.threat_models.masks import mask_of

# Fraction of images by which chance and rounding may change an accuracy.
_CHANCE = 0.02

_Batch: TypeAlias = tuple[int, np.ndarray, int]  # its number, row indices, how many are real


class AttackRunner:
    """The data of an evaluation with a compiled model, on which attacks are run.

    Args:
        model, data, limit, seed, progress, resume_dir: as for `keras_robust.evaluation.evaluate`.
        budget: after its end no batch is started.
        ball: the threat model of the worst case; None if attacks in several balls are run.
        budget_per_image: the largest number of passes of one attack on one image, infinity to count
            them only; None counts nothing.

    Attributes:
        x, y: all images `[n, ...]` and labels `[n]`.
        clean_logits: `[n, classes]`.
        clean_predictions: `[n]`.
        correct: `[n]` bool, the images that are classified correctly.
        warnings: for the report.
        interrupted: where each attack stopped that ran out of time.
        skipped: names of what was not started for lack of time.

    Raises:
        ValueError: no data, or labels that are not classes of the model.
    """

    def __init__(
        self,
        model: Model,
        data: Data,
        limit: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        resume_dir: str | os.PathLike[str] | None = None,
        budget: TimeBudget | None = None,
        ball: Ball | None = None,
        budget_per_image: float | None = None,
    ):
        check_budget(budget_per_image)
        self.budget_per_image = budget_per_image
        self.resume_dir = resume_dir
        self.budget = budget or TimeBudget()
        self.model = classifier_of(model)
        self.x, self.y, self.batch_size = arrays(data, limit)
        if ball is not None:  # early, and images that lie a rounding out of bounds are clipped
            self.x = check_batch(self.x, self.y, None, ball.bounds, mask=mask_of(ball))[0].numpy()
        self.seed, self.progress = seed, progress or (lambda line: None)
        self.warnings: list[str] = []
        self.interrupted: list[str] = []
        self.skipped: list[str] = []
        self._forward = compiled_forward(self.model)
        self._counted: CountedForward | None = None
        if budget_per_image is not None:
            self._counted = CountedForward(as_forward(self.model), budget_per_image < math.inf)
        self._compiled: dict[Attack, Callable[..., Images]] = {}
        self._source_logits: dict[int, np.ndarray] = {}
        self.clean_logits = self.logits(self.x)
        self.warnings += logits_warnings(self.clean_logits)
        self.classes = self.clean_logits.shape[1]
        if not (self.y.min() >= 0 and self.y.max() < self.classes):
            raise ValueError(
                f"Labels range from {self.y.min()} to {self.y.max()}; expected 0 to "
                f"{self.classes - 1}, as the model has {self.classes} classes."
            )
        self.clean_predictions = self.clean_logits.argmax(1)
        self.correct = is_correct(self.clean_logits, self.y)
        self.warnings += chance_warnings(self.correct, self.classes)
        if ball is not None:
            self.warnings += range_warnings(self.model, ball.bounds)
        self._found = None if ball is None else AdversarialImages(ball, self.x, self.correct)
        self.progress(f"clean accuracy {self.correct.mean():.4f} on {len(self.x)} images")

    def logits(self, x: np.ndarray) -> np.ndarray:
        """The model's logits, `[n, classes]`."""
        return predict_logits(self._forward, x, self.batch_size)

    @property
    def found(self) -> AdversarialImages:
        """The adversarial images that any attack found, of which the worst case is computed."""
        if self._found is None:
            raise ValueError("This evaluation has no ball, so it has no worst case.")
        return self._found

    def log_warnings(self) -> None:
        """Passes the warnings to `progress`, for evaluations that have no report."""
        for warning in self.warnings:
            self.progress(f"warning: {warning}")

    @property
    def tolerance(self) -> float:
        """Difference of accuracies that chance explains: 2 % of the images, at least one image."""
        return max(_CHANCE, 1 / len(self.x)) + 1e-9

    def batches(self, count: int) -> Iterable[tuple[np.ndarray, int]]:
        """Row indices in batches of one size, the last one padded, with the number of real rows."""
        return rows_in_batches(count, self.batch_size)

    def run(
        self,
        name: str,
        attack: Attack,
        radius: float | None = None,
        alive: np.ndarray | None = None,
    ) -> AttackRunState:
        """Runs every round of an attack on the images that are still classified correctly.

        Resumes from a checkpoint if there is one, and stops early if the time budget expires.

        Args:
            name: name of the attack, for messages.
            attack: the attack.
            radius: radius of the ball, if not the attack's own.
            alive: `[n]` bool, the images to attack; default those classified correctly.

        Raises:
            ValueError: the attack left its ball, or was crafted on a model with other classes.
        """
        alive = self.correct if alive is None else alive
        rounds = attack.rounds(self.classes)
        run = AttackRunState(alive, self.x, [part.attack.name for part in rounds])
        actual = attack.ball.radius if radius is None else radius
        key = [name, attack, actual, self.seed, self.batch_size, alive, self.x, self.y]
        key += [] if self.budget_per_image is None else [self.budget_per_image]
        file = StateFile(self.resume_dir, (*key, self.clean_logits, *self.source_logits(rounds)))
        label = _label(name, radius)
        if file.restore(run) and not run.finished:
            self.progress(f"{label}: resumes in round {run.round + 1} of {len(rounds)}")
        for part in rounds[run.round :]:
            if not self._run_round(name, part, radius, run, file):
                self._interrupt(label, run, file)
                self._report(label, run, alive)
                return run
            run.end_round()
            if len(rounds) > 1:
                self.progress(
                    f"{label}: round {run.round} of {len(rounds)}, {part.attack.name}: "
                    f"accuracy {run.robust.mean():.4f}"
                )
        file.save(run, force=True)
        self.progress(f"{label}: accuracy {run.robust.mean():.4f} ({run.seconds:.1f} s)")
        self._report(label, run, alive)
        return run

    def _report(self, label: str, run: AttackRunState, alive: np.ndarray) -> None:
        """Counts the images that a run fooled in the worst case."""
        if self._found is not None:
            rows = np.flatnonzero(alive & ~run.robust)
            self.found.report(label, rows, run.images[rows])

    def count(self, fooled: FooledImages) -> None:
        """Counts images that another evaluation fooled, where they are images of this one.

        Their predictions are computed again, by the model of this evaluation.
        """
        by_content = {image.tobytes(): row for row, image in enumerate(self.x)}
        pairs = [
            (by_content[image.tobytes()], number)
            for number, image in enumerate(fooled.clean.astype(self.x.dtype))
            if image.tobytes() in by_content
        ]
        if not pairs:
            return
        rows, numbers = (np.array(part) for part in zip(*pairs, strict=True))
        images = fooled.adversarial[numbers].astype(self.x.dtype)
        wrong = ~is_correct(self.logits(images), self.y[rows])
        self.found.report(fooled.name, rows[wrong], images[wrong])

    def _interrupt(self, label: str, run: AttackRunState, file: StateFile) -> None:
        """Saves a run that is out of time, and notes where it stopped."""
        if run.started:
            file.save(run, force=True)
            self.interrupted.append(f"{label} stopped {run.position(self.batch_size)}")
            self.progress(f"out of time: {self.interrupted[-1]}")
        else:
            self.skipped.append(label)
            self.progress(f"out of time: {label} is not started")

    def _run_round(
        self, name: str, part: Round, radius: float | None, run: AttackRunState, file: StateFile
    ) -> bool:
        """Attacks the remaining images from batch `run.batch` on; False if out of time."""
        remaining, start = run.remaining, self.budget.clock() - run.seconds
        for number, (rows, real) in enumerate(self.batches(len(remaining))):
            if number < run.batch:
                continue
            if self.budget.expired:
                return False
            # Only an attack on groups of images needs batches of one size.
            count = real if part.attack.task_kind is None else len(rows)
            self._attack(name, part, radius, run, (number, remaining[rows[:count]], real))
            run.batch, run.seconds = number + 1, self.budget.clock() - start
            file.save(run)
        return True

    def _attack(
        self, name: str, part: Round, radius: float | None, run: AttackRunState, batch: _Batch
    ) -> None:
        """Attacks one batch and writes the results into `run`."""
        number, rows, real = batch
        if part.attack not in self._compiled:
            self._compiled[part.attack] = part.attack.compiled(self._counted or self.model)
        if self._counted is not None:
            left = (self.budget_per_image or 0) - run.passes[rows].sum(axis=1).max()
            if left < 1:
                return
            self._counted.reset(left)
        x, y = tf.constant(self.x[rows]), tf.constant(self.y[rows])
        seed = random.fold_in(part.seed(self.seed), number)
        targets = part.targets(y, tf.constant(self.clean_logits[rows]))
        x_adv = self._compiled[part.attack](x, y, seed, radius, targets)
        check_within_threat_model(name, part.attack, radius, x, x_adv)
        logits = self._forward(x_adv)["logits"].numpy()[:real]
        rows = rows[:real]
        if self._counted is not None:
            run.passes[rows] += self._counted.counts()
        run.images[rows] = x_adv.numpy()[:real]
        run.robust[rows] = is_correct(logits, self.y[rows])

    def source_logits(self, rounds: Sequence[Round]) -> list[np.ndarray]:
        """Clean logits of the other models on which rounds are crafted.

        Raises:
            ValueError: such a model has another number of classes.
        """
        sources = {id(part.attack.source): part.attack.source for part in rounds}
        found = []
        for source in sources.values():
            if source is None:
                continue
            if id(source) not in self._source_logits:
                forward = compiled_forward(source)
                self._source_logits[id(source)] = predict_logits(forward, self.x, self.batch_size)
            found.append(self._source_logits[id(source)])
            if found[-1].shape[1] != self.classes:
                raise ValueError(
                    f"An attack is crafted on a model with {found[-1].shape[1]} classes; expected "
                    f"{self.classes}, as in the model attacked."
                )
        return found

    def run_over_radii(
        self, name: str, attack: Attack, radii: Sequence[float]
    ) -> tuple[float, ...]:
        """Runs an attack at increasing radii; returns those completed before time ran out."""
        robust = self.correct
        for number, radius in enumerate(radii):
            # An image fooled at a smaller radius is fooled at this one, whose ball contains it.
            run = self.run(name, attack, radius, robust)
            if not run.finished:
                self.skipped += [_label(name, larger) for larger in radii[number + 1 :]]
                return tuple(radii[:number])
            robust = run.robust
        return tuple(radii)

    def curve(self, name: str, radii: Sequence[float]) -> Curve:
        """Accuracy over radius, from the clean accuracy at 0 on, by everything that was found."""
        accuracies = [float(self.found.robust(radius).mean()) for radius in radii]
        return Curve(name, (0.0, *radii), (float(self.correct.mean()), *accuracies))


def _label(name: str, radius: float | None) -> str:
    """An attack's name, with the radius if it is not the attack's own."""
    return name if radius is None else f"{name} at radius {radius_text(radius)}"


def predict_logits(forward: Forward, x: np.ndarray, batch_size: int) -> np.ndarray:
    """Logits `[n, classes]` of a compiled model, computed in batches of one size."""
    batches = rows_in_batches(len(x), batch_size)
    return np.concatenate([forward(x[rows[:real]])["logits"].numpy() for rows, real in batches])


def check_within_threat_model(
    name: str, attack: Attack, radius: float | None, x: tf.Tensor, x_adv: tf.Tensor
) -> None:
    """Raises ValueError unless all images are inside the ball and its bounds."""
    limit = attack.ball.radius if radius is None else radius
    low, high = attack.ball.bounds
    distance = attack.ball.distance(x_adv, x).numpy().max()
    values = x_adv.numpy()
    # Written so that NaN is refused too.
    if not (distance <= distance_limit(limit) and within_bounds(values, attack.ball).all()):
        raise ValueError(
            f"{name} left its threat model: distance {distance:g} for radius {limit:g}, values "
            f"from {values.min():g} to {values.max():g} for [{low:g}, {high:g}]. "
            "This is a defect of the attack."
        )


def is_correct(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the prediction is the label; logits that are not finite count as misclassified."""
    return (logits.argmax(-1) == y) & np.isfinite(logits).all(-1)
