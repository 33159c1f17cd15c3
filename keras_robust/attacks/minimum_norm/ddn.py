"""DDN: decoupled direction and norm, a minimum-norm attack in L2."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from keras_robust.attacks.crafting.norm_descent import NormDescent, Present, cosine
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images
from keras_robust.core.types import Ball, Labels, Logits, PerExample
from keras_robust.core.validation import check_integer, check_norm, check_number
from keras_robust.losses import classification as losses
from keras_robust.threat_models.norms import l2_norm, l2_unit


@serializable
class Ddn(NormDescent):
    """DDN: a minimum-norm L2 attack that decides direction and length apart.

    The direction follows the gradient of the cross-entropy by steps that fall from 1 to 0.01 along
    a cosine. The length shrinks by the factor `1 - gamma` where the image is misclassified, and
    grows by `1 + gamma` where it is not.

    Args:
        ball: the threat model, in L2. Images without an adversarial example within the radius stay
            unchanged.
        steps: the number of steps, >= 0, one gradient each.
        gamma: by which fraction the length changes, in (0, 1).
        initial_norm: the first length, in units of the range of a pixel, > 0.
        targeted: reach `targets`, passed when the attack is called.

    Raises:
        TypeError: a ball in another norm.
        ValueError: an argument out of range; when called, targets that are missing or not used.

    Example:
        >>> from keras_robust import L2Ball
        >>> attack = ddn(L2Ball(0.5), steps=100).compiled(lambda x: {"logits": x})
        >>> x_adv = attack(tf.constant([[0.7, 0.3]]), tf.constant([0]))
        >>> x_adv.numpy().round(1).tolist()  # the logits are tied at [0.5, 0.5]
        [[0.5, 0.5]]

    Reference: Rony et al., "Decoupling Direction and Norm for Efficient Gradient-Based L2
    Adversarial Attacks and Defenses" (2019), Algorithm 1.

    Differs: pixels are not rounded to 256 levels.
    """

    ball: Ball
    steps: int = 500
    _: dataclasses.KW_ONLY
    gamma: float = 0.05
    initial_norm: float = 1.0
    targeted: bool = False

    def __post_init__(self) -> None:
        check_norm("DDN", self.ball, (2,))
        check_integer("Ddn: steps", self.steps)
        check_number("Ddn: gamma", self.gamma, above=0, below=1)
        check_number("Ddn: initial_norm", self.initial_norm, above=0)

    @property
    def name(self) -> str:  # type: ignore[override]
        """What reports call it."""
        return f"DDN-{self.steps}"

    def loss(self, logits: Logits, y: Labels, targets: Labels | None) -> PerExample:
        """The cross-entropy of the label, or minus that of the target."""
        if targets is None:
            return losses.cross_entropy(logits, y)
        return -losses.cross_entropy(logits, targets)

    def start(self, delta: tf.Tensor) -> PerExample:
        """The first length."""
        return tf.zeros_like(self.ball.distance(delta, delta)) + self.initial_norm

    def move(self, now: Present, state: PerExample) -> tuple[tf.Tensor, PerExample]:
        """One step of Algorithm 1."""
        step = cosine(now.index, self.steps, 1.0, 0.01, now.delta.dtype)
        direction = l2_unit(now.delta + step * l2_unit(now.gradient))
        length = tf.where(now.adversarial, (1 - self.gamma) * state, (1 + self.gamma) * state)
        farthest = l2_norm(tf.maximum(-now.low, now.high))
        length = tf.minimum(length, farthest)
        return broadcast_to_images(length, now.delta) * direction, length


ddn = Ddn
