"""EAD: the elastic-net attack, minimum-norm in L1 with a share of L2."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from keras_robust.attacks.crafting import objectives
from keras_robust.attacks.crafting.const_search import LARGEST_CONST, closest_over_constants
from keras_robust.attacks.crafting.gradient_ascent import SingleObjective
from keras_robust.attacks.crafting.minimum_norm import (
    BestSoFar,
    MarginSearch,
    initial_best,
    keep_closest,
)
from keras_robust.attacks.crafting.norm_descent import margin_of, units_of
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, PerExample
from keras_robust.core.validation import check_ball, check_integer, check_number
from keras_robust.threat_models.clipping import allowed


@serializable
class Ead(MarginSearch):
    """EAD: the elastic-net attack: minimum-norm, by iterative shrinkage and thresholding.

    Minimizes `beta |x' - x|_1 + |x' - x|_2^2 + c max(confidence - margin(x'), 0)`; lengths are in
    units of the range of a pixel. Each step follows the gradient of the last two terms, then sets
    changes of less than `beta` to 0 and shortens the others by it. The constant `c` of each image
    is found by binary search, as in `carlini_wagner`.

    Args:
        ball: the threat model. The closest adversarial example is chosen in its norm, and counts
            within its radius; the elastic net is minimized in any ball.
        steps: the number of steps for each constant, >= 0.
        learning_rate: the first one, > 0; it falls with the root of the steps that are left.
        beta: the weight of L1, >= 0.
        initial_const: the first `c`, in (0, 1e10].
        binary_search_steps: how many constants are tried, >= 1; with 1, `initial_const` alone.
        confidence: the margin to reach, >= 0: by how much another logit exceeds the label's.
        targeted: reach `targets`, passed when the attack is called.

    Raises:
        TypeError: `ball` is not a threat model.
        ValueError: an argument out of range; when called, targets that are missing or not used.

    Example:
        >>> from keras_robust import L1Ball
        >>> attack = ead(L1Ball(0.5), steps=100, binary_search_steps=5, initial_const=0.1)
        >>> attack = attack.compiled(lambda x: {"logits": x})
        >>> x, y = tf.constant([[0.7, 0.3]]), tf.constant([0])
        >>> bool(tf.norm(attack(x, y) - x, ord=1) < 0.43)  # 0.4 to the tie of the logits
        True

    Reference: Chen et al., "EAD: Elastic-Net Attacks to Deep Neural Networks via Adversarial
    Examples" (2018), Algorithm 1.

    Differs: the decision rule is the distance in the norm of the ball; no run stops early.
    """

    ball: Ball
    steps: int = 200
    _: dataclasses.KW_ONLY
    learning_rate: float = 0.01
    beta: float = 0.01
    initial_const: float = 1e-3
    binary_search_steps: int = 9
    confidence: float = 0.0
    targeted: bool = False

    def __post_init__(self) -> None:
        check_ball(self.ball)
        check_integer("Ead: steps", self.steps)
        check_number("Ead: learning_rate", self.learning_rate, above=0)
        check_number("Ead: beta", self.beta)
        check_number("Ead: initial_const", self.initial_const, above=0, most=LARGEST_CONST)
        check_integer("Ead: binary_search_steps", self.binary_search_steps, 1)
        check_number("Ead: confidence", self.confidence)

    @property
    def name(self) -> str:  # type: ignore[override]
        """What reports call it."""
        return f"EAD-{self.steps}"

    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> BestSoFar:
        """The closest of all adversarial examples, over all constants."""
        del seed
        oracle = SingleObjective(self.objective(forward, x, y, targets))

        def margin(x_adv: Images) -> PerExample:
            return margin_of(forward(x_adv)["logits"], y, targets)

        return closest_over_constants(
            self.initial_const,
            self.binary_search_steps,
            initial_best(x, self._succeeds(margin(x))),
            lambda const, best: self._descend(oracle, margin, x, const, best),
        )

    def _descend(
        self,
        oracle: SingleObjective,
        margin: objectives.Value,
        x: Images,
        const: PerExample,
        best: BestSoFar,
    ) -> tuple[BestSoFar, tf.Tensor]:
        """All steps with one constant; the closest examples, and where it succeeded."""
        clean, unit = upcast_half(x), units_of(self.ball, x)

        def image(delta: tf.Tensor) -> Images:
            return tf.ensure_shape(allowed(self.ball, clean + unit * delta, x), x.shape)

        def body(
            index: tf.Tensor, last: tf.Tensor, slow: tf.Tensor, best: BestSoFar, success: tf.Tensor
        ) -> tuple:
            value, gradient, _ = oracle(image(slow), ())
            weight = tf.where(value < self.confidence, const, tf.zeros_like(const))
            down = 2 * slow - broadcast_to_images(weight, x) * upcast_half(gradient) * unit
            moved = self._shrink(slow - self._rate(index, slow.dtype) * down)
            x_adv = image(tf.where(tf.math.is_finite(moved), moved, last))
            moved = tf.math.divide_no_nan(upcast_half(x_adv) - clean, unit)
            adversarial = self._succeeds(margin(x_adv))
            best = keep_closest(self.ball, best, x, x_adv, adversarial)
            ahead = tf.cast(index, slow.dtype)
            slow = moved + ahead / (ahead + 3) * (moved - last)
            return index + 1, moved, slow, best, success | adversarial

        zeros = tf.zeros_like(clean)
        *_, best, success = tf.while_loop(
            lambda index, *_: index < self.steps,
            body,
            (tf.constant(0), zeros, zeros, best, tf.zeros_like(const, tf.bool)),
            parallel_iterations=1,
        )
        return best, success

    def _rate(self, index: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        left = 1 - tf.cast(index, dtype) / max(self.steps, 1)
        return self.learning_rate * tf.sqrt(left)

    def _shrink(self, delta: tf.Tensor) -> tf.Tensor:
        """Soft thresholding: changes are shortened by `beta`."""
        return tf.sign(delta) * tf.maximum(tf.abs(delta) - self.beta, 0)

    def _succeeds(self, margin: PerExample) -> tf.Tensor:
        return (margin > 0) & (margin >= self.confidence)


ead = Ead
