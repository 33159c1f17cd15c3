"""The bench of an evaluation: runs attacks on images that are still classified rightly."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.attack import Attack, Round
from keras_robust.evaluation.batches import batches, classifier_of
from keras_robust.evaluation.records import Record, Run
from keras_robust.evaluation.results import Curve
from keras_robust.types import as_forward

# Projections are computed in float32: a pixel may miss the ball by a rounding, not by more.
_TOLERANCE = 1e-4
# The share of real images from which a batch is filled up.
_FULL = 0.75


class Bench:
    """The images of an evaluation, with a compiled model."""

    def __init__(
        self,
        model: Any,
        data: Any,
        limit: int | None,
        seed: int,
        progress: Callable[[str], None],
        keep: str | os.PathLike[str] | None = None,
    ):
        self.keep = keep
        self.model = classifier_of(model)
        self.x, self.y, self.batch = arrays(data, limit)
        self.seed, self.progress = seed, progress
        self.warnings: list[str] = []
        self._forward = tf.function(as_forward(self.model), autograph=False, reduce_retracing=True)
        self._compiled: dict[Attack, Callable] = {}
        self.clean = logits = self.logits(self.x)
        self._look_at(logits)
        self.classes = logits.shape[1]
        if not (self.y.min() >= 0 and self.y.max() < self.classes):
            raise ValueError(
                f"Labels run from {self.y.min()} to {self.y.max()}; expected 0 to "
                f"{self.classes - 1}, as the model has {self.classes} classes."
            )
        self.clean_predictions = logits.argmax(1)
        self.correct = right(logits, self.y)
        progress(f"clean accuracy {self.correct.mean():.4f} on {len(self.x)} images")

    def logits(self, x: np.ndarray) -> np.ndarray:
        """The model's logits, `[n, classes]`."""
        parts = [self._forward(x[rows])["logits"].numpy()[:n] for rows, n in self.batches(len(x))]
        return np.concatenate(parts)

    def batches(self, count: int) -> Iterable[tuple[np.ndarray, int]]:
        """Row numbers in batches of one size, the last filled up, with how many are real."""
        return rows_in_batches(count, self.batch)

    def _look_at(self, logits: np.ndarray) -> None:
        if not np.isfinite(logits).all():
            self.warnings.append(
                "The model's logits are not finite for some clean images; they count as mistakes."
            )
        elif (logits >= 0).all() and np.allclose(logits.sum(1), 1, atol=1e-3):
            self.warnings.append(
                "The model's logits look like probabilities (they sum to 1). A softmax in front of "
                "the loss flattens gradients, and attacks look weaker than they are."
            )

    def run(
        self,
        name: str,
        attack: Attack,
        radius: float | None = None,
        alive: np.ndarray | None = None,
    ) -> Run:
        """Runs every round of an attack on the images that are still classified rightly.

        Args:
            name: of the attack, for messages.
            attack: the attack.
            radius: attack at this radius instead of the attack's own.
            alive: `[n]` bool, the images to attack; default those the model classifies rightly.

        Returns:
            What is left.

        Raises:
            ValueError: the attack left its ball.
        """
        alive = self.correct if alive is None else alive
        run = Run(alive, self.x)
        own = radius if radius is not None else attack.ball.radius
        about = (name, attack, own, self.seed, self.batch, alive, self.x, self.y, self.clean)
        record = Record(self.keep, about)
        at = "" if radius is None else f" at radius {radius:.4g}"
        parts = attack.rounds(self.classes)
        if record.restore(run) and run.round < len(parts):
            self.progress(f"{name}{at}: goes on in round {run.round + 1} of {len(parts)}")
        begin = time.perf_counter() - run.seconds
        while run.round < len(parts):
            part = parts[run.round]
            for _ in self._round(name, part, radius, run):
                run.seconds = time.perf_counter() - begin
                record.keep(run)
            run.round, run.batch, run.left = run.round + 1, 0, np.flatnonzero(run.robust)
            run.seconds = time.perf_counter() - begin
            if len(parts) > 1:
                self.progress(
                    f"{name}{at}: round {run.round} of {len(parts)}, {part.attack.name}: "
                    f"accuracy {run.robust.mean():.4f}"
                )
        record.keep(run, now=True)
        self.progress(f"{name}{at}: accuracy {run.robust.mean():.4f} ({run.seconds:.1f} s)")
        return run

    def _round(self, name: str, part: Round, radius: float | None, run: Run) -> Iterator[None]:
        """Attacks what is left, batch by batch, from the first that was not done before."""
        left = run.left
        if part.attack not in self._compiled:
            self._compiled[part.attack] = part.attack.compiled(self.model)
        craft = self._compiled[part.attack]
        for number, (rows, real) in enumerate(self.batches(len(left))):
            if number < run.batch:
                continue
            # Filled up, the last batch costs no trace, but at many steps the filling costs more.
            chosen = left[rows if real >= _FULL * len(rows) else rows[:real]]
            x, y = tf.constant(self.x[chosen]), tf.constant(self.y[chosen])
            seed = tf.random.experimental.stateless_fold_in(part.seed(self.seed), number)
            x_adv = craft(x, y, seed, radius, part.targets(y, tf.constant(self.clean[chosen])))
            trust(name, part.attack, radius, x, x_adv)
            logits = self._forward(x_adv)["logits"].numpy()[:real]
            chosen = chosen[:real]
            run.images[chosen] = x_adv.numpy()[:real]
            run.robust[chosen] = right(logits, self.y[chosen])
            run.batch = number + 1
            yield

    def curve(self, name: str, attack: Attack, radii: Sequence[float]) -> Curve:
        """Accuracy over radius, beginning with the clean accuracy at 0."""
        robust, points = self.correct, [(0.0, float(self.correct.mean()))]
        for radius in radii:
            # An image fooled at a smaller radius is fooled at this one: the ball holds it too.
            robust = self.run(name, attack, radius, robust).robust
            points.append((radius, float(robust.mean())))
        return Curve(name, *zip(*points, strict=True))


def trust(name: str, attack: Attack, radius: float | None, x: tf.Tensor, x_adv: tf.Tensor) -> None:
    """Refuses images outside the threat model: a figure made with them would be worthless."""
    limit = attack.ball.radius if radius is None else radius
    low, high = attack.ball.bounds
    distance = attack.ball.distance(x_adv, x).numpy().max()
    values = x_adv.numpy()
    # Written so that NaN is refused too.
    if not (
        distance <= limit * (1 + _TOLERANCE) + 1e-6
        and low - 1e-6 <= values.min()
        and values.max() <= high + 1e-6
    ):
        raise ValueError(
            f"{name} left its threat model: distance {distance:g} for radius {limit:g}, values "
            f"from {values.min():g} to {values.max():g} for [{low:g}, {high:g}]. "
            "This is a defect of the attack."
        )


def rows_in_batches(count: int, size: int) -> Iterable[tuple[np.ndarray, int]]:
    """Row numbers in batches of one size, the last filled up, with how many are real."""
    for begin in range(0, count, size):
        rows = np.arange(begin, min(begin + size, count))
        yield np.pad(rows, (0, size - len(rows)), mode="edge"), len(rows)


def right(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the prediction is the label; logits that are not finite predict nothing."""
    return (logits.argmax(-1) == y) & np.isfinite(logits).all(-1)


def arrays(data: Any, limit: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """All images and labels, and the size of a batch."""
    parts = list(batches(data, limit))
    x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    return x, y.astype(np.int64), len(parts[0][0])
