"""FMN: the fast minimum-norm attack, in a ball whose radius follows the decision boundary."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting.norm_descent import NormDescent, Present, cosine
from keras_robust.core.config import serializable
from keras_robust.core.types import Ball, PerExample
from keras_robust.core.validation import check_integer, check_norm, check_number
from keras_robust.threat_models import proximal
from keras_robust.threat_models.l0_projection import counts_channels
from keras_robust.threat_models.norms import l2_unit


class _State(NamedTuple):
    radius: PerExample
    found: tf.Tensor  # where an adversarial example is known


@serializable
class Fmn(NormDescent):
    """FMN: a minimum-norm attack by projected gradient steps in a ball of varying radius.

    Each step follows the gradient of the margin by `alpha` in L2, and projects onto a ball
    whose radius shrinks by the factor `1 - gamma` where the image is misclassified and grows by
    `1 + gamma` where it is not; as long as no example is known, the radius is `1 + gamma` times the
    distance to the linearized boundary. The step size and `gamma` fall along a cosine.

    Args:
        ball: the threat model, in L0, L1, L2 or Linf. Images without an adversarial example within
            the radius stay unchanged.
        steps: the number of steps, >= 0, one gradient each.
        alpha: the first step size, in units of the range of a pixel, > 0; the last is a
            hundredth of it.
        gamma: by which fraction the radius changes at first, in [0, 1); in L0 by a pixel at least.
        gamma_final: the same at the end, in [0, 1).
        targeted: reach `targets`, passed when the attack is called.

    Raises:
        TypeError: a ball in another norm.
        ValueError: an argument out of range; when called, targets that are missing or not used.

    Example:
        >>> from keras_robust import L2Ball
        >>> attack = fmn(L2Ball(0.5), steps=100).compiled(lambda x: {"logits": x})
        >>> x_adv = attack(tf.constant([[0.7, 0.3]]), tf.constant([0]))
        >>> x_adv.numpy().round(2).tolist()  # the logits are tied at [0.5, 0.5]
        [[0.5, 0.5]]

    Reference: Pintor et al., "Fast Minimum-Norm Adversarial Attacks through Adaptive Norm
    Constraints" (2021), Algorithm 1.

    Differs: the first radius leads beyond the boundary, on which linear models would end in a tie;
    in L0, pixels of several channels are kept or left as a whole, unless the ball counts
    `per_channel`.
    """

    ball: Ball
    steps: int = 500
    _: dataclasses.KW_ONLY
    alpha: float = 1.0
    gamma: float = 0.05
    gamma_final: float = 0.001
    targeted: bool = False

    def __post_init__(self) -> None:
        check_norm("FMN", self.ball, (0, 1, 2, math.inf))
        check_integer("Fmn: steps", self.steps)
        check_number("Fmn: alpha", self.alpha, above=0)
        check_number("Fmn: gamma", self.gamma, below=1)
        check_number("Fmn: gamma_final", self.gamma_final, below=1)

    @property
    def name(self) -> str:  # type: ignore[override]
        """What reports call it."""
        return f"FMN-{self.steps}"

    def start(self, delta: tf.Tensor) -> _State:
        """One pixel in L0; elsewhere the first gradient gives the radius."""
        zeros = tf.zeros_like(self.ball.distance(delta, delta))
        return _State(zeros + 1, tf.zeros_like(zeros, tf.bool))

    def move(self, now: Present, state: _State) -> tuple[tf.Tensor, _State]:
        """One step of Algorithm 1."""
        dtype = now.delta.dtype
        step = cosine(now.index, self.steps, self.alpha, self.alpha / 100, dtype)
        gamma = cosine(now.index, self.steps, self.gamma, self.gamma_final, dtype)
        found = state.found | now.adversarial
        if self.ball.p == 0:
            radius = self._next_count(now, state.radius, gamma)
        else:
            radius = self._next_radius(now, state.radius, found, gamma)
        moved = now.delta + step * l2_unit(now.gradient)
        per_channel = counts_channels(self.ball)
        moved = proximal.onto_radius(self.ball.p, moved, radius, per_channel)
        return moved, _State(radius, found)

    def _next_radius(
        self, now: Present, radius: PerExample, found: tf.Tensor, gamma: tf.Tensor
    ) -> PerExample:
        slope = proximal.dual_norm(self.ball.p, now.gradient)
        boundary = tf.abs(now.margin) / tf.maximum(slope, 1e-12)
        boundary = (1 + gamma) * (boundary + proximal.norm(self.ball.p, now.delta))
        outside = tf.where(found, radius * (1 + gamma), boundary)
        return tf.where(now.adversarial, tf.minimum(radius * (1 - gamma), now.best), outside)

    def _next_count(self, now: Present, radius: PerExample, gamma: tf.Tensor) -> PerExample:
        fewer = tf.minimum(radius - 1, tf.floor(radius * (1 - gamma)))
        more = tf.maximum(radius + 1, tf.floor(radius * (1 + gamma)))
        pixels = tf.cast(tf.reduce_prod(tf.shape(now.delta)[1:]), more.dtype)
        radius = tf.where(now.adversarial, tf.minimum(fewer, now.best), tf.minimum(more, pixels))
        return tf.maximum(radius, 0)


fmn = Fmn
