"""The devices of a training: one device, several replicas, several workers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Devices:
    """A strategy, and the position of this process in it.

    Args:
        strategy: a `tf.distribute` strategy; default the current one, which is one device.
        workers: number of processes that train together.
        worker: index of this process, from 0.
    """

    strategy: tf.distribute.Strategy = dataclasses.field(default_factory=tf.distribute.get_strategy)
    workers: int = 1
    worker: int = 0

    @property
    def chief(self) -> bool:
        """Whether this process writes the run directory."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """Number of replicas that share each batch."""
        return self.strategy.num_replicas_in_sync

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """The scope in which to create the model, the attack and the optimizer."""
        return self.strategy.scope()

    def gather(self, variables: Sequence[keras.Variable]) -> list[np.ndarray]:
        """The values of variables on each replica; all workers have to call it.

        Args:
            variables: variables that differ between replicas, such as those of metrics.

        Returns:
            An array `[replicas, ...]` for each variable.
        """
        held = [np.stack([part.numpy() for part in self._parts(v)]) for v in variables]
        if self.workers == 1 or not held:  # a collective of nothing crashes TensorFlow
            return held
        rows_of_all = self._exchange(b"".join(values.tobytes() for values in held))
        gathered, begin = [], 0
        for values in held:
            end = begin + values.nbytes
            rows = [np.frombuffer(row[begin:end], values.dtype) for row in rows_of_all]
            gathered.append(np.concatenate([row.reshape(values.shape) for row in rows]))
            begin = end
        return gathered

    def assign(
        self, variables: Sequence[keras.Variable], values: Sequence[np.ndarray], additive: bool
    ) -> None:
        """Restores the values on each replica that `gather` returned.

        Args:
            variables: the variables that were gathered.
            values: an array `[replicas, ...]` for each. If the number of replicas has changed, all
                replicas get the value of the first one.
            additive: whether the values are parts of a sum; if the number of replicas has changed,
                the first replica then gets the whole sum.
        """
        for variable, value in zip(variables, values, strict=True):
            if len(value) != self.replicas:
                first = value.sum(axis=0, keepdims=True) if additive else value[:1]
                rest = np.zeros_like(first) if additive else first
                value = np.concatenate([first, *[rest] * (self.replicas - 1)])
            mine = self._parts(variable)
            begin = self.worker * len(mine)
            for part, number in zip(mine, value[begin : begin + len(mine)], strict=True):
                part.assign(number)

    def numbers(self, number: float) -> list[float]:
        """The number of every worker; all workers have to call it."""
        if self.workers == 1:
            return [number]
        return [
            float(np.frombuffer(row)[0]) for row in self._exchange(np.float64(number).tobytes())
        ]

    def wait(self) -> None:
        """Waits until every worker has called it."""
        self.numbers(0.0)

    def agree(self, what: str, text: str) -> None:
        """Raises unless every worker has the same text; all workers have to call it.

        Args:
            what: the subject of the text, for the message.
            text: the text of this worker.

        Raises:
            ValueError: on every worker, if the texts differ.
        """
        checksums = self.numbers(float(zlib.crc32(text.encode())))
        different = [worker for worker, value in enumerate(checksums) if value != checksums[0]]
        if different:
            raise ValueError(
                f"Worker {', '.join(map(str, different))} and worker 0 do not agree on {what}. "
                "Start all workers with the same command, and with one --output_dir that all of "
                "them can read."
            )

    def _parts(self, variable: keras.Variable) -> Sequence[tf.Variable]:
        """The copies of a variable on the replicas of this worker."""
        return self.strategy.experimental_local_results(variable.value)

    def _exchange(self, mine: bytes) -> list[bytes]:
        """The bytes of every worker."""
        size = len(mine)
        mine += bytes(-size % 4)
        gathered = self._gathered(tf.constant(np.frombuffer(mine, np.int32)))
        # All replicas of a worker send the same bytes, so that one trace serves all.
        rows = self.strategy.experimental_local_results(gathered)[0].numpy()
        return [row.tobytes()[:size] for row in rows[:: self.replicas // self.workers]]

    @functools.cached_property
    def _gathered(self) -> Callable[[tf.Tensor], Any]:
        """Gathers a vector of each replica as a row; traced once for each length."""

        def row(vector: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            return context.all_gather(tf.expand_dims(vector, 0), axis=0)

        return tf.function(lambda vector: self.strategy.run(row, args=(vector,)), autograph=False)
