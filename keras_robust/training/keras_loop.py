"""Keras's training loop around a model with a loss of its own, under every strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_robust.training.distribution import check_optimizer


class KerasLoop(keras.Model):
    """A Keras model with a loss of its own, trained by `fit` under any `tf.distribute` strategy.

    It is built before it is compiled, and created inside the strategy's scope.
    """

    train_function: Any
    test_function: Any

    def compile(self, optimizer: Any = "rmsprop", loss: None = None, **kwargs: Any) -> None:
        """Configures training as `keras.Model.compile` does; the loss is the model's own.

        Args:
            optimizer: a Keras optimizer, or its name.
            loss: None; anything else is refused.
            **kwargs: as for Keras (`metrics`, `steps_per_execution`, `run_eagerly`, ...). Metrics
                receive the clean logits. `jit_compile` is off by default: XLA slows crafting down
                on a CPU.

        Raises:
            ValueError: a `loss` was passed.
        """
        if loss is not None:
            raise ValueError(
                f"compile() received loss={loss!r}, but the loss of a robust model is "
                "part of it. Leave `loss` out, and build the model with another robust loss."
            )
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **kwargs)  # type: ignore[misc]
        with self.distribute_strategy.scope():
            check_optimizer(self.optimizer)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was when saved, with the optimizer's variables."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does."""
        if isinstance(x, tf.data.Dataset):
            # Keras would warn at every call that it does not shuffle a data set.
            kwargs.setdefault("shuffle", False)
        return super().fit(x, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates as `keras.Model.evaluate` does; single numbers are floats."""
        # Keras before 3.13 returns tensors.
        return keras.tree.map_structure(
            lambda value: float(value) if tf.is_tensor(value) and value.shape == () else value,
            super().evaluate(*args, **kwargs),
        )

    def make_train_function(self, force: bool = False) -> Any:
        """Creates the function that `fit` calls once a step."""
        if not self._has_workers:
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = self._on_all_workers(self.train_step)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Creates the function that `evaluate` calls once a step."""
        if not self._has_workers:
            return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = self._on_all_workers(self.test_step)
        return self.test_function

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Under a strategy Keras runs a step on symbolic tensors before the first one, to build what
        # is built here already. That fails with several workers, and where a first batch does not
        # divide by the replicas. The method is private, and Keras offers no other.
        del iterator, data_batch
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    @property
    def _has_workers(self) -> bool:
        return isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy)

    def _on_all_workers(self, step: Callable[[Any], dict[str, tf.Tensor]]) -> Callable:
        """One call of `fit`; Keras averages the workers' logs along an axis that scalars lack."""
        strategy = self.distribute_strategy

        @tf.function(reduce_retracing=True, autograph=False)
        def one_step(iterator: Any) -> dict[str, tf.Tensor]:
            logs = strategy.run(step, args=(next(iterator),))
            return {name: strategy.reduce("MEAN", log, axis=None) for name, log in logs.items()}

        def steps(iterator: Any) -> dict[str, tf.Tensor]:
            logs: dict[str, tf.Tensor] = {}
            for done in range(self.steps_per_execution):
                try:
                    logs = one_step(iterator)
                except (tf.errors.OutOfRangeError, StopIteration):
                    if not done:
                        raise StopIteration from None
                    break
            return logs

        return steps
