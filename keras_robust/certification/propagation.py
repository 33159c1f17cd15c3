"""Interval bound propagation: the interval of each node, from the images on.

Reference: Gowal et al., "On the Effectiveness of Interval Bound Propagation for Training Verifiably
Robust Models" (2018), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.certification.interval import Interval
from keras_robust.certification.layers.activation import Activation
from keras_robust.certification.layers.rule import Affine, Tensor
from keras_robust.certification.network import Network, Node
from keras_robust.certification.region import Region
from keras_robust.certification.rounding import slack


def intervals_of(network: Network, region: Region) -> list[Interval]:
    """The interval of each node's output, the images first."""
    propagation = Propagation(network, region)
    for node in network.nodes[1:]:
        propagation.add(propagation.next_interval(node))
    return propagation.intervals


class _Ball(NamedTuple):
    """An image of the ball under affine layers that keep its pixels apart."""

    center: Tensor
    field: Tensor


class Propagation:
    """Intervals of the nodes so far.

    In L2 and L1 the first layer that mixes pixels is bounded by the dual norm of its weights too,
    and the better of both bounds holds.
    """

    def __init__(self, network: Network, region: Region) -> None:
        self.network = network
        self.region = region
        self.intervals = [region.box]
        self._balls = {} if region.is_box else {0: _Ball(region.x, region.field)}

    def add(self, interval: Interval) -> None:
        """Appends the interval of the next node."""
        self.intervals.append(interval)

    def next_interval(self, node: Node) -> Interval:
        """The interval of the node after those that were added."""
        rule: Any = node.rule
        inputs = self.network.inputs_of(node, self.intervals)
        interval = rule.interval(inputs)
        source = self._balls.get(node.inputs[0])
        if source is None or len(inputs) > 1 or not isinstance(rule, Affine):
            return interval
        center = rule.forward([source.center])
        if not rule.mixes:
            field = rule.linear([source.field], tf.abs)
            self._balls[len(self.intervals)] = _Ball(center, field)
            return interval
        radius = rule.dual_radius(source.field, self.region.p)
        if radius is None:
            return interval
        relative = slack(rule.fan_in, center.dtype)
        radius = radius * (1 + relative) + relative * rule.magnitude(inputs)
        return interval.intersection(Interval(center - radius, center + radius))


def loose_positions(network: Network, region: Region) -> list[int]:
    """Inputs of activations and pooling whose intervals are not the tightest: those to improve.

    Tightest are the values of the images themselves and, behind them, of the first layer that mixes
    values, as long as other layers have one input and treat each value by itself.
    """
    distance = [0]  # 0: values apart; 1: each value's bounds are exact; 2: they may be loose
    loose: dict[int, None] = {}
    for node in network.nodes[1:]:
        rule: Any = node.rule
        before = _largest(distance, node.inputs)
        affine = isinstance(rule, Affine)
        if not affine:
            loose |= {
                at: None
                for at in node.inputs
                if distance[at] == 2 and not _is_activated(network, at)
            }
        curved = not affine and not region.is_box
        if len(node.inputs) > 1 or curved or (rule.mixes and before):
            distance.append(2)
        else:
            distance.append(1 if rule.mixes else before)
    return list(loose)


def _is_activated(network: Network, position: int) -> bool:
    """Whether a node is an activation, which is bounded as tightly as its input."""
    return isinstance(network.nodes[position].rule, Activation)


def _largest(distance: Sequence[int], inputs: Sequence[int]) -> int:
    return max(distance[at] for at in inputs)
