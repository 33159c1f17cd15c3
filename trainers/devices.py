"""On what a training runs: one device, several replicas, several workers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
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

        def held() -> list[tf.Tensor]:
            return [tf.expand_dims(tf.convert_to_tensor(v.value), 0) for v in variables]

        if self.replicas == 1:
            return [value.numpy() for value in held()]
        parts = self.strategy.run(tf.function(held, autograph=False))
        return [self.strategy.gather(part, axis=0).numpy() for part in parts]

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
            mine = self.strategy.experimental_local_results(variable.value)
            begin = self.worker * len(mine)
            for part, number in zip(mine, value[begin : begin + len(mine)], strict=True):
                part.assign(number)

    def numbers(self, number: float) -> list[float]:
        """A number of each worker, told to all; every worker has to take part."""
        if self.workers == 1:
            return [number]
        mine = tf.constant([number], tf.float64)
        parts = self.strategy.experimental_distribute_values_from_function(lambda _: mine)
        told = self.strategy.gather(parts, axis=0).numpy().tolist()
        return told[:: self.replicas // self.workers]
