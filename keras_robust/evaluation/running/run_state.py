"""Checkpoints of partially completed evaluations."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.core.atomic_files import replacing
from keras_robust.core.bounded_files import open_arrays
from keras_robust.evaluation.results.parts import Part

SECONDS = 30.0  # between two checkpoints


class AttackRunState:
    """Progress and result of one attack: the images it fooled, and where it is.

    Args:
        alive: `[n]` bool, the images to attack.
        x: all images, `[n, ...]`.
        rounds: the name of the attack that runs in each round.

    Attributes:
        attacked: number of images to attack.
        robust: `[n]` bool, the images that were to be attacked and are not fooled yet.
        images: `[n, ...]`, the latest attempt on each image.
        seconds: wall-clock time so far.
        round: number of the next or current round.
        batch: number of its next batch.
        remaining: indices of the images that the current round attacks.
        passes: `[n, 2]`, forward and backward passes of each image, if they are counted.
        round_ends: for each completed round, the number of robust images and the seconds so far.
    """

    def __init__(self, alive: np.ndarray, x: np.ndarray, rounds: Sequence[str]):
        self.attacked = int(alive.sum())
        self.robust = alive.copy()
        self.images = x.copy()
        self.seconds = 0.0
        self.rounds = tuple(rounds)
        self.round, self.batch = 0, 0
        self.remaining = np.flatnonzero(alive)
        self.passes = np.zeros((len(x), 2), np.int64)
        self.round_ends: list[tuple[float, float]] = []

    @property
    def started(self) -> bool:
        """Whether at least one batch was attacked."""
        return self.round > 0 or self.batch > 0

    @property
    def finished(self) -> bool:
        """Whether all rounds are complete."""
        return self.round == len(self.rounds)

    def end_round(self) -> None:
        """Advances to the next round, on the images that are still robust."""
        self.round_ends.append((float(self.robust.sum()), self.seconds))
        self.round, self.batch, self.remaining = self.round + 1, 0, np.flatnonzero(self.robust)

    def parts(self) -> tuple[Part, ...]:
        """Results by part, where consecutive rounds of one name are one part.

        Empty for a single attack, and for a checkpoint that was written before parts existed.
        """
        ends = list(self.round_ends)
        if len(ends) != self.round or len(set(self.rounds)) < 2:
            return ()
        if self.batch:  # an unfinished part
            ends.append((float(self.robust.sum()), self.seconds))
        found, before = [], (float(self.attacked), 0.0)
        for name, group in itertools.groupby(zip(self.rounds, ends, strict=False), lambda p: p[0]):
            end = list(group)[-1][1]
            accuracy = end[0] / len(self.robust)
            found.append(Part(name, accuracy, int(before[0]), max(end[1] - before[1], 0.0)))
            before = end
        return tuple(found)

    def position(self, batch_size: int) -> str:
        """Where the attack stopped, as text."""
        done = min(self.batch * batch_size, len(self.remaining))
        images = f"{done:,} of {len(self.remaining):,} images"
        if len(self.rounds) == 1:
            return f"after {images}"
        name = self.rounds[self.round]
        return f"in round {self.round + 1} of {len(self.rounds)} ({name}), after {images}"


class StateFile:
    """The checkpoint file of an `AttackRunState`: one per attack, radius, model and data.

    Args:
        directory: where to write it; None for no checkpoints.
        key: everything that the result depends on: strings, numbers, arrays.
    """

    def __init__(self, directory: str | os.PathLike[str] | None, key: Iterable[Any]):
        self._path: Path | None = None
        self._written = time.monotonic()
        if directory is not None:
            digest = hashlib.sha256()
            for part in key:
                array = isinstance(part, np.ndarray)
                digest.update(part.tobytes() if array else repr(part).encode())
            self._path = Path(directory) / f"{digest.hexdigest()[:24]}.npz"

    def restore(self, run: AttackRunState) -> bool:
        """Sets a run to the checkpoint; False if there is none."""
        if self._path is None or not self._path.is_file():
            return False
        with open_arrays(self._path) as saved:
            run.robust, run.images, run.remaining = saved["robust"], saved["images"], saved["left"]
            run.round, run.batch = map(int, saved["next"])
            run.seconds = float(saved["seconds"])
            # Absent from checkpoints that were written before parts existed.
            ends = saved["ends"].tolist() if "ends" in saved else []
            run.round_ends = [tuple(end) for end in ends]
            run.passes = saved.get("passes", run.passes)
        return True

    def save(self, run: AttackRunState, force: bool = False) -> None:
        """Writes a checkpoint atomically, unless the last one is recent and `force` is False."""
        if self._path is None or not (force or time.monotonic() - self._written >= SECONDS):
            return
        with replacing(self._path) as draft, draft.open("wb") as file:
            np.savez(
                file,
                robust=run.robust,
                images=run.images,
                left=run.remaining,
                next=(run.round, run.batch),
                seconds=run.seconds,
                ends=np.reshape(run.round_ends, (-1, 2)),
                passes=run.passes,
            )
        self._written = time.monotonic()
