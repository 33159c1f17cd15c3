"""What a training step minimises: the robust loss of a batch, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_robust.core import collectives
from keras_robust.core.types import Images, Labels, PerExample, RobustLoss
from keras_robust.losses.robust_loss import total
from keras_robust.training import distribution
from keras_robust.training.per_member_batches import by_source, stacked
from keras_robust.training.weight_perturbation import AWP, outputs_at

Batch = tuple[Any, ...]  # images, labels, and weights or None
Outputs = dict[str, Any]  # of "clean" and "adversarial" images; None where they are not needed
Means = dict[str, tf.Tensor]  # the mean loss, under "loss", and those of its terms


class TrainingLoss:
    """The robust loss of a classifier.

    Args:
        classifier: a built functional model.
        loss: the robust loss.
        microbatches: into how many parts a replica's batch is cut.
        weight_perturbation: where to take the gradient; None for where the weights are.
    """

    def __init__(
        self,
        classifier: keras.Model,
        loss: RobustLoss,
        microbatches: int = 1,
        weight_perturbation: AWP | None = None,
    ):
        self.classifier = classifier
        self.loss = loss
        self.microbatches = microbatches
        self.weight_perturbation = weight_perturbation

    def measure(self, batch: Batch, x_adv: Images | None) -> tuple[Outputs, Means]:
        """The outputs in inference mode, clean ones always, and the loss.

        Args:
            batch: images, labels and sample weights.
            x_adv: the adversarial images, or None.

        Returns:
            The outputs; the mean loss and those of its terms.
        """
        x, y, weight = batch
        outputs = {"clean": self.classifier(x, training=False), "adversarial": None}
        if x_adv is not None:
            outputs["adversarial"] = self.classifier(x_adv, training=False)
        return outputs, self._means(y, outputs, weight, self.classifier.losses)

    def gradients(
        self, batch: Batch, x_adv: Images | None, size: tf.Tensor, optimizer: Any
    ) -> tuple[list[Any], Outputs, Means]:
        """The gradients of a part of a batch, with what was found on the way.

        Args:
            batch: images, labels and sample weights of the part.
            x_adv: its adversarial images, or None; a tuple of batches where they were crafted on
                each member of an ensemble.
            size: how many images the whole batch has.
            optimizer: scales the loss, for mixed precision.

        Returns:
            One gradient for each trainable weight; the outputs that the loss needs; the means.
        """
        needed = self._needed(batch, x_adv)
        if self.weight_perturbation is not None:
            return self._gradients_elsewhere(
                self.weight_perturbation, batch, needed, size, optimizer
            )
        with tf.GradientTape() as tape:
            # Clean images first: each batch has its own statistics.
            found = [
                None if images is None else self.classifier(stacked(images), training=True)
                for images in needed.values()
            ]
            outputs = _named(needed, found)
            means = self._means(batch[1], outputs, batch[2], self.classifier.losses)
            scaled = self._scaled(means, batch[1], size, optimizer)
        return tape.gradient(scaled, self.classifier.trainable_variables), outputs, means

    def _gradients_elsewhere(
        self, rule: AWP, batch: Batch, needed: dict[str, Any], size: tf.Tensor, optimizer: Any
    ) -> tuple[list[Any], Outputs, Means]:
        """The gradients at the perturbed weights.

        No weight is touched: the update starts from the weights as they are, to the bit. Of the
        two passes the second one alone moves statistics and the seeds of dropout.
        """
        weights = [tf.convert_to_tensor(v) for v in self.classifier.trainable_variables]
        for last in (False, True):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                images = [stacked(images) for images in needed.values()]
                found, state, losses = outputs_at(self.classifier, weights, images)
                outputs = _named(needed, found)
                means = self._means(batch[1], outputs, batch[2], losses)
                scaled = self._scaled(means, batch[1], size, optimizer)
            gradients = tape.gradient(scaled, weights)
            if not last:
                agreed = [None if g is None else collectives.global_sum(g) for g in gradients]
                weights = rule.perturbed(weights, agreed)
        for variable, value in zip(self.classifier.non_trainable_variables, state, strict=True):
            variable.assign(value)
        return gradients, outputs, means

    def _needed(self, batch: Batch, x_adv: Images | None) -> dict[str, Any]:
        return {
            "clean": batch[0] if "clean" in self.loss.required_outputs else None,
            "adversarial": x_adv,
        }

    def _means(
        self,
        y: Labels,
        outputs: Outputs,
        weight: tf.Tensor | None,
        losses: Sequence[tf.Tensor],
    ) -> Means:
        """The mean loss of the batch, its mean terms, what layers added, and its statistics."""
        values = self.loss(y, outputs["adversarial"], outputs["clean"])
        means = {name: _mean(values[name], weight) for name in self.loss.term_names}
        if losses:
            # Layers in half precision add losses in half precision.
            dtype = next(iter(means.values())).dtype
            added = [tf.reduce_sum(tf.cast(loss, dtype)) for loss in losses]
            means["regularization"] = tf.add_n(added)
        seen = {name: _mean(values[name], None) for name in self.loss.logged_statistics}
        return {"loss": total(means), **means, **seen}

    def _scaled(self, means: Means, y: Labels, size: tf.Tensor, optimizer: Any) -> tf.Tensor:
        """What to differentiate: the share of the batch's loss, scaled for mixed precision."""
        share = tf.shape(y)[0] / size
        loss = distribution.share_of_batch(means["loss"], means, share, self.microbatches)
        return optimizer.scale_loss(loss)


def _named(needed: dict[str, Any], found: Sequence[Any]) -> Outputs:
    """The outputs by the kind of their images; of each source, where there are several."""
    return {
        kind: by_source(outputs, images)
        for (kind, images), outputs in zip(needed.items(), found, strict=True)
    }


def _mean(term: PerExample, weight: tf.Tensor | None) -> tf.Tensor:
    """Mean over the batch. Weights multiply; the divisor stays the batch size, as in Keras."""
    if weight is not None:
        term = term * tf.cast(tf.reshape(weight, tf.shape(term)), term.dtype)
    return tf.reduce_sum(term) / tf.cast(tf.shape(term)[0], term.dtype)
