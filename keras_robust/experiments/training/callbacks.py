"""Callbacks of a training: metrics, checkpoints, TensorBoard, signals."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from keras_robust.core.atomic_files import replacing, write_errors
from keras_robust.experiments.runs.recipe_stamp import stamp
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.training import checkpoint
from keras_robust.experiments.training.averaging import Averages
from keras_robust.experiments.training.checkpoint import Progress
from keras_robust.training.catastrophic_overfitting import WEIGHTS_RESTORED

if TYPE_CHECKING:
    from keras_robust.experiments.training.training_state import Training


class EpochLog(keras.callbacks.Callback):
    """Writes one row of metrics per epoch.

    Args:
        run: the run directory.
        rows: the rows of earlier epochs.
        begun: the result of `so_far` when the training stopped in the middle of an epoch.

    Raises:
        FloatingPointError: in training, if the loss is NaN or infinite.
    """

    def __init__(
        self,
        run: RunDirectory,
        rows: list[dict[str, float]],
        begun: dict[str, float] | None = None,
    ):
        super().__init__()
        self.run = run
        self.rows = rows
        self._begun = begun or {}
        self._begin = self._rate = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the clock and records the initial learning rate of the epoch."""
        begun, self._begun = self._begun, {}
        self._begin = time.perf_counter() - begun.get("seconds", 0.0)
        if "learning_rate" in begun:
            self._rate = begun["learning_rate"]
        else:
            self._rate = float(tf.convert_to_tensor(self.model.optimizer.learning_rate))

    def so_far(self) -> dict[str, float]:
        """The part of the row of an unfinished epoch that is known."""
        seconds = round(time.perf_counter() - self._begin, 3)
        return {"seconds": seconds, "learning_rate": self._rate}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the row."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        if not math.isfinite(values.get("loss", 0.0)):
            raise FloatingPointError(
                f"Training diverged: the loss is {values['loss']} after epoch {epoch + 1}. The "
                "last checkpoint is from before. Train again with a smaller "
                "optimizer.learning_rate."
            )
        self.rows.append({"epoch": epoch + 1, **self.so_far(), **values})
        self.run.write_rows(self.rows)


class Checkpoints(keras.callbacks.Callback):
    """Writes the last checkpoint, to resume from, and the best one on the validation images.

    The last checkpoint is written after every epoch, and within an epoch as often as the recipe
    says, but on at most a twentieth of the time.

    Args:
        training: the training.
        log: the log of the epochs, a callback before this one.
        stop: the request to stop, a callback after this one.
        averages: the averaged weights, which the best checkpoint holds.

    Raises:
        FloatingPointError: in training, if weights are NaN or infinite.
    """

    def __init__(self, training: Training, log: EpochLog, stop: Stop, averages: Averages):
        super().__init__()
        self._averages = averages
        self.run, self.devices, self.config = training.run, training.devices, training.config
        self.log, self.stop = log, stop
        self.monitor, self.length = training.monitor, training.steps_per_epoch
        # Where weights were restored, the metric is of those that they replaced.
        rows = [row for row in log.rows if not row.get(WEIGHTS_RESTORED)]
        # Of a loss the smallest value is the best one.
        falls = training.model.directions.get((self.monitor or "").removeprefix("val_")) == "min"
        self._sign = -1.0 if falls else 1.0
        values = (self._sign * row[self.monitor] for row in rows if self.monitor in row)
        self.best = max(values, default=-math.inf)
        self._seconds = training.config.checkpoint.seconds
        self._steps = training.config.checkpoint.steps
        self._resumed: Progress | None = training.progress if training.file else None
        self._begin = self._saved = training.progress.step
        self._base = 0
        self._next = time.perf_counter() + self._seconds

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Restores the state that Keras does not save, and the metrics that it has just reset."""
        self._base = max(epoch * self.length, self._begin)
        progress, self._resumed = self._resumed, None
        if progress is None:
            return
        checkpoint.restore(self.model, self.devices, progress)
        if not progress.epoch:
            self.model.reset_metrics()  # they are those of the last validation

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Writes a checkpoint if it is due, or the training is about to stop."""
        step = self._base + batch + 1
        if step % self.length == 0:
            return  # validation comes first
        due = (
            self.stop.requested
            or (self._steps and step - self._saved >= self._steps)
            or (self._seconds and time.perf_counter() >= self._next)
        )
        if any(self.devices.numbers(float(bool(due)))):
            self._save(step, self.log.so_far())

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the checkpoints; the best one first, so that a resumed run compares with it."""
        metric = (logs or {}).get(self.monitor) if self.monitor else None
        value = -math.inf if metric is None else self._sign * float(metric)
        if value > self.best and not (logs or {}).get(WEIGHTS_RESTORED):
            self.best = value
            if self.run.writes:
                with self._averages.swapped(), replacing(self.run.checkpoint_file("best")) as draft:
                    self.model.save(draft)
                    stamp(draft, self.config)
        self._save((epoch + 1) * self.length, {})

    def _save(self, step: int, epoch: dict[str, float]) -> None:
        begin = time.perf_counter()
        if not all(np.isfinite(v.numpy()).all() for v in self.model.trainable_variables):
            raise FloatingPointError(
                f"Training diverged: weights are NaN or infinite after step {step}. The last "
                "checkpoint is from before. Train again with a smaller optimizer.learning_rate."
            )
        progress = checkpoint.progress_of(self.model, self.devices, step, self.log.rows, epoch)
        if self.run.writes:
            last, previous = map(self.run.checkpoint_file, ("last", "previous"))
            checkpoint.write(last, self.model, progress, previous, self.config)
        end = time.perf_counter()
        self._saved, self._next = step, end + max(self._seconds, 19 * (end - begin))


class EventFiles(keras.callbacks.Callback):
    """Writes the metrics of each epoch for TensorBoard, under the names of Keras's own callback.

    Unlike Keras's callback it works without the package tensorboard.

    Args:
        run: the run directory; files go to `tensorboard/train` and `tensorboard/validation`.
    """

    def __init__(self, run: RunDirectory):
        super().__init__()
        self.run = run
        plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        self._metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin)
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes one point per metric."""
        with write_errors(self.run.tensorboard):
            self._write(epoch, logs or {})

    def _write(self, epoch: int, logs: dict[str, float]) -> None:
        for name, value in logs.items():
            part = "validation" if name.startswith("val_") else "train"
            if part not in self._writers:
                folder = str(self.run.tensorboard / part)
                self._writers[part] = tf.summary.create_file_writer(folder)
            tag = f"epoch_{name.removeprefix('val_')}"
            with self._writers[part].as_default():
                point = tf.constant(value, tf.float32)
                tf.summary.write(tag, point, step=epoch, metadata=self._metadata)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Closes the files."""
        with write_errors(self.run.tensorboard):
            for writer in self._writers.values():
                writer.close()
        self._writers.clear()


class Stop(keras.callbacks.Callback):
    """Ends a training between two steps, once this was requested."""

    def __init__(self) -> None:
        super().__init__()
        self.requested = False

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Ends the training by a `KeyboardInterrupt`."""
        if self.requested:
            raise KeyboardInterrupt

    on_test_batch_end = on_train_batch_end


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """A callback that ends a training when the process gets SIGINT (Ctrl-C) or SIGTERM.

    By default Python raises wherever it is: in the middle of a write, or in a place that swallows
    the exception. A second signal still does that.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return

    def request(*_: Any) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        # Not `print`, which is not reentrant.
        os.write(2, b"\nStopping after this step; press Ctrl-C again to stop at once.\n")

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
