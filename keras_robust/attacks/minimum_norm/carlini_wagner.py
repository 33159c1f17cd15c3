"""Carlini and Wagner's attack: the smallest Euclidean perturbation, by Adam."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting.adam import Moments
from keras_robust.attacks.crafting.const_search import LARGEST_CONST, closest_over_constants
from keras_robust.attacks.crafting.gradient_ascent import SingleObjective
from keras_robust.attacks.crafting.minimum_norm import (
    BestSoFar,
    MarginSearch,
    initial_best,
    keep_closest,
)
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, PerExample
from keras_robust.core.validation import check_bounded, check_integer, check_number
from keras_robust.threat_models.clipping import allowed
from keras_robust.threat_models.sparse_ball import refuse_sparse

# Scales images on the bounds inward: in the tanh space they are infinitely far away.
_INSIDE = 0.999999


class _Adam(NamedTuple):
    """A point of the tanh space, and the moments of its gradient."""

    w: tf.Tensor
    moments: Moments

    def descend(self, gradient: tf.Tensor, learning_rate: float, index: tf.Tensor) -> _Adam:
        """One step down the gradient; pixels with a non-finite step stay."""
        moments = self.moments.update(gradient)
        step, _ = moments.step(index)
        w = tf.where(tf.math.is_finite(step), self.w - learning_rate * step, self.w)
        return _Adam(w, moments)


@serializable
class CarliniWagner(MarginSearch):
    """Carlini and Wagner's L2 attack: minimum-norm, by Adam.

    Minimizes `|x' - x|^2 + c max(confidence - margin(x'), 0)` over `x' = tanh(w)`, scaled into the
    bounds; lengths are in units of the range of a pixel. The constant `c` of each image is
    multiplied by ten until the attack succeeds, and then found by binary search.

    Args:
        ball: the threat model. The closest adversarial example is chosen in its norm, and counts
            within its radius; the Euclidean length is minimized in any ball. Images without an
            adversarial example within the radius stay unchanged. For an attack without a radius:
            `L2Ball(math.sqrt(pixels))`.
        steps: steps of Adam for each constant, >= 0. The paper takes up to 10,000 with a learning
            rate of 0.01; a fifth of the steps at five times the rate ends about as close.
        learning_rate: of Adam, in the tanh space, >= 0.
        initial_const: the first `c`, in (0, 1e10].
        binary_search_steps: how many constants are tried, >= 1; with 1, `initial_const` alone.
        confidence: the margin to reach, >= 0: by how much another logit exceeds the label's.
        targeted: reach `targets`, passed when the attack is called.

    Raises:
        TypeError: `ball` is not a threat model.
        ValueError: an argument out of range; when called, targets that are missing or not used.

    Example:
        >>> import keras_robust as kr
        >>> attack = carlini_wagner(kr.L2Ball(0.5), steps=100, binary_search_steps=5)
        >>> attack = attack.compiled(lambda x: {"logits": x})
        >>> x_adv = attack(tf.constant([[0.7, 0.3]]), tf.constant([0]))
        >>> x_adv.numpy().round(2).tolist()  # the logits are tied at [0.5, 0.5]
        [[0.5, 0.5]]

    Reference: Carlini and Wagner, "Towards Evaluating the Robustness of Neural Networks" (2017),
    section V.C and VI.A, objective f6.

    Differs: the distance is that to the image itself, not to its round trip through the tanh
    space; and no run stops early when the loss of the batch no longer falls, so that the result of
    an image does not depend on its batch.
    """

    ball: Ball
    steps: int = 200
    learning_rate: float = 0.05
    _: dataclasses.KW_ONLY
    initial_const: float = 1e-3
    binary_search_steps: int = 9
    confidence: float = 0.0
    targeted: bool = False

    def __post_init__(self) -> None:
        check_bounded("CarliniWagner", self.ball)
        refuse_sparse("CarliniWagner", self.ball)
        check_integer("CarliniWagner: steps", self.steps)
        check_number("CarliniWagner: learning_rate", self.learning_rate)
        check_number(
            "CarliniWagner: initial_const", self.initial_const, above=0, most=LARGEST_CONST
        )
        check_integer("CarliniWagner: binary_search_steps", self.binary_search_steps, 1)
        check_number("CarliniWagner: confidence", self.confidence)

    @property
    def name(self) -> str:  # type: ignore[override]
        """What reports call it: with the constant if it is fixed."""
        fixed = f" c={self.initial_const:g}" if self.binary_search_steps == 1 else ""
        return f"C&W-{self.steps}{fixed}"

    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> BestSoFar:
        """The closest of all adversarial examples, over all constants."""
        del seed
        oracle = SingleObjective(self.objective(forward, x, y, targets))
        real = upcast_half(x)

        def run(const: PerExample, best: BestSoFar) -> tuple[BestSoFar, tf.Tensor]:
            start = _Adam(self._to_tanh(real), Moments.zeros(real))
            return self._descend(oracle, x, const, start, (best, tf.zeros_like(const, tf.bool)))

        initial = initial_best(x, self._succeeds(oracle(x, ())[0]))
        return closest_over_constants(self.initial_const, self.binary_search_steps, initial, run)

    def _descend(
        self, oracle: SingleObjective, x: Images, const: PerExample, start: _Adam, so_far: tuple
    ) -> tuple[BestSoFar, tf.Tensor]:
        """All steps of Adam with one constant; the closest examples, and where it succeeded."""

        def body(index: tf.Tensor, adam: _Adam, best: BestSoFar, success: tf.Tensor) -> tuple:
            tanh = tf.tanh(adam.w)
            x_adv = tf.ensure_shape(self._image(tanh, x), x.shape)
            margin, gradient, _ = oracle(x_adv, ())
            adversarial = self._succeeds(margin)
            best = keep_closest(self.ball, best, x, x_adv, adversarial)
            weight = tf.where(margin < self.confidence, const, tf.zeros_like(const))
            delta = (upcast_half(x_adv) - upcast_half(x)) / (2 * self._half_range()) ** 2
            down = 2 * delta - broadcast_to_images(weight, x) * upcast_half(gradient)
            down = down * self._half_range() * (1 - tanh**2)
            return (
                index + 1,
                adam.descend(down, self.learning_rate, index),
                best,
                (success | adversarial),
            )

        *_, best, success = tf.while_loop(
            lambda index, *_: index < self.steps,
            body,
            (tf.constant(0), start, *so_far),
            parallel_iterations=1,
        )
        return best, success

    def _succeeds(self, margin: PerExample) -> tf.Tensor:
        return (margin > 0) & (margin >= self.confidence)

    def _half_range(self) -> float:
        low, high = self.ball.bounds
        return (high - low) / 2

    def _image(self, tanh: tf.Tensor, x: Images) -> Images:
        center = sum(self.ball.bounds) / 2
        return allowed(self.ball, center + self._half_range() * tanh, x)

    def _to_tanh(self, x: Images) -> tf.Tensor:
        centered = (x - sum(self.ball.bounds) / 2) / self._half_range()
        return tf.atanh(_INSIDE * tf.clip_by_value(centered, -1, 1))


carlini_wagner = CarliniWagner
