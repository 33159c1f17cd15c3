"""The base of bounds: what all methods share."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import tensorflow as tf

from keras_robust.certification.margins import label_mask
from keras_robust.certification.network import Network, network_of
from keras_robust.certification.region import Region, check_ball, region_around
from keras_robust.certification.rows import Rows, Tensor, both_ends, each_margin
from keras_robust.core.config import replace
from keras_robust.core.graphs import compiled
from keras_robust.core.labels import class_numbers
from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Ball, Images, Labels, Logits, Radius

Function = TypeVar("Function", bound=Callable[..., Any])


def without_autograph(function: Function) -> Function:
    """Marks a function that a user's `tf.function` is not to rewrite, which would take seconds."""
    marked: Function = tf.autograph.experimental.do_not_convert(function)
    return marked


class Bounds(abc.ABC):
    """Bounds of a classifier's logits over a ball; `ibp`, `crown` and `crown_ibp` make them.

    They hold for every image in the ball that lies in the range of a pixel, in exact arithmetic and
    for the model as it computes in float32: they are widened by the rounding errors, a relative
    amount of 1e-6 to 1e-5 per layer that `keras_robust.certification.rounding` states.

    Attributes:
        ball: the threat model.
        name: of the method.
    """

    ball: Ball
    name: ClassVar[str]

    def __post_init__(self) -> None:
        check_ball(self.ball)

    @abc.abstractmethod
    def lower(self, network: Network, rows: Rows, region: Region) -> Tensor:
        """Lower bounds `[batch, rows]` of linear functions of the logits."""

    @without_autograph
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
            TypeError: not a model that can be followed, or images that are not floats.
            ValueError: a layer that is not covered, by name, or an invalid batch.
        """
        network, region = prepared(classifier, x, self.ball, training)
        return margins(self.lower, network, y, region)

    @without_autograph
    def logits(self, classifier: Any, x: Images, training: bool = False) -> tuple[Logits, Logits]:
        """Lower and upper bounds of the logits over the ball, each `[batch, classes]`.

        Margins are tighter than the differences of these. Arguments and errors: as for a call.
        """
        network, region = prepared(classifier, x, self.ball, training)
        rows = both_ends((network.classes,), region.x.dtype)
        bounds = _unless_broken(self.lower(network, rows, region), network, region)
        lower, upper = tf.split(bounds, 2, axis=1)
        return lower, -upper

    def at_radius(self, radius: Radius) -> Bounds:
        """The same bounds in a ball of another radius, which may be a scalar tensor."""
        return replace(self, ball=self.ball.replace(radius=radius))

    def compiled(self, classifier: Any) -> Callable[..., Logits]:
        """The margins of one classifier as a `tf.function`, traced once for all radii.

        Args:
            classifier: as for a call.

        Returns:
            A function `(x, y, radius=None) -> margins`.

        Example:
            >>> import keras_robust as kr
            >>> model = kr.models.mlp((2, 2, 1), 3, hidden=(8,))
            >>> margins = kr.certification.ibp(kr.LinfBall(0.1)).compiled(model)
            >>> margins(tf.fill([2, 2, 2, 1], 0.5), [0, 1], radius=0.05).shape.as_list()
            [2, 3]
        """
        network_of(classifier)

        @compiled
        def run(x: Images, y: Labels, radius: tf.Tensor | None) -> Logits:
            bounds = self if radius is None else self.at_radius(radius)
            return bounds(classifier, x, y)

        def margins_of(x: Images, y: Labels, radius: Radius | None = None) -> Logits:
            # Values are known here, before they become symbols of a graph.
            x = region_around(x, self.ball).x
            y = class_numbers("Labels", y, x, network_of(classifier).classes)
            if radius is not None:
                self.at_radius(radius)  # raises unless it is one
                radius = scalar(radius, upcast_half(x).dtype)
            return run(x, y, radius)

        return margins_of


def prepared(classifier: Any, x: Images, ball: Ball, training: bool) -> tuple[Network, Region]:
    """The rules of a classifier and the images around a batch, both checked."""
    network, region = network_of(classifier), region_around(x, ball)
    shape = network.nodes[0].shape
    if region.x.shape.rank != 1 + len(shape) or not region.x.shape[1:].is_compatible_with(shape):
        raise ValueError(
            f"Images have shape {tuple(region.x.shape)}; expected "
            f"[batch, {', '.join(map(str, shape))}], as the classifier takes."
        )
    if training:
        network = network.with_batch_statistics(region.x)
    return network, region


def margins(
    lower: Callable[[Network, Rows, Region], Tensor], network: Network, y: Labels, region: Region
) -> Logits:
    """The margins by a method that bounds linear functions of the logits."""
    y = class_numbers("Labels", y, region.x, network.classes)
    rows = each_margin(y, network.classes, region.x.dtype)
    bounds = _unless_broken(lower(network, rows, region), network, region)
    # A batch of unknown size hides the number of classes from TensorFlow.
    bounds = tf.ensure_shape(bounds, [None, network.classes])
    return tf.where(label_mask(y, bounds), tf.zeros_like(bounds), bounds)


def _unless_broken(bounds: Tensor, network: Network, region: Region) -> Tensor:
    """NaN in the place of bounds of a network or image with values that are not finite."""
    axes = list(range(1, region.x.shape.rank))
    finite = tf.reduce_all(tf.math.is_finite(region.x), axis=axes) & network.finite()
    return tf.where(finite[:, None], bounds, tf.constant(float("nan"), bounds.dtype))
