"""A model in a file of Keras's, with all that is needed to go on as if it had never stopped.

Keras keeps weights and optimizer, but not the state of random layers nor that of metrics, nor how
far the training was. This lies in the same file, which is a zip archive: what belongs together is
there together or not at all. The last bytes of the file are a digest of all others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np

from keras_robust.core.atomic_files import replacing
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.training.devices import Devices

_PROGRESS, _ARRAYS = "training.json", "training.npz"
_MARK = b"sha256:"
_DIGEST = 2 * hashlib.sha256().digest_size


@dataclasses.dataclass(frozen=True, eq=False)
class Progress:
    """How far a training is.

    Args:
        step: how many steps it has done.
        rows: the metrics of the epochs that are over.
        epoch: of the epoch that is not over, if any: its row so far.
        seeds: of random layers, for each variable what each replica holds, `[replicas, ...]`.
        metrics: the same of the trackers.
    """

    step: int = 0
    rows: list[dict[str, float]] = dataclasses.field(default_factory=list)
    epoch: dict[str, float] = dataclasses.field(default_factory=dict)
    seeds: list[np.ndarray] = dataclasses.field(default_factory=list)
    metrics: list[np.ndarray] = dataclasses.field(default_factory=list)

    @property
    def replicas(self) -> int:
        """How many replicas there were."""
        return len(self.metrics[0])


def seeds(model: keras.Model) -> list[keras.Variable]:
    """The variables that Keras leaves out of a file: where random layers are in their streams."""
    kept = {id(v) for v in (*model.weights, *model.optimizer.variables, *model.metrics_variables)}
    return list({id(v): v for v in model.variables if id(v) not in kept}.values())


def progress_of(
    model: keras.Model,
    devices: Devices,
    step: int,
    rows: list[dict[str, float]],
    epoch: dict[str, float],
) -> Progress:
    """How far a training is; every worker has to take part.

    Args:
        model: what is trained.
        devices: on what.
        step: how many steps it has done.
        rows: the metrics of the epochs that are over.
        epoch: of the epoch that is not over, if any: its row so far.

    Returns:
        What `put_back` puts back.
    """
    streams = devices.gather(seeds(model))
    return Progress(step, list(rows), epoch, streams, devices.gather(model.metrics_variables))


def put_back(model: keras.Model, devices: Devices, progress: Progress) -> None:
    """Gives random layers and metrics the state that they had.

    Args:
        model: as it was loaded from the checkpoint.
        devices: on what it is trained.
        progress: of the checkpoint.
    """
    devices.assign(seeds(model), progress.seeds, additive=False)
    devices.assign(model.metrics_variables, progress.metrics, additive=True)


def write(path: Path, model: keras.Model, progress: Progress, previous: Path | None = None) -> None:
    """Writes a checkpoint that is either whole or not there.

    Args:
        path: of the file.
        model: compiled.
        progress: how far its training is.
        previous: where to keep the checkpoint that was there; None to lose it.
    """
    document = {"step": progress.step, "rows": progress.rows, "epoch": progress.epoch}
    arrays = io.BytesIO()
    np.savez(
        arrays,
        **{f"seeds-{i:04}": value for i, value in enumerate(progress.seeds)},
        **{f"metrics-{i:04}": value for i, value in enumerate(progress.metrics)},
    )
    with replacing(path, previous) as draft:
        model.save(draft)
        with zipfile.ZipFile(draft, "a") as archive:
            archive.writestr(_PROGRESS, json.dumps(document))
            archive.writestr(_ARRAYS, arrays.getvalue())
            archive.comment = _MARK + b"0" * _DIGEST
        with draft.open("r+b") as file:
            digest = _digest(file)
            file.seek(-_DIGEST, os.SEEK_END)
            file.write(digest)


def read(path: Path) -> Progress:
    """How far the training in a checkpoint is.

    Raises:
        ValueError: the file is not as it was written.
    """
    with path.open("rb") as file:
        digest = _digest(file)
        if file.read() != digest:
            raise ValueError(f"{path} is damaged: it was cut short or changed after it was written")
    with zipfile.ZipFile(path) as archive:
        document = json.loads(archive.read(_PROGRESS))
        with np.load(io.BytesIO(archive.read(_ARRAYS))) as arrays:
            for kind in ("seeds", "metrics"):
                names = sorted(name for name in arrays if name.startswith(kind))
                document[kind] = [arrays[name] for name in names]
    return Progress(**document)


def newest(run: RunDirectory, say: Callable[[str], None]) -> tuple[Path | None, Progress]:
    """The checkpoint to go on with.

    Args:
        run: its directory.
        say: is told of a checkpoint that is damaged.

    Returns:
        The file, None if there is none yet; and how far it is.

    Raises:
        ValueError: there are checkpoints, and none of them is whole.
    """
    damage: list[Any] = []
    for path in filter(Path.is_file, map(run.checkpoint_file, ("last", "previous"))):
        try:
            progress = read(path)
        except ValueError as error:
            damage.append(error)
            continue
        for error in damage:
            say(f"{error}. Going on with the one before it, {path.name}, of step {progress.step}.")
        return path, progress
    if damage:
        raise ValueError(
            f"{'; '.join(map(str, damage))}. No checkpoint is left to go on with: train the run "
            "anew with --overwrite, or in another --output_dir."
        )
    return None, Progress()


def _digest(file: BinaryIO) -> bytes:
    """The digest of all but the last bytes, with the place in the file left where those begin."""
    left = max(file.seek(0, os.SEEK_END) - _DIGEST, 0)
    file.seek(0)
    digest = hashlib.sha256()
    while left:
        chunk = file.read(min(left, 1 << 20))
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest().encode()
