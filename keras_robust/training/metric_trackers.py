"""The metrics that a robust model logs: its loss, its terms, and two accuracies."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_robust.core.types import Labels, Outputs


class MetricTrackers:
    """Running means over the images of an epoch.

    Args:
        terms: names of the loss's terms.
        others: names of further logged values: statistics of the loss, and state of a defense.

    Example:
        >>> [metric.name for metric in MetricTrackers(["clean"]).metrics]
        ['loss', 'clean', 'regularization', 'accuracy', 'robust_accuracy']
    """

    def __init__(self, terms: Sequence[str], others: Sequence[str] = ()):
        names = ("loss", *terms, "regularization", *others)
        # Which way is better, of everything but the loss, whose direction Keras knows.
        self.directions = {
            **dict.fromkeys((*terms, "regularization"), "min"),
            **{name: "max" if name.endswith("accuracy") else "" for name in others},
            **dict.fromkeys(("accuracy", "robust_accuracy"), "max"),
        }
        self._means = {name: keras.metrics.Mean(name=name) for name in names}
        self._accuracies = {
            "clean": keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            "adversarial": keras.metrics.SparseCategoricalAccuracy(name="robust_accuracy"),
        }

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics, in the order of the logs."""
        return [*self._means.values(), *self._accuracies.values()]

    def update(
        self, y: Labels, means: dict[str, tf.Tensor], outputs: dict[str, Outputs | None]
    ) -> dict[str, tf.Tensor]:
        """Updates the metrics with a batch.

        Args:
            y: labels `[batch]`.
            means: means over the batch, by name.
            outputs: the classifier's outputs for `"clean"` and `"adversarial"` images, or None.

        Returns:
            The running values of the metrics that were updated.
        """
        size = tf.shape(y)[0]
        updated: list[keras.metrics.Metric] = []
        for name, value in means.items():
            self._means[name].update_state(value, sample_weight=size)
            updated.append(self._means[name])
        for kind, accuracy in self._accuracies.items():
            found = outputs[kind]
            if found is not None:
                logits = found["logits"]
                # One more axis in front if the images were crafted per member.
                accuracy.update_state(tf.broadcast_to(y, tf.shape(logits)[:-1]), logits)
                updated.append(accuracy)
        return {metric.name: metric.result() for metric in updated}

    def not_updated(self) -> list[str]:
        """The names of the metrics without an update since they were reset; runs eagerly."""
        # A variable of several replicas must become a tensor before it becomes a number.
        return [m.name for m in self.metrics if not float(tf.convert_to_tensor(m.count))]
