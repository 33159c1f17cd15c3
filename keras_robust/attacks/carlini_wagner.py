"""Carlini and Wagner's attack: the smallest Euclidean perturbation, by Adam."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting import objectives
from keras_robust.attacks.crafting.gradient_ascent import SingleObjective
from keras_robust.attacks.crafting.minimum_norm import (
    BestSoFar,
    MinimumNormAttack,
    initial_best,
    keep_closest,
)
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, scalar, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, PerExample
from keras_robust.core.validation import check_integer
from keras_robust.threat_models.balls import clipped

# Adam's own constants (Kingma and Ba, 2015).
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
# Images on the bounds are drawn in by so much, as they lie infinitely far away in the tanh space.
_INSIDE = 0.999999
_LARGEST = 1e10


class _Adam(NamedTuple):
    """A point of the tanh space, and the moments of its gradient."""

    w: tf.Tensor
    mean: tf.Tensor
    square: tf.Tensor

    def moved(self, gradient: tf.Tensor, size: float, index: tf.Tensor) -> _Adam:
        """One step down the gradient; a pixel whose step is no number stays."""
        mean = _BETA_1 * self.mean + (1 - _BETA_1) * gradient
        square = _BETA_2 * self.square + (1 - _BETA_2) * gradient**2
        time = tf.cast(index + 1, gradient.dtype)
        step = mean / (1 - _BETA_1**time) / (tf.sqrt(square / (1 - _BETA_2**time)) + _EPSILON)
        return _Adam(tf.where(tf.math.is_finite(step), self.w - size * step, self.w), mean, square)


class _Search(NamedTuple):
    """The bisection of the constant: too little at `lower`, enough at `upper`; all `[batch]`."""

    constant: PerExample
    lower: PerExample
    upper: PerExample

    def after(self, found: tf.Tensor) -> _Search:
        """Ten times as much until a mistake was found, then halfway between the two."""
        upper = tf.where(found, self.constant, self.upper)
        lower = tf.where(found, self.lower, self.constant)
        middle = tf.where(upper < _LARGEST, (lower + upper) / 2, 10 * self.constant)
        return _Search(tf.minimum(middle, _LARGEST), lower, upper)


@serializable
class CarliniWagner(MinimumNormAttack):
    """Minimises `|x' - x|^2 + c max(confidence - margin(x'), 0)` over `x' = tanh(w)` by Adam.

    `x'` is scaled into the bounds, so that none has to be kept by force. The constant `c` of each
    image is searched for: ten times as much while nothing is found, then by bisection.

    Args:
        ball: the norm by which the nearest mistake is chosen, the bounds, and the radius within
            which it counts. What is minimised is the Euclidean length in any ball.
        steps: steps of Adam for each constant.
        learning_rate: of Adam, in the tanh space.
        constant: the first `c`.
        searches: how many constants are tried; with 1 it is `constant` alone.
        confidence: by how much another logit has to be ahead of the label's, >= 0.
        targeted: reach `targets`, passed when the attack is called.

    Raises:
        ValueError: a setting outside of its range; or, when called, targets that are missing or of
            no use.

    Example:
        >>> import keras_robust as kr
        >>> attack = CarliniWagner(kr.L2Ball(0.5), steps=100, searches=5)
        >>> x, y = tf.constant([[0.7, 0.3]]), tf.constant([0])
        >>> attack(lambda x: {"logits": x}, x, y).numpy().round(2).tolist()  # ties at [0.5, 0.5]
        [[0.5, 0.5]]

    Reference: Carlini and Wagner, "Towards Evaluating the Robustness of Neural Networks" (2017),
    section V.C and VI.A, objective f6.

    Differs: the distance is that to the image itself, not to its round trip through the tanh
    space; and no run is cut short where the loss of the batch no longer falls, so that an image's
    result does not depend on its batch mates.
    """

    ball: Any
    steps: int = 200
    learning_rate: float = 0.05
    constant: float = 1e-3
    searches: int = 9
    confidence: float = 0.0
    targeted: bool = False

    def __post_init__(self) -> None:
        check_integer("CarliniWagner: steps", self.steps)
        check_integer("CarliniWagner: searches", self.searches, 1)
        if not _is_number(self.learning_rate) or not 0 <= self.learning_rate < math.inf:
            raise ValueError(
                f"CarliniWagner: learning_rate is {self.learning_rate!r}; expected a number >= 0."
            )
        if not _is_number(self.constant) or not 0 < self.constant <= _LARGEST:
            raise ValueError(
                f"CarliniWagner: constant is {self.constant!r}; expected a number in (0, 1e10]."
            )
        if not _is_number(self.confidence) or not 0 <= self.confidence < math.inf:
            raise ValueError(
                f"CarliniWagner: confidence is {self.confidence!r}; expected a number >= 0."
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        """What reports call it: with the constant, where it is fixed."""
        fixed = f" c={self.constant:g}" if self.searches == 1 else ""
        return f"C&W-{self.steps}{fixed}"

    @property
    def gradient_steps(self) -> int:
        """The number of steps for each constant."""
        return self.steps

    @property
    def is_random(self) -> bool:
        """It always starts at the image."""
        return False

    @property
    def takes_targets(self) -> bool:
        """Whether it is targeted."""
        return self.targeted

    @property
    def objective(self) -> Any:
        """The margin, of the target where there is one."""
        return objectives.Targeted("margin") if self.targeted else objectives.LabelLoss("margin")

    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> BestSoFar:
        """The nearest of all mistakes seen, over all constants."""
        del seed
        climb = SingleObjective(self.objective(forward, x, y, targets))
        real = upcast_half(x)
        zeros = tf.zeros_like(real)
        first = tf.fill(tf.shape(x)[:1], scalar(self.constant, real.dtype))
        search = _Search(first, tf.zeros_like(first), tf.fill(tf.shape(first), first.dtype.max))

        def attempt(index: tf.Tensor, search: _Search, best: BestSoFar) -> tuple:
            start = _Adam(self._to_tanh(real), zeros, zeros)
            missed = tf.zeros_like(search.constant, tf.bool)
            best, found = self._descend(climb, x, search.constant, start, (best, missed))
            return index + 1, search.after(found), best

        none = initial_best(x, self._reached(climb(x, ())[0]))
        *_, best = tf.while_loop(
            lambda index, *_: index < self.searches,
            attempt,
            (tf.constant(0), search, none),
            parallel_iterations=1,
        )
        return best

    def _descend(
        self, climb: SingleObjective, x: Images, constant: PerExample, start: _Adam, so_far: tuple
    ) -> tuple[BestSoFar, tf.Tensor]:
        """All steps of Adam with one constant; the nearest mistake, and where there was one."""

        def step(index: tf.Tensor, adam: _Adam, best: BestSoFar, found: tf.Tensor) -> tuple:
            tanh = tf.tanh(adam.w)
            x_adv = tf.ensure_shape(self._image(tanh, x.dtype), x.shape)
            margin, gradient, _ = climb(x_adv, ())
            reached = self._reached(margin)
            best = keep_closest(self.ball, best, x, x_adv, reached)
            acts = tf.where(margin < self.confidence, constant, tf.zeros_like(constant))
            down = 2 * (upcast_half(x_adv) - upcast_half(x)) - broadcast_to_images(
                acts, x
            ) * upcast_half(gradient)
            adam = adam.moved(down * self._half() * (1 - tanh**2), self.learning_rate, index)
            return index + 1, adam, best, found | reached

        *_, best, found = tf.while_loop(
            lambda index, *_: index < self.steps,
            step,
            (tf.constant(0), start, *so_far),
            parallel_iterations=1,
        )
        return best, found

    def _reached(self, margin: PerExample) -> tf.Tensor:
        return (margin > 0) & (margin >= self.confidence)

    def _half(self) -> float:
        low, high = self.ball.bounds
        return (high - low) / 2

    def _image(self, tanh: tf.Tensor, dtype: tf.DType) -> Images:
        return clipped(self.ball.bounds, sum(self.ball.bounds) / 2 + self._half() * tanh, dtype)

    def _to_tanh(self, x: Images) -> tf.Tensor:
        centred = (x - sum(self.ball.bounds) / 2) / self._half()
        return tf.atanh(_INSIDE * tf.clip_by_value(centred, -1, 1))


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def carlini_wagner(
    ball: Ball,
    steps: int = 200,
    learning_rate: float = 0.05,
    *,
    constant: float = 1e-3,
    searches: int = 9,
    confidence: float = 0.0,
    targeted: bool = False,
) -> CarliniWagner:
    """Carlini and Wagner's L2 attack: the smallest perturbation, counted within the radius.

    Args:
        ball: the norm by which the nearest mistake is chosen, the bounds, and the radius within
            which it counts; images without one come back as they were. For an attack without a
            radius: `L2Ball(math.sqrt(pixels))`.
        steps: steps of Adam for each constant; the paper takes up to 10,000 of 0.01. A fifth of the
            steps, five times as long, ends about as near.
        learning_rate: of Adam, in the tanh space.
        constant: the first weight of the margin beside the squared distance.
        searches: how many constants are tried; 1 keeps `constant` as it is.
        confidence: by how much another logit has to be ahead of the label's.
        targeted: reach `targets`, passed when the attack is called.

    Returns:
        The attack.

    Raises:
        TypeError: a ball that is none.
        ValueError: a setting outside of its range.

    Example:
        >>> import keras_robust as kr
        >>> carlini_wagner(kr.L2Ball(28.0), 1000, 0.01, constant=0.7, searches=1).name
        'C&W-1000 c=0.7'

    Reference: Carlini and Wagner, "Towards Evaluating the Robustness of Neural Networks" (2017),
    section VI.A.
    """
    if not isinstance(ball, Ball):
        raise TypeError(
            f"ball is {ball!r}; expected a threat model, such as `keras_robust.L2Ball(0.5)`."
        )
    return CarliniWagner(ball, steps, learning_rate, constant, searches, confidence, targeted)
