"""What an interrupted evaluation has come to, kept on disk so that it can go on."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.evaluation.results import Part

SECONDS = 30.0  # between two writings; what is lost at most


class AttackRunState:
    """What one attack left: which images it fooled, the images themselves, and where it stands.

    Args:
        alive: `[n]` bool, the images to attack.
        x: all images.
        rounds: the name of what runs in each round.
    """

    def __init__(self, alive: np.ndarray, x: np.ndarray, rounds: Sequence[str]):
        self.attacked = int(alive.sum())
        self.robust = alive.copy()
        self.images = x.copy()
        self.seconds = 0.0
        self.rounds = tuple(rounds)
        self.round, self.batch = 0, 0  # the next ones
        self.left = np.flatnonzero(alive)  # what the present round works on
        self.ends: list[tuple[float, float]] = []  # of each round: images left, seconds so far

    @property
    def begun(self) -> bool:
        """Whether any of it was done."""
        return self.round > 0 or self.batch > 0

    @property
    def finished(self) -> bool:
        """Whether all rounds were done."""
        return self.round == len(self.rounds)

    def end_round(self) -> None:
        """Goes on to the next round, on the images that are left."""
        self.ends.append((float(self.robust.sum()), self.seconds))
        self.round, self.batch, self.left = self.round + 1, 0, np.flatnonzero(self.robust)

    def parts(self) -> tuple[Part, ...]:
        """What was left after each part; rounds in a row of one name are one. None of a single one.

        A record of before there were parts cannot tell them: none either.
        """
        ends = list(self.ends)
        if len(ends) != self.round or len(set(self.rounds)) < 2:
            return ()
        if self.batch:  # a part that is not at its end
            ends.append((float(self.robust.sum()), self.seconds))
        found, before = [], (float(self.attacked), 0.0)
        for name, group in itertools.groupby(zip(self.rounds, ends, strict=False), lambda p: p[0]):
            end = list(group)[-1][1]
            share = end[0] / len(self.robust)
            found.append(Part(name, share, int(before[0]), max(end[1] - before[1], 0.0)))
            before = end
        return tuple(found)

    def place(self, size: int) -> str:
        """Where it stands, for people.

        Args:
            size: of a batch.
        """
        done = f"{min(self.batch * size, len(self.left)):,} of its {len(self.left):,} images"
        if len(self.rounds) == 1:
            return f"after {done}"
        name = self.rounds[self.round]
        return f"in round {self.round + 1} of {len(self.rounds)} ({name}), after {done}"


class StateFile:
    """The file of a run: one for each attack, radius, model and data.

    Args:
        directory: where to keep it; None to keep nothing.
        parts: all that the result depends on: text, numbers, arrays.
    """

    def __init__(self, directory: str | os.PathLike[str] | None, parts: Iterable[Any]):
        self._path: Path | None = None
        self._written = time.monotonic()
        if directory is not None:
            digest = hashlib.sha256()
            for part in parts:
                array = isinstance(part, np.ndarray)
                digest.update(part.tobytes() if array else repr(part).encode())
            self._path = Path(directory) / f"{digest.hexdigest()[:24]}.npz"

    def restore(self, run: AttackRunState) -> bool:
        """Puts a run where it was; False where nothing was kept."""
        if self._path is None or not self._path.is_file():
            return False
        with np.load(self._path) as kept:
            run.robust, run.images, run.left = kept["robust"], kept["images"], kept["left"]
            run.round, run.batch = map(int, kept["next"])
            run.seconds = float(kept["seconds"])
            # Absent where it was kept before there were parts.
            run.ends = [tuple(end) for end in kept["ends"].tolist()] if "ends" in kept else []
        return True

    def keep(self, run: AttackRunState, now: bool = False) -> None:
        """Writes the run, if that was not done a moment ago; the file is whole or not there.

        Args:
            run: to be kept.
            now: write it in any case.
        """
        if self._path is None or not (now or time.monotonic() - self._written >= SECONDS):
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(f".{os.getpid()}.draft")
        try:
            with draft.open("wb") as file:
                np.savez(
                    file,
                    robust=run.robust,
                    images=run.images,
                    left=run.left,
                    next=(run.round, run.batch),
                    seconds=run.seconds,
                    ends=np.reshape(run.ends, (-1, 2)),
                )
            os.replace(draft, self._path)
        finally:
            draft.unlink(missing_ok=True)
        self._written = time.monotonic()
