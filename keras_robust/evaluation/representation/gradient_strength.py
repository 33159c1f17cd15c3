"""Strengths of the two gradients of a soft-ball attack: of the loss, and of the transport cost."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack, check_attack
from keras_robust.attacks.crafting.gradient_ascent import value_and_gradient
from keras_robust.attacks.crafting.step_rules import SoftBallStep
from keras_robust.core.classifier import as_forward, classifier_of
from keras_robust.core.config import replace
from keras_robust.core.graphs import compiled
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Images, Labels
from keras_robust.evaluation.running.batching import Data, Model, attacked


@dataclasses.dataclass(frozen=True, eq=False)
class GradientStrengths:
    """Gradients at attacked images, one number per pixel.

    Args:
        push: gradient of each image's objective, `[n, pixels]`.
        pull: gradient of the smoothed transport cost, `[n, pixels]`, without the multiplier.
    """

    push: np.ndarray
    pull: np.ndarray

    def quantiles(self, fraction: float = 0.99) -> tuple[float, float]:
        """The size that a fraction of the numbers of `push`, and of `pull`, do not exceed."""
        push, pull = (float(np.quantile(np.abs(part), fraction)) for part in (self.push, self.pull))
        return push, pull


def gradient_strengths(
    model: Model, data: Data, attack: Attack, *, limit: int | None = 256, seed: int = 0
) -> GradientStrengths:
    """Measures the gradients that push and pull the images of a soft-ball attack, at its end.

    Args:
        model, data, limit, seed: as for `keras_robust.evaluation.evaluate`.
        attack: an attack with the step rule `SoftBallStep`, such as `model.training_attack` of UDR.

    Returns:
        Both gradients.

    Raises:
        TypeError: `attack` is not an `Attack`.
        ValueError: another step rule, or no data.

    Example:
        >>> import keras_robust as kr
        >>> rule = kr.step_rules.SoftBallStep(0.1, tau=0.5)
        >>> attack = kr.replace(kr.attacks.pgd(kr.LinfBall(0.1), 5, initialization="none"),
        ...                     step_rule=rule)
        >>> x = np.array([[0.5, 0.5]], "float32")
        >>> found = gradient_strengths(lambda x: {"logits": x}, (x, [0]), attack)
        >>> (np.sign(found.push) == np.sign(found.pull)).tolist()
        [[True, True]]

    Reference: Bui et al., "A Unified Wasserstein Distributional Robustness Framework for
    Adversarial Training" (2022), Figure 7.

    Differs: the paper differentiates the mean of a batch; here each image has its own gradient.
    """
    check_attack("attack", attack)
    one: Any = attack
    if not isinstance(one.step_rule, SoftBallStep):
        raise ValueError(
            f"The attack {attack.name} has the step rule {one.step_rule!r}; expected a "
            "`SoftBallStep`, as in the training attack of `keras_robust.defenses.udr`."
        )
    forward = as_forward(classifier_of(model))
    rule = replace(one.step_rule, multiplier=1.0)

    @compiled
    def gradients(x: Images, x_adv: Images, y: Labels) -> tuple[tf.Tensor, tf.Tensor]:
        push = value_and_gradient(one.objective(forward, x, y, None), x_adv)[1]
        delta = upcast_half(x_adv) - upcast_half(x)
        pull = rule.pull(attack.ball, x, delta) / tf.cast(rule.size, delta.dtype)
        return push, pull

    found = [
        [part.numpy().reshape(len(x), -1) for part in gradients(tf.constant(x), x_adv, y)]
        for x, x_adv, y in attacked(model, data, attack, limit, seed)
    ]
    return GradientStrengths(*(np.concatenate(part) for part in zip(*found, strict=True)))
