"""On what a training runs: one device, several replicas, several workers."""

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
    """A strategy, and the part that this process has in it.

    Args:
        strategy: of `tf.distribute`; by default the one that is in force, which is one device.
        workers: how many processes train together.
        worker: the number of this one, from 0.
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
        """Among how many replicas each batch is divided."""
        return self.strategy.num_replicas_in_sync

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Where the model, the attack and the optimizer are made."""
        return self.strategy.scope()

    def gather(self, variables: Sequence[keras.Variable]) -> list[np.ndarray]:
        """What each replica holds of some variables; every worker has to take part.

        Args:
            variables: such as those of metrics, of which each replica has a sum of its own.

        Returns:
            For each variable an array `[replicas, ...]`.
        """
        held = [np.stack([part.numpy() for part in self._parts(v)]) for v in variables]
        if self.workers == 1 or not held:  # a collective of nothing brings TensorFlow down
            return held
        told = self._tell(b"".join(values.tobytes() for values in held))
        gathered, begin = [], 0
        for values in held:
            end = begin + values.nbytes
            rows = [np.frombuffer(row[begin:end], values.dtype) for row in told]
            gathered.append(np.concatenate([row.reshape(values.shape) for row in rows]))
            begin = end
        return gathered

    def assign(
        self, variables: Sequence[keras.Variable], values: Sequence[np.ndarray], additive: bool
    ) -> None:
        """Gives each replica what it held, by what `gather` returned.

        Args:
            variables: as many as there were.
            values: for each an array `[replicas, ...]`. If there were not as many replicas as now,
                all of them go on with what the first one held.
            additive: whether the replicas' values are parts of a sum, which then is the first's.
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
        """A number of each worker, told to all; every worker has to take part."""
        if self.workers == 1:
            return [number]
        return [float(np.frombuffer(row)[0]) for row in self._tell(np.float64(number).tobytes())]

    def wait(self) -> None:
        """Waits until every worker has come to the same place."""
        self.numbers(0.0)

    def agree(self, what: str, text: str) -> None:
        """Makes sure that every worker has the same text; every worker has to take part.

        Args:
            what: what the text tells, for the message.
            text: of this worker.

        Raises:
            ValueError: on every worker, if the texts differ.
        """
        told = self.numbers(float(zlib.crc32(text.encode())))
        different = [worker for worker, number in enumerate(told) if number != told[0]]
        if different:
            raise ValueError(
                f"Worker {', '.join(map(str, different))} and worker 0 do not agree on {what}. "
                "Start all workers with the same command, and with one --output_dir that all of "
                "them can read."
            )

    def _parts(self, variable: keras.Variable) -> Sequence[tf.Variable]:
        """A variable as each replica of this worker has it."""
        return self.strategy.experimental_local_results(variable.value)

    def _tell(self, mine: bytes) -> list[bytes]:
        """Bytes of each worker, told to all."""
        size = len(mine)
        mine += bytes(-size % 4)
        told = self._gathered(tf.constant(np.frombuffer(mine, np.int32)))
        # Each replica of a worker tells the same, so that there is one trace for all.
        rows = self.strategy.experimental_local_results(told)[0].numpy()
        return [row.tobytes()[:size] for row in rows[:: self.replicas // self.workers]]

    @functools.cached_property
    def _gathered(self) -> Callable[[tf.Tensor], Any]:
        """Gathers a vector of each replica as a row, traced once for each length."""

        def row(vector: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            return context.all_gather(tf.expand_dims(vector, 0), axis=0)

        return tf.function(lambda vector: self.strategy.run(row, args=(vector,)), autograph=False)
