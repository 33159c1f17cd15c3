"""What a robust model logs: its loss, the terms of it, and two accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_robust.core.types import Labels


class MetricTrackers:
    """Running means over the images of an epoch.

    Args:
        terms: the names of the loss's terms.
        others: the names of what is logged beside them: statistics of the loss, and what a
            defense learns beside the weights.

    Example:
        >>> [metric.name for metric in MetricTrackers(["clean"]).metrics]
        ['loss', 'clean', 'regularization', 'accuracy', 'robust_accuracy']
    """

    def __init__(self, terms: Sequence[str], others: Sequence[str] = ()):
        names = ("loss", *terms, "regularization", *others)
        self._means = {name: keras.metrics.Mean(name=name) for name in names}
        self._accuracies = {
            "clean": keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            "adversarial": keras.metrics.SparseCategoricalAccuracy(name="robust_accuracy"),
        }

    @property
    def metrics(self) -> list[Any]:
        """The metrics, in the order in which they are shown."""
        return [*self._means.values(), *self._accuracies.values()]

    def update(
        self, y: Labels, means: dict[str, tf.Tensor], outputs: dict[str, Any]
    ) -> dict[str, Any]:
        """Takes in a batch.

        Args:
            y: labels `[batch]`.
            means: the mean loss of the batch, and those of its terms there are.
            outputs: of the classifier, for `"clean"` and `"adversarial"` images; None where there
                are none.

        Returns:
            The values so far of what was taken in.
        """
        size = tf.shape(y)[0]
        fed: list[Any] = []
        for name, value in means.items():
            self._means[name].update_state(value, sample_weight=size)
            fed.append(self._means[name])
        for kind, accuracy in self._accuracies.items():
            if outputs[kind] is not None:
                logits = outputs[kind]["logits"]
                # Of images crafted on each member of an ensemble there are several batches.
                accuracy.update_state(tf.broadcast_to(y, tf.shape(logits)[:-1]), logits)
                fed.append(accuracy)
        return {metric.name: metric.result() for metric in fed}

    def unfed(self) -> list[str]:
        """The names of those that nothing was taken in by, eagerly."""
        # A variable of several replicas is no number before it is a tensor.
        return [m.name for m in self.metrics if not float(tf.convert_to_tensor(m.count))]
