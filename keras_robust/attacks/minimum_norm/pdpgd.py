"""PDPGD: primal-dual proximal gradient descent, a minimum-norm attack in L1, L2 and Linf."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting.adam import Moments
from keras_robust.attacks.crafting.norm_descent import NormDescent, Present, margin_of
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, scalar
from keras_robust.core.types import Ball, Labels, Logits, PerExample
from keras_robust.core.validation import check_integer, check_norm, check_number
from keras_robust.threat_models import proximal
from keras_robust.threat_models.norms import l2_norm, linf_norm

_LARGEST_LOG_RATIO = math.log(1e6)  # of the two weights
_PROXIMAL_STEPS = 5
_CONVERGED = 1e-2  # relative change of a proximal step


class _State(NamedTuple):
    moments: Moments
    log_ratio: PerExample  # of the weights of the margin and of the norm
    weight: PerExample  # of the margin, a running mean in (0, 1); the norm has the rest


@serializable
class Pdpgd(NormDescent):
    """PDPGD: a minimum-norm attack by proximal Adam steps, with a learned weight of the margin.

    Minimizes `(1 - w) |d|_p + w softplus(max(-margin, 0))`: Adam on the second term, then the
    proximal operator of the norm in Adam's metric. The weight `w` is the running mean of a sigmoid,
    whose argument rises where the image is not misclassified and falls where it is.

    Args:
        ball: the threat model, in L1, L2 or Linf. Images without an adversarial example within the
            radius stay unchanged.
        steps: the number of steps, >= 0, one gradient each.
        learning_rate: the first one of Adam, in units of the range of a pixel, > 0; it falls
            exponentially to a hundredth.
        initial_ratio: the first weight of the norm over that of the margin, in (0, 1].
        dual_learning_rate: by how much the argument of the sigmoid changes at first, > 0; it falls
            linearly to a tenth.
        dual_momentum: the weight of the past in the running mean, in [0, 1).
        targeted: reach `targets`, passed when the attack is called.

    Raises:
        TypeError: a ball in another norm.
        ValueError: an argument out of range; when called, targets that are missing or not used.

    Example:
        >>> from keras_robust import L1Ball
        >>> attack = pdpgd(L1Ball(0.5), steps=300).compiled(lambda x: {"logits": x})
        >>> x, y = tf.constant([[0.7, 0.3]]), tf.constant([0])
        >>> bool(tf.norm(attack(x, y) - x, ord=1) < 0.41)  # 0.4 to the tie of the logits
        True

    Reference: Matyasko and Chau, "PDPGD: Primal-Dual Proximal Gradient Descent Adversarial Attack"
    (2021); the proximal steps in Adam's metric: Melchior et al., "Proximal Adam: Robust Adaptive
    Update Scheme for Constrained Optimization" (2019).
    """

    ball: Ball
    steps: int = 500
    _: dataclasses.KW_ONLY
    learning_rate: float = 0.1
    initial_ratio: float = 0.01
    dual_learning_rate: float = 0.1
    dual_momentum: float = 0.9
    targeted: bool = False

    def __post_init__(self) -> None:
        check_norm("PDPGD", self.ball, (1, 2, math.inf))
        check_integer("Pdpgd: steps", self.steps)
        check_number("Pdpgd: learning_rate", self.learning_rate, above=0)
        check_number("Pdpgd: initial_ratio", self.initial_ratio, above=0, most=1)
        check_number("Pdpgd: dual_learning_rate", self.dual_learning_rate, above=0)
        check_number("Pdpgd: dual_momentum", self.dual_momentum, below=1)

    @property
    def name(self) -> str:  # type: ignore[override]
        """What reports call it."""
        return f"PDPGD-{self.steps}"

    def loss(self, logits: Logits, y: Labels, targets: Labels | None) -> PerExample:
        """Minus `softplus(max(-margin, 0))`."""
        return -tf.nn.softplus(tf.nn.relu(-margin_of(logits, y, targets)))

    def start(self, delta: tf.Tensor) -> _State:
        """The first weights."""
        zeros = tf.zeros_like(self.ball.distance(delta, delta))
        log_ratio = zeros - scalar(math.log(self.initial_ratio), zeros.dtype)
        return _State(Moments.zeros(delta), log_ratio, tf.sigmoid(log_ratio))

    def move(self, now: Present, state: _State) -> tuple[tf.Tensor, _State]:
        """A step of Adam, proximal steps, and a step of the weights."""
        done = tf.cast(now.index, now.delta.dtype) / max(self.steps, 1)
        rate = self.learning_rate * 0.01**done
        moments = state.moments.update(-now.gradient)
        step, scale = moments.step(now.index)
        moved = tf.clip_by_value(now.delta - rate * step, now.low, now.high)
        largest = linf_norm(scale)
        weight = (1 - state.weight) / state.weight * rate / largest
        metric = scale / broadcast_to_images(largest, scale)
        moved = self._proximal_steps(now, moved, weight, metric)

        change = self.dual_learning_rate * (1 - 0.9 * done) * tf.sign(-now.margin)
        bound = scalar(_LARGEST_LOG_RATIO, change.dtype)
        log_ratio = tf.clip_by_value(state.log_ratio + change, -bound, bound)
        past = self.dual_momentum
        mean = past * state.weight + (1 - past) * tf.sigmoid(log_ratio)
        return moved, _State(moments, log_ratio, mean)

    def _proximal_steps(
        self, now: Present, moved: tf.Tensor, weight: PerExample, metric: tf.Tensor
    ) -> tf.Tensor:
        """Minimizes the norm plus the squared distance from `moved` in a diagonal metric."""

        def body(index: tf.Tensor, point: tf.Tensor, active: tf.Tensor) -> tuple:
            target = point + metric * (moved - point)
            after = proximal.proximal(self.ball.p, target, weight)
            after = tf.clip_by_value(after, now.low, now.high)
            after = tf.where(broadcast_to_images(active, point), after, point)
            active &= l2_norm(after - point) > _CONVERGED * l2_norm(after)
            return index + 1, tf.ensure_shape(after, moved.shape), active

        start = (tf.constant(0), moved, tf.ones_like(weight, tf.bool))
        _, end, _ = tf.while_loop(
            lambda index, _, active: (index < _PROXIMAL_STEPS) & tf.reduce_any(active),
            body,
            start,
            parallel_iterations=1,
        )
        return end


pdpgd = Pdpgd
