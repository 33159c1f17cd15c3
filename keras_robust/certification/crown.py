"""CROWN: bounds by linear functions of the image, for every layer."""

from __future__ import annotations

from typing import ClassVar

import tensorflow as tf

from keras_robust.certification.backward import lower_by_lines
from keras_robust.certification.bounds import Bounds
from keras_robust.certification.crown_ibp import lower_by_both
from keras_robust.certification.interval import Interval
from keras_robust.certification.network import Network
from keras_robust.certification.propagation import Propagation, loose_positions
from keras_robust.certification.region import Region
from keras_robust.certification.rows import Rows, Tensor, both_ends, check_rows, part_size
from keras_robust.core.config import serializable
from keras_robust.core.types import Ball


@serializable
class Crown(Bounds):
    """CROWN; see `crown`."""

    name: ClassVar[str] = "CROWN"
    ball: Ball
    rows: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rows("Crown: rows", self.rows)

    def lower(self, network: Network, rows: Rows, region: Region) -> Tensor:
        """Linear bounds of the inputs of each activation first, then of the functions."""
        propagation = Propagation(network, region)
        loose = loose_positions(network, region)
        for position, node in enumerate(network.nodes[1:], start=1):
            interval = propagation.next_interval(node)
            if position in loose:
                interval = interval.intersection(self._by_lines(propagation, position))
            propagation.add(interval)
        return lower_by_both(network, rows, region, propagation.intervals, self.rows)

    def _by_lines(self, propagation: Propagation, position: int) -> Interval:
        """The interval of a node from linear bounds of each of its values."""
        network, region = propagation.network, propagation.region
        shape, x = network.nodes[position].shape, region.x
        rows = both_ends(shape, x.dtype)
        batch = tf.shape(x)[0] if x.shape[0] is None else x.shape[0]
        ends = rows.in_parts(
            lambda part: lower_by_lines(network, part, position, propagation.intervals, region),
            self.rows or part_size(rows.total, batch, network.largest),
        )
        lower, upper = tf.split(ends, 2, axis=1)
        return Interval(tf.reshape(lower, [-1, *shape]), tf.reshape(-upper, [-1, *shape]))


def crown(ball: Ball, *, rows: int | None = None) -> Crown:
    """CROWN: the tightest bounds here, for evaluation.

    Activations are replaced by two lines between bounds of their inputs, which are found by CROWN
    too, and the margins are followed backward to the image as linear functions. The cost is a
    backward pass for each value of each layer but the first: on a convolutional network thousands
    of passes per image. Call `crown(ball).compiled(classifier)` for many batches.

    Args:
        ball: an `LinfBall`, `L2Ball` or `L1Ball`.
        rows: how many linear functions are followed at a time, to bound the memory; None for as
            many as keep one tensor below 128 MiB.

    Returns:
        A function `(classifier, x, y, training=False) -> margins`; see `Bounds`.

    Raises:
        TypeError: a ball of your own, or not a threat model.
        ValueError: `rows` is not positive.

    Example:
        >>> import tensorflow as tf
        >>> import keras_robust as kr
        >>> model = kr.models.mlp((2, 2, 1), 3, hidden=(8, 8))
        >>> x, y = tf.fill([1, 2, 2, 1], 0.5), [0]
        >>> margins = crown(kr.LinfBall(0.1))(model, x, y)
        >>> logits = model(x)["logits"]
        >>> bool(tf.reduce_all(margins <= logits[:, :1] - logits + 1e-5))
        True

    Reference: Zhang et al., "Efficient Neural Network Robustness Certification with General
    Activation Functions" (2018), with the lower slope 0 or 1 (CROWN-Ada).

    Differs: each bound is the better of the linear one and that by intervals, so that none is
    looser than IBP's; in L2 and L1 also of those over the ball and over the range of the pixels.
    """
    return Crown(ball, rows)
