"""Linear functions of the output, followed backward through a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_robust.certification.interval import Interval
from keras_robust.certification.layers.rule import Tensor, dot
from keras_robust.certification.network import Network
from keras_robust.certification.rounding import slack


def pull_back(
    network: Network,
    rows: Tensor,
    position: int,
    intervals: Sequence[Interval],
    stops: Callable[[int], bool],
) -> tuple[dict[int, Tensor], Tensor]:
    """Bounds linear functions of a node from below by linear functions of earlier nodes.

    Args:
        network: the network.
        rows: coefficients `[batch, rows, *node]`.
        position: of the node.
        intervals: of all nodes before it.
        stops: whether a position is left as it is; the images always are.

    Returns:
        The coefficients of each position where it stopped, and a constant `[batch, rows]`.
    """
    pending, ends = {position: rows}, {}
    constant = tf.zeros(tf.shape(rows)[:2], rows.dtype)
    for at in range(position, -1, -1):
        if at not in pending:
            continue
        current, node = pending.pop(at), network.nodes[at]
        if node.rule is None or stops(at):
            ends[at] = current
            continue
        pulled, added = node.rule.backward(current, network.inputs_of(node, intervals))
        constant += added
        for source, part in zip(node.inputs, pulled, strict=True):
            pending[source] = pending[source] + part if source in pending else part
    return ends, constant


def minimum_on(rows: Tensor, interval: Interval) -> Tensor:
    """The minimum of `rows . z` for `z` in an interval, less the rounding error."""
    center = 0.5 * (interval.lower + interval.upper)
    radius = 0.5 * (interval.upper - interval.lower)
    size = rows.shape[2:].num_elements()
    radius += slack(size, rows.dtype) * interval.magnitude
    return dot(rows, center) - dot(tf.abs(rows), radius)
