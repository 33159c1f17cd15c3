"""What happens around the epochs of a training: metrics, checkpoints, TensorBoard, averages."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from trainers.run_directory import RunDirectory, replacing


class EpochLog(keras.callbacks.Callback):
    """Keeps one row of metrics per epoch.

    Args:
        run: where.
        rows: those of the epochs before.

    Raises:
        FloatingPointError: in training, when the loss is no number any more.
    """

    def __init__(self, run: RunDirectory, rows: list[dict[str, float]]):
        super().__init__()
        self.run = run
        self.rows = rows
        self._begin = self._rate = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the clock, and notes the learning rate with which the epoch begins."""
        self._begin = time.perf_counter()
        self._rate = float(self.model.optimizer.learning_rate)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the row."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        if not math.isfinite(values.get("loss", 0.0)):
            raise FloatingPointError(
                f"The loss is {values['loss']} after epoch {epoch + 1}. The last checkpoint is of "
                "the epoch before; train again with a smaller optimizer.learning_rate."
            )
        seconds = round(time.perf_counter() - self._begin, 3)
        row = {"epoch": epoch + 1, "seconds": seconds, "learning_rate": self._rate, **values}
        self.rows.append(row)
        self.run.write_rows(self.rows)


class Checkpoints(keras.callbacks.Callback):
    """Keeps the last model, to go on with, and the best one on the validation images.

    Args:
        run: where.
        monitor: the metric that is to be large; None to keep no best one.
        best: its largest value so far.
    """

    def __init__(self, run: RunDirectory, monitor: str | None, best: float):
        super().__init__()
        self.run = run
        self.monitor = monitor
        self.best = best

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Keeps the model as it is, so that there is something to go on with at any time."""
        if not self.run.checkpoint_file("last").is_file():
            self._save("last")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keeps the model; as the best one first, so that a resumed run compares with it again."""
        value = (logs or {}).get(self.monitor) if self.monitor else None
        if value is not None and value > self.best:
            self.best = float(value)
            with averaged(self.model):
                self._save("best")
        self._save("last")

    def _save(self, name: str) -> None:
        with replacing(self.run.checkpoint_file(name)) as draft:
            self.model.save(draft)


class EventFiles(keras.callbacks.Callback):
    """Writes the metrics of each epoch for TensorBoard, as Keras's own callback names them.

    Keras's callback needs the package tensorboard, to write them too; this one needs nothing.

    Args:
        run: where; `tensorboard/train` and `tensorboard/validation`.
    """

    def __init__(self, run: RunDirectory):
        super().__init__()
        self.run = run
        plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        self._metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin)
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes one point per metric."""
        for name, value in (logs or {}).items():
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
        for writer in self._writers.values():
            writer.close()


class AveragedValidation(keras.callbacks.Callback):
    """Validates the averaged weights, if the optimizer keeps an average.

    Keras's `SwapEMAWeights` swaps by adding and subtracting, which rounds the weights; this one
    leaves them as they were, bit for bit.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Puts the average in place."""
        self._stack.enter_context(averaged(self.model))

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        """Puts the weights back."""
        self._stack.close()


class Stop(keras.callbacks.Callback):
    """Ends a training between two steps, once it was asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = False

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Ends the training by a `KeyboardInterrupt`."""
        if self.asked:
            raise KeyboardInterrupt

    on_test_batch_end = on_train_batch_end


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """A callback that ends a training when the process gets SIGINT (Ctrl-C) or SIGTERM.

    Left to itself, Python raises wherever it happens to be: in the middle of a write, or in a
    place that swallows the exception. A second signal still does that.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return

    def ask(*_: Any) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        # Not `print`, which cannot be called while it is at work.
        os.write(2, b"\nStopping after this step; press Ctrl-C again to stop at once.\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """The model with the averaged weights of its optimizer, where it keeps an average."""
    optimizer: Any = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not optimizer.use_ema:
        yield
        return
    weights = [variable.numpy() for variable in model.trainable_variables]
    optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, weights, strict=True):
            variable.assign(value)
