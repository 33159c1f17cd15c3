"""The running statistics of batch norm, recomputed for the present weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.core import random
from keras_robust.core.types import Images, Labels
from keras_robust.training.distribution import batch_norms
from keras_robust.training.robust_model import RobustModel
from keras_robust.training.training_loss import stacked

# Folded into the seed, so that a training step does not draw the same noise.
_RECOMPUTATION = 2**31 - 2
# (images, labels, seed) -> the statistics of a batch.
_OfBatch = Callable[[Images, Labels, tf.Tensor], list[tf.Tensor]]


class BatchNormStatistics:
    """Recomputes the running statistics of a model's batch norm; weights do not change.

    Weights that were not reached by training steps, such as averaged ones, have no running
    statistics of their own. They become the mean of the means and variances of the batches, over
    the images that the loss reads, mixed as in training: clean ones, and adversarial ones, which
    are crafted with the statistics of the clean ones. Layers that are frozen keep theirs.

    Args:
        model: the robust model.

    Example:
        >>> import keras
        >>> import keras_robust as kr
        >>> layers = [keras.Input([2, 2, 1]), keras.layers.Flatten()]
        >>> norm = keras.layers.BatchNormalization()
        >>> classifier = keras.Sequential([*layers, norm, keras.layers.Dense(3)])
        >>> model = kr.defenses.standard(kr.models.adapt(classifier), kr.LinfBall(0.1))
        >>> labels = tf.zeros([5], tf.int32)
        >>> batches = [(tf.fill([5, 2, 2, 1], value), labels) for value in (0.0, 1.0)]
        >>> BatchNormStatistics(model).recompute(batches)
        >>> norm.moving_mean.numpy().tolist()
        [0.5, 0.5, 0.5, 0.5]

    Reference: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization"
    (SWA, 2018), section 3.2.
    """

    def __init__(self, model: RobustModel):
        self.model = model
        layers = list(batch_norms(model.classifier))
        self.variables = [v for one in layers for v in (one.moving_mean, one.moving_variance)]
        required = model.robust_loss.required_outputs
        self._kinds = [kind for kind in ("clean", "adversarial") if kind in required]
        self._of_clean = tf.function(self._clean, autograph=False, reduce_retracing=True)
        self._of_all = tf.function(self._all, autograph=False, reduce_retracing=True)

    def recompute(self, batches: Iterable[tuple[Any, Any]]) -> None:
        """Sets the statistics to those of the model's weights.

        Args:
            batches: `(images, labels)`, read twice if the loss reads adversarial images; each batch
                has the same weight.

        Raises:
            ValueError: no batches.
        """
        if not self.variables:
            return
        self._set(self._of_clean, batches)
        if "adversarial" in self._kinds:
            self._set(self._of_all, batches)

    def _set(self, of_batch: _OfBatch, batches: Iterable[tuple[Any, Any]]) -> None:
        begin = random.fold_in(as_seed(self.model.seed), _RECOMPUTATION)
        sums: list[tf.Tensor] = []
        count = 0
        for count, (x, y) in enumerate(batches, start=1):
            seed = random.fold_in(begin, count)
            found = of_batch(tf.convert_to_tensor(x), tf.convert_to_tensor(y), seed)
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        if not count:
            raise ValueError("There are no batches; expected at least one (images, labels).")
        for variable, value in zip(self.variables, sums, strict=True):
            variable.assign(value / count)

    def _clean(self, x: Images, y: Labels, seed: tf.Tensor) -> list[tf.Tensor]:
        return self._statistics(self._mixed(x, y, seed)[0])

    def _all(self, x: Images, y: Labels, seed: tf.Tensor) -> list[tf.Tensor]:
        x, y = self._mixed(x, y, seed)
        x_adv = stacked(self.model.craft(x, y, seed))
        found = [self._statistics(x)] if "clean" in self._kinds else []
        found.append(self._statistics(x_adv))
        return [tf.add_n(values) / len(found) for values in zip(*found, strict=True)]

    def _mixed(self, x: Images, y: Labels, seed: tf.Tensor) -> tuple[Images, Labels]:
        """The images as in training, with their first labels."""
        if self.model.mixing is None:
            return x, y
        return self.model.mixing(x, y, seed)[:2]

    def _statistics(self, x: Images) -> list[tf.Tensor]:
        """The means and variances of a batch, in the order of the variables."""
        classifier = self.model.classifier
        with _statistics_of_the_batch(classifier):
            _, state = classifier.stateless_call(
                [v.value for v in classifier.trainable_variables],
                [v.value for v in classifier.non_trainable_variables],
                x,
                training=True,
            )
        places = {id(v): i for i, v in enumerate(classifier.non_trainable_variables)}
        return [state[places[id(v)]] for v in self.variables]


@contextlib.contextmanager
def _statistics_of_the_batch(classifier: keras.Model) -> Iterator[None]:
    """Makes a call in training mode replace the running statistics by those of its batch."""
    layers = list(batch_norms(classifier))
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
