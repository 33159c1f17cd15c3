"""Linear functions of the output, followed backward through a network.

Reference: Zhang et al., "Efficient Neural Network Robustness Certification with General Activation
Functions" (2018); for any graph of layers: Xu et al., "Automatic Perturbation Analysis for Scalable
Certified Robustness and Beyond" (2020), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from keras_robust.certification.interval import Interval
from keras_robust.certification.layers.rule import Tensor
from keras_robust.certification.network import Network
from keras_robust.certification.region import Region, minimum_on


def lower_from(
    network: Network, rows: Tensor, intervals: Sequence[Interval], region: Region
) -> Tensor:
    """Lower bounds of functions of the logits, by the intervals before the last affine layers.

    Args:
        network: the network.
        rows: coefficients `[batch, rows, classes]`.
        intervals: of all nodes.
        region: of the images, which an affine network is bounded over.

    Returns:
        `[batch, rows]`.
    """
    ends, total = _pull_back(network, rows, len(network.nodes) - 1, intervals, to_images=False)
    for position, part in ends.items():
        total += region.minimum(part) if position == 0 else minimum_on(part, intervals[position])
    return total


def lower_by_lines(
    network: Network, rows: Tensor, position: int, intervals: Sequence[Interval], region: Region
) -> Tensor:
    """Lower bounds of functions of a node, by linear functions of the images.

    Args:
        network: the network.
        rows: coefficients `[batch, rows, *node]`.
        position: of the node.
        intervals: of all nodes before it, between which activations are replaced by lines.
        region: of the images.

    Returns:
        `[batch, rows]`.
    """
    ends, total = _pull_back(network, rows, position, intervals, to_images=True)
    return total + region.minimum(ends[0])


def _pull_back(
    network: Network, rows: Tensor, start: int, intervals: Sequence[Interval], to_images: bool
) -> tuple[dict[int, Tensor], Tensor]:
    """Bounds linear functions of a node from below by linear functions of earlier nodes.

    Returns:
        The coefficients of the nodes where it stopped, the images or else outputs of layers that
        are not affine, and a constant `[batch, rows]`.
    """
    pending, ends = {start: rows}, {}
    constant = tf.zeros([], rows.dtype)
    for at in range(start, -1, -1):
        if at not in pending:
            continue
        current, node = pending.pop(at), network.nodes[at]
        if node.rule is None or not (to_images or network.is_affine(at)):
            ends[at] = current
            continue
        pulled, added = node.rule.backward(current, network.inputs_of(node, intervals))
        constant += added
        for source, part in zip(node.inputs, pulled, strict=True):
            pending[source] = pending[source] + part if source in pending else part
    return ends, constant
