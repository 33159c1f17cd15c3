"""A batch in parts: on several replicas at once, or as microbatches one after the other.

Sizes, gradients and batch norm that the parts share. With a single replica, the functions for
replicas do nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_robust.core.collectives import global_sum, replicas
from keras_robust.core.types import Images, Labels

Batch = tuple[Images, Labels, tf.Tensor | None]  # images, labels, sample weights
Gradients = Sequence[tf.Tensor | None]


def checked_part(x: Images) -> Images:
    """The images of a replica, checked not to be empty: convolutions fail without a clear error.

    Raises:
        tf.errors.InvalidArgumentError: when a step is run on an empty part of a batch.
    """
    if replicas() == 1:
        return x
    not_empty = tf.debugging.assert_positive(
        tf.shape(x)[0],
        f"A batch holds fewer images than the {replicas()} replicas that share it. Use "
        "`batch(..., drop_remainder=True)`, or a batch size that leaves more over.",
    )
    with tf.control_dependencies([] if not_empty is None else [not_empty]):
        return tf.identity(x)


def smallest_part(count: Any, parts: int) -> Any:
    """The images of the replica that gets the fewest, as TensorFlow splits a batch; at most 0 if
    one gets none.

    Example:
        >>> [smallest_part(count, 4) for count in (4, 5, 7)]  # 5 are split into 2, 2, 1 and 0
        [1, -1, 1]
    """
    return count - (parts - 1) * -(-count // parts)


def check_last_batch(
    x: Any, batch_size: int | None, parts: int, share: float = 1.0, least: int = 1
) -> None:
    """Refuses arrays whose last batch is too small for the replicas, before an epoch begins.

    Args:
        x: what Keras is given; only of arrays is the number of images known.
        batch_size: as for Keras, 32 if None.
        parts: the number of replicas.
        share: the fraction of the images, the first ones, that is used.
        least: the number of images that each replica needs, one for each microbatch.

    Raises:
        ValueError: a replica gets fewer of the last batch.

    Example:
        >>> check_last_batch(tf.zeros([9, 2]), 8, parts=2)
        Traceback (most recent call last):
        ...
        ValueError: The last batch holds 1 of 9 images, too few images for the 2 replicas that \
share it. Use a batch size other than 8, or leave out the last 1.
    """
    if parts * least == 1 or not getattr(x, "shape", None):
        return
    count, size = int(len(x) * share), batch_size or 32
    last = count % size
    if last and smallest_part(last, parts) < least:
        who = f"{parts} replicas that share it" if parts > 1 else ""
        each = f"{least} microbatches" + (" on each" if parts > 1 else "") if least > 1 else ""
        needs = " with ".join(filter(None, (who, each)))
        raise ValueError(
            f"The last batch holds {last} of {count} images, too few images for the {needs}. Use a "
            f"batch size other than {size}, or leave out the last {last}."
        )


def without_small_batches(data: Any, parts: int, least: int = 1) -> Any:
    """A dataset in which a batch that is too small for the replicas joins the one before it.

    Args:
        data: what Keras is given; anything but a `tf.data.Dataset` is returned as it is.
        parts, least: as for `check_last_batch`.

    Example:
        >>> data = tf.data.Dataset.range(7).batch(3)
        >>> [batch.numpy().tolist() for batch in without_small_batches(data, parts=2)]
        [[0, 1, 2], [3, 4, 5, 6]]
    """
    if parts * least == 1 or not isinstance(data, tf.data.Dataset):
        return data
    spec = data.element_spec
    size = tf.nest.flatten(spec)[0].shape[0]
    if size and smallest_part(size, parts) >= least:
        return data  # all batches have one size
    endless = data.cardinality() == tf.data.INFINITE_CARDINALITY

    def is_small(batch: Any) -> tf.Tensor:
        return smallest_part(_size(batch), parts) < least

    def step(waiting: Any, element: tuple[Any, tf.Tensor]) -> tuple[Any, Any]:
        batch, is_end = element
        waits = _size(waiting) > 0
        joins = waits & ~is_end & (is_small(batch) | is_small(waiting))
        joined = tf.cond(joins, lambda: _concatenated(waiting, batch), lambda: batch)
        return joined, (waiting, waits & ~joins)

    nothing = tf.nest.map_structure(_empty, spec)
    merged = (
        data.map(lambda *batch: (batch if isinstance(spec, tuple) else batch[0], False))
        .concatenate(tf.data.Dataset.from_tensors((nothing, True)))
        .scan(nothing, step)
        .filter(lambda _, is_complete: is_complete)
        .map(lambda batch, _: batch)
    )
    if endless:
        merged = merged.apply(tf.data.experimental.assert_cardinality(data.cardinality()))
    return merged.with_options(data.options())


def _size(batch: Any) -> tf.Tensor:
    return tf.shape(tf.nest.flatten(batch)[0])[0]


def _empty(spec: tf.TensorSpec) -> tf.Tensor:
    shape = [0, *(size or 0 for size in spec.shape[1:])]
    return tf.zeros(shape, spec.dtype) if spec.dtype != tf.string else tf.fill(shape, "")


def _concatenated(first: Any, second: Any) -> Any:
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), first, second)


def microbatch(batch: Batch, part: int, count: int) -> Batch:
    """One of the parts of a batch, whose sizes differ by at most one.

    Args:
        batch: tensors `[batch, ...]`, or None; the second is a tensor.
        part: index of the part, from 0.
        count: number of parts.

    Returns:
        The part of each tensor.

    Raises:
        tf.errors.InvalidArgumentError: when a step is run on fewer examples than parts.

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
    x, y, weight = (None if values is None else values[begin:end] for values in batch)
    return x, y, weight


def share_of_batch(
    loss: tf.Tensor, means: dict[str, tf.Tensor], share: tf.Tensor, microbatches: int
) -> tf.Tensor:
    """The contribution of a part to the mean loss of a batch; parts may differ in size.

    Args:
        loss: mean over the part, regularization included.
        means: means of its terms; `"regularization"` is the same for each part.
        share: fraction of the batch's examples that are in the part.
        microbatches: number of parts on each replica.
    """
    parts = replicas() * microbatches
    if parts == 1:
        return loss
    regularization = means.get("regularization", tf.zeros([], loss.dtype))
    return (loss - regularization) * tf.cast(share, loss.dtype) + regularization / parts


def added(first: Gradients, second: Gradients) -> Gradients:
    """The sum of two lists of gradients; None counts as zero."""
    return [
        b if a is None else a if b is None else a + b for a, b in zip(first, second, strict=True)
    ]


def apply_gradients(
    optimizer: keras.optimizers.Optimizer,
    gradients: Gradients,
    variables: Sequence[keras.Variable],
) -> None:
    """Updates the weights by the sum of the replicas' gradients, clipped as a sum.

    A Keras optimizer clips the gradient of each replica and sums afterwards, unlike the update on
    one device. Here the sum is clipped; each replica then passes an equal share of it to the
    optimizer, whose own clipping leaves it unchanged.

    Args:
        optimizer: may set `clipnorm`, `global_clipnorm` or `clipvalue`.
        gradients: one per variable, scaled by the optimizer's `scale_loss`; None where the loss
            does not depend on the variable.
        variables: the weights.
    """
    count = replicas()
    rule: Any = getattr(optimizer, "inner_optimizer", optimizer)
    if count > 1 and (rule.clipnorm or rule.global_clipnorm or rule.clipvalue):
        reached = [i for i, gradient in enumerate(gradients) if gradient is not None]
        summed = [global_sum(tf.convert_to_tensor(gradients[i])) for i in reached]
        # Clipping thresholds apply to gradients without the factor of mixed precision.
        factor = optimizer.scale_loss(tf.ones([]))
        gradients = list(gradients)
        for i, gradient in zip(reached, _clipped(rule, summed, factor), strict=True):
            gradients[i] = gradient / count
    optimizer.apply_gradients(zip(gradients, variables, strict=True))


def _clipped(
    rule: keras.optimizers.Optimizer, gradients: list[tf.Tensor], factor: tf.Tensor
) -> list[tf.Tensor]:
    if rule.clipnorm:
        return [tf.clip_by_norm(gradient, rule.clipnorm * factor) for gradient in gradients]
    if rule.global_clipnorm:
        return tf.clip_by_global_norm(gradients, rule.global_clipnorm * factor)[0]
    limit = rule.clipvalue * factor
    return [tf.clip_by_value(gradient, -limit, limit) for gradient in gradients]


def synchronize_batch_norm(model: keras.Model) -> None:
    """Makes batch norm compute its statistics over all replicas, if there are several.

    Otherwise each replica normalizes by the statistics of its own part and keeps running statistics
    of its own; a saved model holds those of one replica.

    Args:
        model: its layers are changed, including those of nested models.
    """
    if replicas() > 1:
        for layer in batch_norms(model):
            layer.synchronized = True


def batch_norms(model: keras.Model) -> Iterator[keras.layers.BatchNormalization]:
    """The batch-norm layers of a model, including those of nested models."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from batch_norms(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            yield layer


def check_optimizer(optimizer: keras.optimizers.Optimizer) -> None:
    """Raises ValueError if the optimizer accumulates gradients on several replicas."""
    rule: Any = getattr(optimizer, "inner_optimizer", optimizer)
    steps = getattr(rule, "gradient_accumulation_steps", None)
    if steps and replicas() > 1:
        raise ValueError(
            f"The optimizer has gradient_accumulation_steps={steps}, which Keras cannot do on "
            f"{replicas()} replicas. Build the robust model with microbatches={steps} and a batch "
            f"{steps} times as large instead: the update is the same, and so is the memory."
        )
