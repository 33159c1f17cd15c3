"""CROWN-IBP: linear bounds of the margins between intervals from IBP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from keras_robust.certification.backward import lower_by_lines
from keras_robust.certification.bounds import Bounds, margins, prepared, without_autograph
from keras_robust.certification.ibp import lower_by_ibp
from keras_robust.certification.interval import Interval
from keras_robust.certification.network import Network
from keras_robust.certification.propagation import intervals_of
from keras_robust.certification.region import Region
from keras_robust.certification.rows import Rows, Tensor, check_rows, part_size
from keras_robust.core.config import serializable
from keras_robust.core.types import Ball, Images, Labels, Logits


@serializable
class CrownIbp(Bounds):
    """CROWN-IBP; see `crown_ibp`."""

    name: ClassVar[str] = "CROWN-IBP"
    ball: Ball
    rows: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rows("CrownIbp: rows", self.rows)

    def lower(self, network: Network, rows: Rows, region: Region) -> Tensor:
        """The better of the linear bounds and those of IBP itself."""
        intervals = intervals_of(network, region)
        return lower_by_both(network, rows, region, intervals, self.rows)

    @without_autograph
    def with_ibp(
        self, classifier: Any, x: Images, y: Labels, training: bool = False
    ) -> tuple[Logits, Logits]:
        """The margins by the linear bounds alone, and those of IBP from the same intervals.

        Training mixes them. Arguments and errors: as for a call.
        """
        network, region = prepared(classifier, x, self.ball, training)
        intervals = intervals_of(network, region)

        def crown(network: Network, rows: Rows, region: Region) -> Tensor:
            return lower_by_crown(network, rows, region, intervals, self.rows)

        def ibp(network: Network, rows: Rows, region: Region) -> Tensor:
            return lower_by_ibp(network, rows, region, intervals)

        return margins(crown, network, y, region), margins(ibp, network, y, region)


def lower_by_crown(
    network: Network,
    rows: Rows,
    region: Region,
    intervals: Sequence[Interval],
    size: int | None,
) -> Tensor:
    """Lower bounds of linear functions of the logits, `[batch, rows]`, by lines in intervals.

    Args:
        network: the network.
        rows: the functions.
        region: of the images.
        intervals: of all nodes.
        size: how many functions at a time; None for as many as fit.
    """
    if size is None:
        size = part_size(rows.total, region.x.shape[0], network.largest)
    last = len(network.nodes) - 1
    return rows.in_parts(lambda part: lower_by_lines(network, part, last, intervals, region), size)


def lower_by_both(
    network: Network,
    rows: Rows,
    region: Region,
    intervals: Sequence[Interval],
    size: int | None,
) -> Tensor:
    """The better of `lower_by_crown` and `lower_by_ibp`, of the same arguments."""
    return tf.maximum(
        lower_by_crown(network, rows, region, intervals, size),
        lower_by_ibp(network, rows, region, intervals),
    )


def crown_ibp(ball: Ball, *, rows: int | None = None) -> CrownIbp:
    """CROWN-IBP: CROWN for the margins, with the intervals of IBP for the layers between.

    Cheap enough to train with: the margins cost one backward pass per class. The linear bounds are
    mostly, not always, tighter than IBP's; the better of both is returned.

    Args:
        ball: an `LinfBall`, `L2Ball` or `L1Ball`.
        rows: how many margins are followed at a time, to bound the memory; None for as many as
            keep one tensor below 128 MiB.

    Returns:
        A function `(classifier, x, y, training=False) -> margins`; see `Bounds`. Its method
        `with_ibp` of the same arguments gives both margins apart, which training mixes.

    Raises:
        TypeError: a ball of your own, or not a threat model.
        ValueError: `rows` is not positive.

    Example:
        >>> import tensorflow as tf
        >>> import keras_robust as kr
        >>> model = kr.models.mlp((2, 2, 1), 3, hidden=(8,))
        >>> x, y = tf.fill([1, 2, 2, 1], 0.5), [0]
        >>> margins, by_ibp = crown_ibp(kr.LinfBall(0.1)).with_ibp(model, x, y)
        >>> margins.shape.as_list(), by_ibp.shape.as_list()
        ([1, 3], [1, 3])

    Reference: Zhang et al., "Towards Stable and Efficient Training of Verifiably Robust Neural
    Networks" (2020).
    """
    return CrownIbp(ball, rows)
