"""Keras's training loop around a model with a loss of its own, under every strategy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_robust.training.batch_checks import first_batch, one_sentence
from keras_robust.training.distribution import (
    check_last_batch,
    check_optimizer,
    without_small_batches,
)
from keras_robust.training.metric_names import (
    check_user_metrics,
    infer_modes,
    user_metric_names,
)

# The arguments of `fit` after the images.
_FIT = ("y", "batch_size", "epochs", "verbose", "callbacks", "validation_split", "validation_data")


class KerasLoop(keras.Model):
    """A Keras model with a loss of its own, trained by `fit` under any `tf.distribute` strategy.

    It is built before it is compiled, and created inside the strategy's scope.
    """

    train_function: Any
    test_function: Any
    jit_compile: Any
    # Names that the model logs -> "min" or "max", or "" where neither is better.
    directions: Mapping[str, str] = {}
    microbatches = 1  # parts of a replica's batch
    _reported: tuple[str, ...] = ()
    _user_names: tuple[str, ...] = ()

    def compile(self, optimizer: Any = "rmsprop", loss: None = None, **kwargs: Any) -> None:
        """Configures training as `keras.Model.compile` does; the loss is the model's own.

        Args:
            optimizer: a Keras optimizer, or its name.
            loss: None; anything else is refused.
            **kwargs: as for Keras (`metrics`, `steps_per_execution`, `run_eagerly`, ...). Metrics
                receive the clean logits. `jit_compile` is off by default: XLA slows crafting down
                on a CPU. It compiles all of a step but the checks of its batch.

        Raises:
            ValueError: a `loss` was passed, or a metric with the name of one of the model's own.
        """
        if loss is not None:
            raise ValueError(
                f"compile() received loss={loss!r}, but the loss of a robust model is "
                "part of it. Leave `loss` out, and build the model with another robust loss."
            )
        user = [kwargs.get(name) for name in ("metrics", "weighted_metrics")]
        check_user_metrics(user, tuple(self.directions))
        own = ("loss", *self.directions)
        self._user_names = tuple(n for n in user_metric_names(user) if n not in own)
        self._reported = ()
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **kwargs)  # type: ignore[misc]
        with self.distribute_strategy.scope():
            check_optimizer(self.optimizer)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was when saved, with the optimizer's variables."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does.

        Callbacks with `mode="auto"` may monitor what the model logs, such as
        `val_robust_accuracy`. A batch of a `tf.data.Dataset` that is too small for the replicas, or
        for the microbatches, joins the batch before it.

        Raises:
            TypeError, ValueError: no weight is trainable, images or labels that the model does not
                take, or the last batch of arrays is too small for the replicas, or for the
                microbatches.
        """
        self.check_trainable()
        given = {**dict(zip(_FIT, args, strict=False)), **kwargs}
        self._check_first_batches(x, given)
        self._check_last_batches(x, given)
        infer_modes(given.get("callbacks"), self.directions)
        x = without_small_batches(x, self._parts, self.microbatches)
        args = tuple(without_small_batches(arg, self._parts) for arg in args)  # validation data
        kwargs = {name: without_small_batches(arg, self._parts) for name, arg in kwargs.items()}
        if isinstance(x, tf.data.Dataset):
            # Keras would warn at every call that it does not shuffle a data set.
            kwargs.setdefault("shuffle", False)
        with one_sentence():
            return super().fit(x, *args, **kwargs)

    def check_batch(self, x: Any, y: Any) -> None:
        """Raises for images and labels that the model does not take; a hook."""

    def check_trainable(self) -> None:
        """Raises ValueError if there is nothing to train."""
        if not self.trainable_variables:
            raise ValueError(
                "All layers are frozen (`trainable` is False), so there is nothing to train; "
                "expected at least one trainable weight. Set `layer.trainable = True` of a layer "
                "of the classifier before `compile`."
            )

    def evaluate(self, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        """Evaluates as `keras.Model.evaluate` does; single numbers are floats.

        A list has the order of `metrics_names`.
        """
        args = tuple(without_small_batches(arg, self._parts) for arg in args)
        kwargs = {name: without_small_batches(arg, self._parts) for name, arg in kwargs.items()}
        x = args[0] if args else kwargs.get("x")
        size = args[2] if len(args) > 2 else kwargs.get("batch_size")
        check_last_batch(x, size, self._parts)
        with one_sentence():
            results = super().evaluate(*args, return_dict=True, **kwargs)
        # Keras before 3.13 returns tensors.
        logs = keras.tree.map_structure(
            lambda value: float(value) if tf.is_tensor(value) and value.shape == () else value,
            results,
        )
        return self._listed(logs, return_dict)

    def train_on_batch(self, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        """Trains on one batch as `keras.Model.train_on_batch` does."""
        self.check_trainable()
        return self._listed(super().train_on_batch(*args, return_dict=True, **kwargs), return_dict)

    def test_on_batch(self, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        """Evaluates one batch as `keras.Model.test_on_batch` does."""
        return self._listed(super().test_on_batch(*args, return_dict=True, **kwargs), return_dict)

    @property
    def metrics_names(self) -> list[str]:
        """The names of the numbers of the last evaluation, in their order; before, of the next."""
        return list(self._reported or (*self.evaluated_names(), *sorted(self._user_names)))

    def evaluated_names(self) -> tuple[str, ...]:
        """The names that `evaluate` logs, without those of `compile`; a hook."""
        return ("loss", *self.directions)

    def _listed(self, logs: dict[str, Any], return_dict: bool) -> Any:
        own = [name for name in ("loss", *self.directions) if name in logs]
        self._reported = (*own, *sorted(name for name in logs if name not in own))
        return logs if return_dict else [logs[name] for name in self._reported]

    def make_train_function(self, force: bool = False) -> Any:
        """Creates the function that `fit` calls once a step."""
        if not self._has_workers:
            with self._uncompiled():
                return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = self._on_all_workers(self.train_step)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Creates the function that `evaluate` calls once a step."""
        if not self._has_workers:
            with self._uncompiled():
                return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = self._on_all_workers(self.test_step)
        return self.test_function

    @contextlib.contextmanager
    def _uncompiled(self) -> Iterator[None]:
        """Keeps Keras from compiling a step by XLA as a whole, which would drop its checks."""
        jit_compile, self.jit_compile = self.jit_compile, False
        try:
            yield
        finally:
            self.jit_compile = jit_compile

    def jitted(self, part: Callable[..., Any]) -> Callable[..., Any]:
        """A part of a step, compiled by XLA if `compile(jit_compile=True)` says so."""
        if not self.jit_compile or self._has_workers or tf.executing_eagerly():
            return part
        return tf.function(part, jit_compile=True, autograph=False)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Under a strategy Keras runs a step on symbolic tensors before the first one, to build what
        # is built here already. That fails with several workers, and where a first batch does not
        # divide by the replicas. The method is private, and Keras offers no other.
        del iterator, data_batch
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def _check_first_batches(self, x: Any, given: Mapping[str, Any]) -> None:
        """Refuses arrays whose first batch the model does not take, before anything is traced."""
        held_out = given.get("validation_data")
        pairs: list[Any] = [(x, given.get("y"))]
        pairs += [held_out[:2]] if isinstance(held_out, (tuple, list)) and held_out[1:] else []
        for images, labels in pairs:
            batch = first_batch(images, labels, given.get("batch_size") or 32)
            if batch is not None:
                self.check_batch(*batch)

    def _check_last_batches(self, x: Any, given: Mapping[str, Any]) -> None:
        """Refuses the images of `fit`, or of its validation, whose last batch is too small."""
        size, split = given.get("batch_size"), given.get("validation_split") or 0.0
        check_last_batch(x, size, self._parts, 1 - split, self.microbatches)
        held_out = given.get("validation_data")
        if isinstance(held_out, (tuple, list)) and held_out:
            size = given.get("validation_batch_size") or size
            check_last_batch(held_out[0], size, self._parts)

    @property
    def _parts(self) -> int:
        """The number of replicas of one process that share a batch."""
        return 1 if self._has_workers else self.distribute_strategy.num_replicas_in_sync

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
