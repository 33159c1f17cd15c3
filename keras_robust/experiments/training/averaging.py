"""Averaged weights in the place of those in training, with batch-norm statistics of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

import keras_robust as kr

# Statistics over some thousand images are those over all of them within a few percent.
BATCHES = 20


class Averages:
    """The average of the weights that an optimizer keeps with `use_ema`.

    Running statistics are those of the weights in training, so they are recomputed: over the first
    batches of the training, crafted as in training, once for each state of the training.

    Args:
        model: the model in training.
        stream: the batches of the training, from its first step on.
    """

    def __init__(self, model: kr.RobustModel, stream: Callable[[], tf.data.Dataset]):
        self.model = model
        self.stream = stream
        self._rule = kr.training.BatchNormStatistics(model)
        self._step = -1
        self._statistics: list[np.ndarray] = []

    @property
    def kept(self) -> bool:
        """Whether the optimizer averages weights."""
        return bool(self._optimizer.use_ema)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Replaces the weights by their average, and restores them bit for bit."""
        if not self.kept:
            yield
            return
        variables = [*self.model.trainable_variables, *self._rule.variables]
        before = values_of(variables)
        try:
            self._optimizer.finalize_variable_values(self.model.trainable_variables)
            self._set_statistics()
            yield
        finally:
            assign(variables, before)

    def _set_statistics(self) -> None:
        """Recomputes the statistics, or takes those of the same step."""
        if not self._rule.variables:
            return
        step = int(tf.convert_to_tensor(self.model.step))
        if step == self._step:
            assign(self._rule.variables, self._statistics)
            return
        self._rule.recompute(self.stream().take(BATCHES))
        self._step, self._statistics = step, values_of(self._rule.variables)

    @property
    def _optimizer(self) -> keras.optimizers.Optimizer:
        return getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)


class AveragedValidation(keras.callbacks.Callback):
    """Validates the averaged weights, if the optimizer averages weights.

    Differs: Keras's `SwapEMAWeights` swaps by adding and subtracting, which rounds the weights,
    leaves the average in their place after `fit`, and keeps the running statistics of the weights
    in training. This one restores the weights bit for bit, also after `fit`, so that another `fit`
    continues with them.

    Args:
        averages: of the model in training.
    """

    def __init__(self, averages: Averages) -> None:
        super().__init__()
        self._averages = averages
        self._stack = contextlib.ExitStack()
        self._weights: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Records the weights."""
        if self._averages.kept:
            self._weights = values_of(self.model.trainable_variables)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Restores the weights."""
        if self._weights:
            assign(self.model.trainable_variables, self._weights)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Replaces the weights by their average."""
        self._stack.enter_context(self._averages.swapped())

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        """Restores the weights."""
        self._stack.close()


def values_of(variables: list[keras.Variable]) -> list[np.ndarray]:
    """The values of variables."""
    return [variable.numpy() for variable in variables]


def assign(variables: list[keras.Variable], values: list[np.ndarray]) -> None:
    """Sets variables to values."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
