"""Interval bound propagation: the interval of each node, from the images on.

Reference: Gowal et al., "On the Effectiveness of Interval Bound Propagation for Training Verifiably
Robust Models" (2018), section 3.
"""

from __future__ import annotations

from keras_robust.certification.interval import Interval
from keras_robust.certification.network import Network
from keras_robust.certification.region import Region


def intervals_of(network: Network, region: Region) -> list[Interval]:
    """The interval of each node's output, the images first."""
    intervals = [region.box]
    for node in network.nodes[1:]:
        rule, inputs = node.rule, network.inputs_of(node, intervals)
        intervals.append(rule.interval(inputs))  # type: ignore[union-attr]
    return intervals
