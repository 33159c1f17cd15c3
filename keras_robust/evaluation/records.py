"""What an interrupted evaluation has come to, kept on disk so that it can go on."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 30.0  # between two writings; what is lost at most


class Run:
    """What one attack left: which images it fooled, the images themselves, and where it stands.

    Args:
        alive: `[n]` bool, the images to attack.
        x: all images.
    """

    def __init__(self, alive: np.ndarray, x: np.ndarray):
        self.attacked = int(alive.sum())
        self.robust = alive.copy()
        self.images = x.copy()
        self.seconds = 0.0
        self.round, self.batch = 0, 0  # the next ones
        self.left = np.flatnonzero(alive)  # what the present round works on


class Record:
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

    def restore(self, run: Run) -> bool:
        """Puts a run where it was; False where nothing was kept."""
        if self._path is None or not self._path.is_file():
            return False
        with np.load(self._path) as kept:
            run.robust, run.images, run.left = kept["robust"], kept["images"], kept["left"]
            run.round, run.batch = map(int, kept["next"])
            run.seconds = float(kept["seconds"])
        return True

    def keep(self, run: Run, now: bool = False) -> None:
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
                )
            os.replace(draft, self._path)
        finally:
            draft.unlink(missing_ok=True)
        self._written = time.monotonic()
