"""A batch in parts: on several replicas at once, or as microbatches one after the other.

What the parts have to agree on is here: sizes, gradients, batch norm, and Keras's loop itself. What
concerns replicas does nothing where there is one only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_robust.core.collectives import global_sum, replicas


def checked_part(x: Any) -> Any:
    """A replica's images, of which there have to be some: convolutions do not say what is wrong.

    Raises:
        tf.errors.InvalidArgumentError: when a step is run on an empty part of a batch.
    """
    if replicas() == 1:
        return x
    some = tf.debugging.assert_positive(
        tf.shape(x)[0],
        f"A batch holds fewer images than the {replicas()} replicas that share it. Use "
        "`batch(..., drop_remainder=True)`, or a batch size that leaves more over.",
    )
    with tf.control_dependencies([] if some is None else [some]):
        return tf.identity(x)


def microbatch(batch: tuple[Any, ...], part: int, count: int) -> tuple[Any, ...]:
    """One of the parts of a batch, which are as equal as can be.

    Args:
        batch: tensors `[batch, ...]`, or None; the second is one.
        part: its number, from 0.
        count: how many parts there are.

    Returns:
        The part of each tensor.

    Raises:
        tf.errors.InvalidArgumentError: a batch of fewer examples than parts, when a step is run.

    Example:
        >>> batch = (tf.range(5), tf.range(5), None)
        >>> [microbatch(batch, part, 2)[0].numpy().tolist() for part in range(2)]
        [[0, 1], [2, 3, 4]]
    """
    if count == 1:
        return batch
    size = tf.shape(batch[1])[0]
    enough = tf.debugging.assert_greater_equal(
        size, count, f"A batch holds fewer images than its {count} microbatches."
    )
    with tf.control_dependencies([] if enough is None else [enough]):
        begin, end = size * part // count, size * (part + 1) // count
    return tuple(None if values is None else values[begin:end] for values in batch)


def share_of_batch(
    loss: tf.Tensor, means: dict[str, tf.Tensor], share: tf.Tensor, microbatches: int
) -> tf.Tensor:
    """What a part adds to the mean loss of a batch; parts need not be equal.

    Args:
        loss: the mean over the part, regularization included.
        means: of its terms; `"regularization"` is the same for each part.
        share: the part of the batch's examples that it has.
        microbatches: into how many parts each replica cuts what it has.
    """
    parts = replicas() * microbatches
    if parts == 1:
        return loss
    regularization = means.get("regularization", tf.zeros([], loss.dtype))
    return (loss - regularization) * tf.cast(share, loss.dtype) + regularization / parts


def added(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    """The sum of two lists of gradients; None counts as zero."""
    return [
        b if a is None else a if b is None else a + b for a, b in zip(first, second, strict=True)
    ]


def apply_gradients(
    optimizer: keras.optimizers.Optimizer, gradients: Sequence[Any], variables: Sequence[Any]
) -> None:
    """Updates the weights by the sum of the replicas' gradients, clipped as a sum.

    A Keras optimizer clips what each replica has to give and adds up afterwards, which is another
    update than one device's. Here the sum is clipped; what the optimizer then gets of each replica
    is an equal share of it, which its own clipping leaves as it is.

    Args:
        optimizer: with `clipnorm`, `global_clipnorm`, `clipvalue`, or none of them.
        gradients: one for each variable, scaled by the optimizer's `scale_loss`; None where the
            loss does not depend on the variable.
        variables: the weights.
    """
    count = replicas()
    rule: Any = getattr(optimizer, "inner_optimizer", optimizer)
    if count > 1 and (rule.clipnorm or rule.global_clipnorm or rule.clipvalue):
        reached = [i for i, gradient in enumerate(gradients) if gradient is not None]
        summed = [global_sum(tf.convert_to_tensor(gradients[i])) for i in reached]
        # A limit is meant for gradients without the factor of mixed precision.
        factor = optimizer.scale_loss(tf.ones([]))
        gradients = list(gradients)
        for i, gradient in zip(reached, _clipped(rule, summed, factor), strict=True):
            gradients[i] = gradient / count
    optimizer.apply_gradients(zip(gradients, variables, strict=True))


def _clipped(rule: Any, gradients: list[tf.Tensor], factor: tf.Tensor) -> list[tf.Tensor]:
    if rule.clipnorm:
        return [tf.clip_by_norm(gradient, rule.clipnorm * factor) for gradient in gradients]
    if rule.global_clipnorm:
        return tf.clip_by_global_norm(gradients, rule.global_clipnorm * factor)[0]
    limit = rule.clipvalue * factor
    return [tf.clip_by_value(gradient, -limit, limit) for gradient in gradients]


def synchronize_batch_norm(model: keras.Model) -> None:
    """Makes batch norm take its statistics over all replicas, where there are several.

    Otherwise each replica normalises by the statistics of its own part, and keeps running
    statistics of its own, of which a saved model holds those of one replica.

    Args:
        model: whose layers are changed, those of models inside it too.
    """
    if replicas() > 1:
        for layer in batch_norms(model):
            layer.synchronized = True


def batch_norms(model: keras.Model) -> Iterator[keras.layers.BatchNormalization]:
    """The layers of batch norm of a model, and of models inside it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from batch_norms(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            yield layer


def check_optimizer(optimizer: Any) -> None:
    """Refuses what an optimizer cannot do on several replicas.

    Raises:
        ValueError: it accumulates gradients.
    """
    rule: Any = getattr(optimizer, "inner_optimizer", optimizer)
    steps = getattr(rule, "gradient_accumulation_steps", None)
    if steps and replicas() > 1:
        raise ValueError(
            f"The optimizer has gradient_accumulation_steps={steps}, which Keras cannot do on "
            f"{replicas()} replicas. Build the robust model with microbatches={steps} and a batch "
            f"{steps} times as large instead: the update is the same, and so is the memory."
        )


class DistributedModel(keras.Model):
    """A Keras model whose `fit` and `evaluate` run under every `tf.distribute` strategy.

    It has to be built when it is compiled, and to be made inside the strategy's scope.
    """

    train_function: Any
    test_function: Any

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Under a strategy Keras runs a step on symbols before the first one, to build what has
        # been built here. That fails with several workers, and where a first batch does not
        # divide by the replicas. The name is private, and there is no other way in.
        del iterator, data_batch
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force: bool = False) -> Any:
        """Makes what `fit` calls once a step."""
        if not self._has_workers:
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = self._on_all_workers(self.train_step)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Makes what `evaluate` calls once a step."""
        if not self._has_workers:
            return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = self._on_all_workers(self.test_step)
        return self.test_function

    @property
    def _has_workers(self) -> bool:
        return isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy)

    def _on_all_workers(self, step: Callable[[Any], dict[str, tf.Tensor]]) -> Callable:
        """Keras averages the logs of several workers along an axis that a number has not."""
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
