"""Checkpoints: Keras model files with the further state that an exact resume needs.

Keras saves weights and optimizer, but neither the state of random layers and metrics nor the
progress of the training. These are stored in the same file, a zip archive, so that they always fit
together. The last bytes of the file are a digest of all others.
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
from ml_collections import ConfigDict

from keras_robust.core.atomic_files import replacing
from keras_robust.core.bounded_files import check_archive, open_arrays, parse_json
from keras_robust.experiments.runs.recipe_stamp import stamp
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.training.devices import Devices

_PROGRESS, _ARRAYS = "training.json", "training.npz"
_MARK = b"sha256:"
_DIGEST = 2 * hashlib.sha256().digest_size


@dataclasses.dataclass(frozen=True, eq=False)
class Progress:
    """The progress of a training.

    Args:
        step: number of steps done.
        rows: the metrics of the finished epochs.
        epoch: the row so far of the unfinished epoch, if any.
        seeds: the variables of random layers, `[replicas, ...]` each.
        metrics: the variables of metrics, `[replicas, ...]` each.
    """

    step: int = 0
    rows: list[dict[str, float]] = dataclasses.field(default_factory=list)
    epoch: dict[str, float] = dataclasses.field(default_factory=dict)
    seeds: list[np.ndarray] = dataclasses.field(default_factory=list)
    metrics: list[np.ndarray] = dataclasses.field(default_factory=list)

    @property
    def replicas(self) -> int:
        """Number of replicas."""
        return len(self.metrics[0])


def seeds(model: keras.Model) -> list[keras.Variable]:
    """The variables that Keras does not save: the states of random layers."""
    kept = {id(v) for v in (*model.weights, *model.optimizer.variables, *model.metrics_variables)}
    return list({id(v): v for v in model.variables if id(v) not in kept}.values())


def progress_of(
    model: keras.Model,
    devices: Devices,
    step: int,
    rows: list[dict[str, float]],
    epoch: dict[str, float],
) -> Progress:
    """The progress of a training; all workers have to call it.

    Args:
        model: the model in training.
        devices: the devices of the training.
        step: number of steps done.
        rows: the metrics of the finished epochs.
        epoch: the row so far of the unfinished epoch, if any.

    Returns:
        The state that `restore` restores.
    """
    streams = devices.gather(seeds(model))
    return Progress(step, list(rows), epoch, streams, devices.gather(model.metrics_variables))


def restore(model: keras.Model, devices: Devices, progress: Progress) -> None:
    """Restores the state of random layers and metrics.

    Args:
        model: the model that was loaded from the checkpoint.
        devices: the devices of the training.
        progress: the progress that was read from the checkpoint.
    """
    devices.assign(seeds(model), progress.seeds, additive=False)
    devices.assign(model.metrics_variables, progress.metrics, additive=True)


def write(
    path: Path,
    model: keras.Model,
    progress: Progress,
    previous: Path | None = None,
    config: ConfigDict | None = None,
) -> None:
    """Writes a checkpoint atomically.

    Args:
        path: the file.
        model: the compiled model.
        progress: the progress of its training.
        previous: where to move an existing checkpoint; None to replace it.
        config: the recipe to write into it.
    """
    document = {"step": progress.step, "rows": progress.rows, "epoch": progress.epoch}
    arrays = io.BytesIO()
    named: dict[str, Any] = {
        f"{kind}-{i:04}": value
        for kind, values in (("seeds", progress.seeds), ("metrics", progress.metrics))
        for i, value in enumerate(values)
    }
    np.savez(arrays, **named)
    with replacing(path, previous) as draft:
        model.save(draft)
        if config is not None:
            stamp(draft, config)
        with zipfile.ZipFile(draft, "a") as archive:
            archive.writestr(_PROGRESS, json.dumps(document))
            archive.writestr(_ARRAYS, arrays.getvalue())
            archive.comment = _MARK + b"0" * _DIGEST
        with draft.open("r+b") as file:
            digest = _digest(file)
            file.seek(-_DIGEST, os.SEEK_END)
            file.write(digest)


def read(path: Path) -> Progress:
    """Reads the progress in a checkpoint.

    Raises:
        ValueError: the file is damaged.
    """
    with path.open("rb") as file:
        digest = _digest(file)
        if file.read() != digest:
            raise ValueError(f"{path} is damaged: it was truncated or changed after it was written")
    with zipfile.ZipFile(path) as archive:
        check_archive(archive, path.stat().st_size)
        document = parse_json(archive.read(_PROGRESS))
        with open_arrays(io.BytesIO(archive.read(_ARRAYS))) as arrays:
            for kind in ("seeds", "metrics"):
                names = sorted(name for name in arrays if name.startswith(kind))
                document[kind] = [arrays[name] for name in names]
    return Progress(**document)


def newest(run: RunDirectory, log: Callable[[str], None]) -> tuple[Path | None, Progress]:
    """Finds the checkpoint to resume from.

    Args:
        run: the run directory.
        log: called with a line about each damaged checkpoint.

    Returns:
        The file, None if there is no checkpoint yet; and its progress.

    Raises:
        ValueError: all checkpoints are damaged.
    """
    damage: list[ValueError] = []
    for path in filter(Path.is_file, map(run.checkpoint_file, ("last", "previous"))):
        try:
            progress = read(path)
        except ValueError as error:
            damage.append(error)
            continue
        for found in damage:
            log(f"{found}. Resuming from the one before it, {path.name}, of step {progress.step}.")
        return path, progress
    if damage:
        raise ValueError(
            f"{'; '.join(map(str, damage))}. No checkpoint is left to resume from: start over with "
            "--overwrite, or train in another --output_dir."
        )
    return None, Progress()


def _digest(file: BinaryIO) -> bytes:
    """The digest of all but the last bytes, before which the file is then positioned."""
    left = max(file.seek(0, os.SEEK_END) - _DIGEST, 0)
    file.seek(0)
    digest = hashlib.sha256()
    while left:
        chunk = file.read(min(left, 1 << 20))
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest().encode()
