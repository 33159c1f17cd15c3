"""The bench of an evaluation: runs attacks on images that are still classified rightly."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack, Round
from keras_robust.core.classifier import as_forward, classifier_of
from keras_robust.evaluation.batching import arrays, rows_in_batches
from keras_robust.evaluation.rendering.wording import radius_text
from keras_robust.evaluation.results import Curve
from keras_robust.evaluation.run_state import AttackRunState, StateFile
from keras_robust.evaluation.time_budget import TimeBudget

# Projections are computed in float32: a pixel may miss the ball by a rounding, not by more.
_TOLERANCE = 1e-4
# The share of real images from which a batch is filled up.
_FULL = 0.75
# A share of images that chance and rounding may move.
_FEW = 0.02


class AttackRunner:
    """The images of an evaluation, with a compiled model."""

    def __init__(
        self,
        model: Any,
        data: Any,
        limit: int | None,
        seed: int,
        progress: Callable[[str], None],
        keep: str | os.PathLike[str] | None = None,
        budget: TimeBudget | None = None,
    ):
        self.keep = keep
        self.budget = budget or TimeBudget()
        self.model = classifier_of(model)
        self.x, self.y, self.batch = arrays(data, limit)
        self.seed, self.progress = seed, progress
        self.warnings: list[str] = []
        # What there was no time for: where attacks stopped, and names of what was not begun.
        self.stopped: list[str] = []
        self.not_begun: list[str] = []
        self._forward = compiled_forward(self.model)
        self._compiled: dict[Attack, Callable] = {}
        self._sources: dict[int, np.ndarray] = {}
        self.clean = logits = self.logits(self.x)
        self._look_at(logits)
        self.classes = logits.shape[1]
        if not (self.y.min() >= 0 and self.y.max() < self.classes):
            raise ValueError(
                f"Labels run from {self.y.min()} to {self.y.max()}; expected 0 to "
                f"{self.classes - 1}, as the model has {self.classes} classes."
            )
        self.clean_predictions = logits.argmax(1)
        self.correct = is_correct(logits, self.y)
        progress(f"clean accuracy {self.correct.mean():.4f} on {len(self.x)} images")

    def logits(self, x: np.ndarray) -> np.ndarray:
        """The model's logits, `[n, classes]`."""
        return self._asked(self._forward, x)

    def _asked(self, forward: Callable, x: np.ndarray | None = None) -> np.ndarray:
        """The logits that a model has for images, by default all clean ones."""
        return logits_of(forward, self.x if x is None else x, self.batch)

    @property
    def few(self) -> float:
        """A share of images that decides nothing, as chance may move it: at least one image."""
        return max(_FEW, 1 / len(self.x)) + 1e-9

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
    ) -> AttackRunState:
        """Runs every round of an attack on the images that are still classified rightly.

        Nothing new is begun once the time budget is spent: what is there then is kept.

        Args:
            name: of the attack, for messages.
            attack: the attack.
            radius: attack at this radius instead of the attack's own.
            alive: `[n]` bool, the images to attack; default those the model classifies rightly.

        Returns:
            What is left, and whether it is finished.

        Raises:
            ValueError: the attack left its ball, or was crafted on a model of other classes.
        """
        alive = self.correct if alive is None else alive
        rounds = attack.rounds(self.classes)
        run = AttackRunState(alive, self.x, [part.attack.name for part in rounds])
        own = radius if radius is not None else attack.ball.radius
        about = (name, attack, own, self.seed, self.batch, alive, self.x, self.y, self.clean)
        record = StateFile(self.keep, (*about, *self.of_sources(rounds)))
        what = _at(name, radius)
        if record.restore(run) and not run.finished:
            self.progress(f"{what}: goes on in round {run.round + 1} of {len(rounds)}")
        for part in rounds[run.round :]:
            if not self._round(name, part, radius, run, record):
                self._out_of_time(what, run, record)
                return run
            run.end_round()
            if len(rounds) > 1:
                self.progress(
                    f"{what}: round {run.round} of {len(rounds)}, {part.attack.name}: "
                    f"accuracy {run.robust.mean():.4f}"
                )
        record.keep(run, now=True)
        self.progress(f"{what}: accuracy {run.robust.mean():.4f} ({run.seconds:.1f} s)")
        return run

    def _out_of_time(self, what: str, run: AttackRunState, record: StateFile) -> None:
        """Keeps what is there, and tells where it stands."""
        if run.begun:
            record.keep(run, now=True)
            self.stopped.append(f"{what} stopped {run.place(self.batch)}")
            self.progress(f"out of time: {self.stopped[-1]}")
        else:
            self.not_begun.append(what)
            self.progress(f"out of time: {what} is not begun")

    def _round(
        self, name: str, part: Round, radius: float | None, run: AttackRunState, record: StateFile
    ) -> bool:
        """Attacks what is left, from the first batch that was not done before; False: no time."""
        left, before = run.left, self.budget.clock() - run.seconds
        for number, (rows, real) in enumerate(self.batches(len(left))):
            if number < run.batch:
                continue
            if self.budget.spent:
                return False
            # Filled up, the last batch costs no trace, but at many steps the filling costs more.
            chosen = left[rows if real >= _FULL * len(rows) else rows[:real]]
            self._attack(name, part, radius, run, (number, chosen, real))
            run.batch, run.seconds = number + 1, self.budget.clock() - before
            record.keep(run)
        return True

    def _attack(
        self,
        name: str,
        part: Round,
        radius: float | None,
        run: AttackRunState,
        batch: tuple[int, np.ndarray, int],
    ) -> None:
        """Attacks one batch: its number, its images, and how many of them are real."""
        number, chosen, real = batch
        if part.attack not in self._compiled:
            self._compiled[part.attack] = part.attack.compiled(self.model)
        x, y = tf.constant(self.x[chosen]), tf.constant(self.y[chosen])
        seed = tf.random.experimental.stateless_fold_in(part.seed(self.seed), number)
        targets = part.targets(y, tf.constant(self.clean[chosen]))
        x_adv = self._compiled[part.attack](x, y, seed, radius, targets)
        check_within_threat_model(name, part.attack, radius, x, x_adv)
        logits = self._forward(x_adv)["logits"].numpy()[:real]
        chosen = chosen[:real]
        run.images[chosen] = x_adv.numpy()[:real]
        run.robust[chosen] = is_correct(logits, self.y[chosen])

    def of_sources(self, rounds: Sequence[Round]) -> list[np.ndarray]:
        """What models say of the clean images that attacks are crafted on instead of this one.

        Raises:
            ValueError: one of them has other classes.
        """
        sources = {id(part.attack.source): part.attack.source for part in rounds}
        found = []
        for source in sources.values():
            if source is None:
                continue
            if id(source) not in self._sources:
                self._sources[id(source)] = self._asked(compiled_forward(source))
            found.append(self._sources[id(source)])
            if found[-1].shape[1] != self.classes:
                raise ValueError(
                    f"An attack is crafted on a model of {found[-1].shape[1]} classes; expected "
                    f"{self.classes}, as the model attacked has."
                )
        return found

    def curve(self, name: str, attack: Attack, radii: Sequence[float]) -> Curve:
        """Accuracy over radius, beginning with the clean accuracy at 0, as far as there is time."""
        robust, points = self.correct, [(0.0, float(self.correct.mean()))]
        for number, radius in enumerate(radii):
            # An image fooled at a smaller radius is fooled at this one: the ball holds it too.
            run = self.run(name, attack, radius, robust)
            if not run.finished:
                self.not_begun += [_at(name, larger) for larger in radii[number + 1 :]]
                break
            robust = run.robust
            points.append((radius, float(robust.mean())))
        return Curve(name, *zip(*points, strict=True))


def _at(name: str, radius: float | None) -> str:
    """An attack's name, with the radius where that is not its own."""
    return name if radius is None else f"{name} at radius {radius_text(radius)}"


def compiled_forward(model: Any) -> Callable:
    """A model, or a function of images, as one graph."""
    return tf.function(as_forward(model), autograph=False, reduce_retracing=True)


def logits_of(forward: Callable, x: np.ndarray, size: int) -> np.ndarray:
    """What a compiled model says of images, `[n, classes]`, asked in batches of one size."""
    batches = rows_in_batches(len(x), size)
    return np.concatenate([forward(x[rows])["logits"].numpy()[:real] for rows, real in batches])


def check_within_threat_model(
    name: str, attack: Attack, radius: float | None, x: tf.Tensor, x_adv: tf.Tensor
) -> None:
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


def is_correct(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the prediction is the label; logits that are not finite predict nothing."""
    return (logits.argmax(-1) == y) & np.isfinite(logits).all(-1)
