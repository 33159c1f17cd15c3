"""IBP: bounds from intervals, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from keras_robust.certification.backward import lower_from
from keras_robust.certification.bounds import Bounds
from keras_robust.certification.interval import Interval
from keras_robust.certification.network import Network
from keras_robust.certification.propagation import intervals_of
from keras_robust.certification.region import Region
from keras_robust.certification.rows import Rows, Tensor, part_size
from keras_robust.core.config import serializable
from keras_robust.core.types import Ball


@serializable
class Ibp(Bounds):
    """Interval bound propagation; see `ibp`."""

    name: ClassVar[str] = "IBP"
    ball: Ball

    def lower(self, network: Network, rows: Rows, region: Region) -> Tensor:
        """The affine layers after the last activation are folded into the rows."""
        return lower_by_ibp(network, rows, region, intervals_of(network, region))


def lower_by_ibp(
    network: Network, rows: Rows, region: Region, intervals: Sequence[Interval]
) -> Tensor:
    """Lower bounds of linear functions of the logits, `[batch, rows]`, from intervals."""
    size = part_size(rows.total, region.x.shape[0], network.largest)
    return rows.in_parts(lambda part: lower_from(network, part, intervals, region), size)


def ibp(ball: Ball) -> Ibp:
    """Interval bound propagation: the fastest bounds, and the loosest on a network not trained for.

    Each value of each layer is bounded by itself, which costs about two forward passes. The margins
    are bounded with the affine layers after the last activation folded in.

    Args:
        ball: an `LinfBall`, `L2Ball` or `L1Ball`.

    Returns:
        A function `(classifier, x, y, training=False) -> margins`; see `Bounds`.

    Raises:
        TypeError: a ball of your own, or not a threat model.

    Example:
        >>> import tensorflow as tf
        >>> import keras_robust as kr
        >>> model = kr.models.mlp((2, 2, 1), 3, hidden=(8,))
        >>> x, y = tf.fill([1, 2, 2, 1], 0.5), [0]
        >>> margins = ibp(kr.LinfBall(0.1))(model, x, y)
        >>> logits = model(x)["logits"]
        >>> bool(tf.reduce_all(margins <= logits[:, :1] - logits + 1e-5))
        True

    Reference: Gowal et al., "On the Effectiveness of Interval Bound Propagation for Training
    Verifiably Robust Models" (2018).
    """
    return Ibp(ball)
