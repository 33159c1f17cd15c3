"""The robust loss of a batch, and its gradient.

An attack may return one batch per member of an ensemble (`keras_robust.attacks.per_member`): a
tuple of batches. The classifier runs on them as one stack, in a single forward pass; its outputs
then have one more axis in front, `[sources, batch, ...]`, where source `i` was crafted on member
`i`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from keras_robust.core import collectives
from keras_robust.core.types import Images, Labels, Outputs, PerExample, RobustLoss
from keras_robust.losses.robust_loss import total
from keras_robust.training import distribution
from keras_robust.training.distribution import Batch, Gradients
from keras_robust.training.label_mixing import OtherLabels
from keras_robust.training.weight_perturbation import AWP, outputs_at

# "clean" and "adversarial" -> images or `Outputs`; None if not required. If a loss requires
# "bounds", these are outputs of a third kind.
ImagesByKind = dict[str, Images | None]
OutputsByKind = dict[str, Any]
Means = dict[str, tf.Tensor]  # the mean loss, "loss", and the means of its terms
# (outputs, x, y, x_adv, training) -> what a loss reads besides them, as
# `RobustModel.further_outputs`.
FurtherOutputs: TypeAlias = Callable[[OutputsByKind, Images, Labels, Images, bool], Outputs]
# (clean outputs, x, y, training) -> the worst-case outputs of each image, and scalar penalties that
# are minimized with the loss, as the losses that layers add.
WorstCaseBounds: TypeAlias = Callable[
    [Outputs, Images, Labels, bool], tuple[Outputs, Sequence[tf.Tensor]]
]


class TrainingLoss:
    """The robust loss of a classifier.

    Args:
        classifier: a built functional model.
        loss: the robust loss.
        microbatches: number of parts of a replica's batch.
        weight_perturbation: computes the gradient at perturbed weights; None for the weights.
        bounds: worst-case outputs by certified bounds, for a loss that requires `"bounds"`.
        further: further outputs that the loss requires; they join those of the adversarial images.
        observe: called with clean and adversarial images, and the gradient of the loss in the
            latter, which costs no backward pass of its own.
    """

    def __init__(
        self,
        classifier: keras.Model,
        loss: RobustLoss,
        microbatches: int = 1,
        weight_perturbation: AWP | None = None,
        bounds: WorstCaseBounds | None = None,
        further: FurtherOutputs | None = None,
        observe: Callable[[Images, Images, tf.Tensor], None] | None = None,
    ):
        self.classifier = classifier
        self.loss = loss
        self.microbatches = microbatches
        self.weight_perturbation = weight_perturbation
        self.bounds = bounds
        self.further = further
        self.observe = observe

    def measure(self, batch: Batch, x_adv: Images | None) -> tuple[OutputsByKind, Means]:
        """The loss in inference mode, and the outputs; clean outputs are always computed.

        Args:
            batch: images, labels and sample weights.
            x_adv: the adversarial images, or None.

        Returns:
            The outputs; the means of the loss and its terms.
        """
        x, y, weight = batch
        outputs = {"clean": self.classifier(x, training=False), "adversarial": None}
        if x_adv is not None:
            outputs["adversarial"] = self.classifier(x_adv, training=False)
        self._extend(outputs, batch, x_adv, training=False)
        losses = [*self.classifier.losses, *self._bound(outputs, x, y, training=False)]
        return outputs, self._means(y, outputs, weight, losses)

    def gradients(
        self,
        batch: Batch,
        x_adv: Images | None,
        size: tf.Tensor,
        optimizer: keras.optimizers.Optimizer,
        others: OtherLabels | None = None,
    ) -> tuple[Gradients, OutputsByKind, Means]:
        """The gradients of a part of a batch, its outputs and its mean loss.

        Args:
            batch: images, labels and sample weights of the part.
            x_adv: its adversarial images, or None; a tuple of batches if crafted per member.
            size: number of images in the whole batch.
            optimizer: scales the loss, for mixed precision.
            others: the second labels of mixed images; the loss is the weighted mean of the losses
                of both labels.

        Returns:
            One gradient per trainable weight; the required outputs; the means.
        """
        required = self._required(batch, x_adv)
        if self.weight_perturbation is not None:
            return self._perturbed_gradients(
                self.weight_perturbation, batch, required, size, optimizer, others
            )
        with tf.GradientTape() as tape:
            if self.observe is not None:
                tape.watch(x_adv)
            # Clean images first: each batch has its own statistics.
            results = [
                None if images is None else self.classifier(stacked(images), training=True)
                for images in required.values()
            ]
            outputs = _by_kind(required, results)
            losses = list(self.classifier.losses)
            self._extend(outputs, batch, x_adv, training=True)
            losses += self._bound(outputs, *batch[:2], training=True)
            means = self._means(batch[1], outputs, batch[2], losses, others)
            scaled = self._scaled(means, batch[1], size, optimizer)
        weights = self.classifier.trainable_variables
        return self._gradients(tape, scaled, weights, batch[0], x_adv), outputs, means

    def _gradients(
        self,
        tape: tf.GradientTape,
        scaled: tf.Tensor,
        weights: Sequence[Any],
        x: Images,
        x_adv: Images | None,
    ) -> Gradients:
        """The gradients in the weights; that in the images is observed."""
        if self.observe is None:
            return tape.gradient(scaled, weights)
        *gradients, in_images = tape.gradient(scaled, [*weights, x_adv])
        self.observe(x, x_adv, in_images)
        return gradients

    def _perturbed_gradients(
        self,
        rule: AWP,
        batch: Batch,
        required: ImagesByKind,
        size: tf.Tensor,
        optimizer: keras.optimizers.Optimizer,
        others: OtherLabels | None,
    ) -> tuple[Gradients, OutputsByKind, Means]:
        """The gradients at the perturbed weights.

        The weights themselves do not change. Of the two passes, only the second one updates
        batch-norm statistics and the seeds of dropout.
        """
        weights = [tf.convert_to_tensor(v) for v in self.classifier.trainable_variables]
        for last in (False, True):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                if last and self.observe is not None:
                    tape.watch(required["adversarial"])
                images = [stacked(images) for images in required.values()]
                results, state, losses = outputs_at(self.classifier, weights, images)
                outputs = _by_kind(required, results)
                with _at_weights(self.classifier, weights):
                    self._extend(outputs, batch, required["adversarial"], training=True)
                    losses = [*losses, *self._bound(outputs, *batch[:2], training=True)]
                means = self._means(batch[1], outputs, batch[2], losses, others)
                scaled = self._scaled(means, batch[1], size, optimizer)
            if not last:
                gradients = tape.gradient(scaled, weights)
                agreed = [None if g is None else collectives.global_sum(g) for g in gradients]
                weights = rule.perturbed(weights, agreed)
        gradients = self._gradients(tape, scaled, weights, batch[0], required["adversarial"])
        for variable, value in zip(self.classifier.non_trainable_variables, state, strict=True):
            variable.assign(value)
        return gradients, outputs, means

    def _required(self, batch: Batch, x_adv: Images | None) -> ImagesByKind:
        return {
            "clean": batch[0] if "clean" in self.loss.required_outputs else None,
            "adversarial": x_adv,
        }

    def _extend(
        self, outputs: OutputsByKind, batch: Batch, x_adv: Images | None, training: bool
    ) -> None:
        """Adds the further outputs to those of the adversarial images."""
        if self.further is not None:
            found = self.further(outputs, *batch[:2], x_adv, training)
            outputs["adversarial"] = {**outputs["adversarial"], **found}

    def _bound(
        self, outputs: OutputsByKind, x: Images, y: Labels, training: bool
    ) -> Sequence[tf.Tensor]:
        """Adds the worst-case outputs if the loss requires them; returns the penalties."""
        if self.bounds is None:
            return ()
        outputs["bounds"], penalties = self.bounds(outputs["clean"], x, y, training)
        return penalties

    def _means(
        self,
        y: Labels,
        outputs: OutputsByKind,
        weight: tf.Tensor | None,
        losses: Sequence[tf.Tensor],
        others: OtherLabels | None = None,
    ) -> Means:
        """The means of the loss, its terms, the layers' own losses and the statistics."""
        worst = "adversarial" if self.bounds is None else "bounds"
        values = self.loss(y, outputs[worst], outputs["clean"])
        if others is not None:
            second = self.loss(others.labels, outputs[worst], outputs["clean"])
            values = {
                name: second[name] + tf.cast(others.share, value.dtype) * (value - second[name])
                for name, value in values.items()
            }
        means = {name: _mean(values[name], weight) for name in self.loss.term_names}
        if losses:
            # Layers in half precision add losses in half precision.
            dtype = next(iter(means.values())).dtype
            added = [tf.reduce_sum(tf.cast(loss, dtype)) for loss in losses]
            means["regularization"] = tf.add_n(added)
        statistics = {name: _mean(values[name], None) for name in self.loss.logged_statistics}
        return {"loss": total(means), **means, **statistics}

    def _scaled(
        self, means: Means, y: Labels, size: tf.Tensor, optimizer: keras.optimizers.Optimizer
    ) -> tf.Tensor:
        """The part's contribution to the batch's loss, scaled for mixed precision."""
        share = tf.shape(y)[0] / size
        loss = distribution.share_of_batch(means["loss"], means, share, self.microbatches)
        return optimizer.scale_loss(loss)


def _by_kind(required: ImagesByKind, results: Sequence[Outputs | None]) -> OutputsByKind:
    """The outputs of each kind of images, separated by source if crafted per member."""
    return {
        kind: by_source(outputs, images)
        for (kind, images), outputs in zip(required.items(), results, strict=True)
    }


@contextlib.contextmanager
def _at_weights(classifier: keras.Model, weights: Sequence[tf.Tensor]) -> Iterator[None]:
    """Makes what reads the classifier's trainable weights read the given ones."""
    mapping = list(zip(classifier.trainable_variables, weights, strict=True))
    with keras.StatelessScope(state_mapping=mapping):
        yield


def stacked(images: Images | tuple[Images, ...] | None) -> Images | None:
    """Concatenates a tuple of batches, `[sources * batch, ...]`; a single batch is unchanged."""
    return tf.concat(images, axis=0) if isinstance(images, tuple) else images


def by_source(
    outputs: Outputs | None, images: Images | tuple[Images, ...] | None
) -> Outputs | None:
    """Splits the outputs of `stacked(images)` by source if the images are several batches.

    Example:
        >>> images = (tf.zeros([5, 4]), tf.ones([5, 4]))
        >>> outputs = by_source({"logits": tf.zeros([10, 3])}, images)
        >>> outputs["logits"].shape.as_list()
        [2, 5, 3]
    """
    if outputs is None or not isinstance(images, tuple):
        return outputs
    return {
        name: tf.reshape(value, [len(images), tf.shape(images[0])[0], *value.shape[1:]])
        for name, value in outputs.items()
    }


def _mean(term: PerExample, weight: tf.Tensor | None) -> tf.Tensor:
    """Mean over the batch. Weights multiply terms; the divisor is the batch size, as in Keras."""
    if weight is not None:
        term = term * tf.cast(tf.reshape(weight, tf.shape(term)), term.dtype)
    return tf.reduce_sum(term) / tf.cast(tf.shape(term)[0], term.dtype)
