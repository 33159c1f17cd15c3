"""The base of bounds: what all methods share."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import tensorflow as tf

from keras_robust.certification.layers.rule import Tensor
from keras_robust.certification.margins import label_mask, margin_rows
from keras_robust.certification.network import Network, network_of
from keras_robust.certification.region import Region, check_ball, region_around
from keras_robust.core.config import replace
from keras_robust.core.labels import class_numbers
from keras_robust.core.types import Ball, Images, Labels, Logits, Radius


class Bounds(abc.ABC):
    """Bounds of a classifier's logits over a ball; `ibp`, `crown` and `crown_ibp` make them.

    They hold for every image in the ball that lies in the range of a pixel, in exact arithmetic and
    for the model as it computes in float32: they are widened by the rounding errors, a relative
    amount per layer that `keras_robust.certification.rounding` states (1e-6 to 1e-4).

    Attributes:
        ball: the threat model.
        name: of the method.
    """

    ball: Ball
    name: ClassVar[str]

    def __post_init__(self) -> None:
        check_ball(self.ball)

    @abc.abstractmethod
    def lower(self, network: Network, rows: Tensor, region: Region) -> Tensor:
        """Lower bounds `[batch, rows]` of functions of the logits, `[batch, rows, classes]`."""

    def __call__(self, classifier: Any, x: Images, y: Labels, training: bool = False) -> Logits:
        """Lower bounds of the margins `z_y - z_j` over the ball around each image.

        Differentiable with respect to the weights, and usable inside a `tf.function`.

        Args:
            classifier: a functional model `images -> {"logits", ...}`, or a `RobustModel`.
            x: clean images `[batch, ...]`, float, inside the ball's bounds.
            y: true labels `[batch]`.
            training: whether batch normalization takes the statistics of the clean `x`, which it
                does not update. Dropout passes values on either way.

        Returns:
            `[batch, classes]`; 0 for `j = y`, NaN if a weight or pixel is not finite.

        Raises:
            TypeError: not a model that can be followed.
            ValueError: a layer that is not covered, by name, or an invalid batch.
        """
        network, region = self._prepared(classifier, x, training)
        y = class_numbers("Labels", y, region.x, network.classes)
        rows = margin_rows(y, network.classes, region.x.dtype)
        margins = _unless_broken(self.lower(network, rows, region), network, region)
        return tf.where(label_mask(y, margins), tf.zeros_like(margins), margins)

    def logits(self, classifier: Any, x: Images, training: bool = False) -> tuple[Logits, Logits]:
        """Lower and upper bounds of the logits over the ball, each `[batch, classes]`.

        Margins are tighter than the differences of these.
        """
        network, region = self._prepared(classifier, x, training)
        eye = tf.eye(network.classes, dtype=region.x.dtype)
        rows = tf.tile(tf.concat([eye, -eye], axis=0)[None], [tf.shape(region.x)[0], 1, 1])
        bounds = _unless_broken(self.lower(network, rows, region), network, region)
        lower, upper = tf.split(bounds, 2, axis=1)
        return lower, -upper

    def at_radius(self, radius: Radius) -> Bounds:
        """The same bounds in a ball of another radius, which may be a scalar tensor."""
        return replace(self, ball=self.ball.replace(radius=radius))  # type: ignore[type-var]

    def _prepared(self, classifier: Any, x: Images, training: bool) -> tuple[Network, Region]:
        network = network_of(classifier)
        region = region_around(x, self.ball)
        if training:
            network = network.with_batch_statistics(region.x)
        return network, region


def _unless_broken(bounds: Tensor, network: Network, region: Region) -> Tensor:
    """NaN in the place of bounds of a network or image with values that are not finite."""
    axes = list(range(1, region.x.shape.rank))
    finite = tf.reduce_all(tf.math.is_finite(region.x), axis=axes) & network.finite()
    nan = tf.constant(float("nan"), bounds.dtype)
    return tf.where(finite[:, None], bounds, nan)
