"""The graphs of an attack on one model, kept as long as the model lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from keras_robust.core.folded_batch_norm import folded
from keras_robust.core.graphs import AnyBatch
from keras_robust.core.kept_graphs import kept
from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Forward, Images, Labels, Radius
from keras_robust.core.validation import is_number

if TYPE_CHECKING:
    from keras_robust.attacks.crafting.base import Attack


class TracedAttack:
    """An attack on one model, as graphs.

    The size of the batch, the seed, the radius and the targets are arguments of a graph. In it,
    batch norm is folded into the layers before.
    """

    def __init__(self, attack: Attack, model: keras.Model | Forward, jit_compile: bool = False):
        model = folded(model)

        def run(
            x: Images, y: Labels, seed: tf.Tensor, radius: tf.Tensor | None, targets: Labels | None
        ) -> Images:
            own = attack if radius is None else attack.at_radius(radius)
            return own(model, x, y, seed=seed, targets=targets)

        self._own_radius = _own_radius(attack)
        self._run = AnyBatch(run, batched=(0, 1, 4), jit_compile=jit_compile)

    @property
    def traces(self) -> int:
        """The number of traces so far."""
        return self._run.traces

    def __call__(
        self, x: Images, y: Labels, seed: tf.Tensor, radius: Radius | None, targets: Labels | None
    ) -> Images:
        """Perturbs a checked batch, with a seed of shape `[2]`."""
        y, targets = (None if v is None else tf.cast(v, tf.int64) for v in (y, targets))
        radius = self._own_radius if radius is None else radius
        if radius is not None:
            radius = scalar(radius, upcast_half(x).dtype)
        return self._run(x, y, seed, radius, targets)


def traced(attack: Attack, model: keras.Model | Forward, jit_compile: bool = False) -> TracedAttack:
    """The graphs of an attack on a model; those of a Keras model are kept with it."""
    try:
        hash(attack)
    except TypeError:  # its settings hold an array or a tensor
        return TracedAttack(attack, model, jit_compile)
    return kept(model, (attack, jit_compile), lambda: TracedAttack(attack, model, jit_compile))


def _own_radius(attack: Attack) -> float | None:
    """The attack's radius, if a graph can have it as an argument."""
    radius: Any = attack.ball.radius
    if not is_number(radius) or float(radius) == 0:  # step sizes have no ratio to 0
        return None
    return float(radius)
