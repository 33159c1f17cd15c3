"""Sizes of the perturbations of an attack, per pixel."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_robust.attacks.crafting.base import Attack, check_attack
from keras_robust.core.numerics import upcast_half
from keras_robust.evaluation.results.display import pairs_html
from keras_robust.evaluation.running.batching import Data, Model, attacked

RADIUS_FRACTIONS = (0.9, 1.0, 1.1)
_ROUNDING = 1e-5  # error of float32, relative to the radius


@dataclasses.dataclass(frozen=True)
class Perturbations:
    """Sizes of an attack's perturbations, averaged over images.

    Args:
        l1: mean absolute change of a pixel.
        linf: largest absolute change of a pixel.
        within: fractions of pixels that change by at most 0.9, 1 and 1.1 times the radius.
        samples: number of images.
    """

    l1: float
    linf: float
    within: tuple[float, ...]
    samples: int

    _repr_html_ = pairs_html


def perturbations(
    model: Model, data: Data, attack: Attack, *, limit: int | None = 1000, seed: int = 0
) -> Perturbations:
    """Measures the sizes of an attack's perturbations, in the units of the images.

    For the perturbations that a robust model trains on, pass `model.training_attack(tf.float32)`.

    Args:
        model, data, limit, seed: as for `keras_robust.evaluation.evaluate`.
        attack: the attack.

    Returns:
        The sizes.

    Raises:
        TypeError: `attack` is not an `Attack`.
        ValueError: no data.

    Example:
        >>> import keras_robust as kr
        >>> x = np.array([[0.5, 0.125]], "float32")
        >>> attack = kr.attacks.fgsm(kr.LinfBall(0.25))
        >>> found = perturbations(lambda x: {"logits": x}, (x, [1]), attack)
        >>> found.l1, found.linf, found.within  # the second pixel is clipped
        (0.1875, 0.25, (0.5, 1.0, 1.0))

    Reference: Bui et al., "A Unified Wasserstein Distributional Robustness Framework for
    Adversarial Training" (2022), Table 5.
    """
    check_attack("attack", attack)
    radius = float(attack.ball.radius)
    sums, samples = np.zeros(2 + len(RADIUS_FRACTIONS)), 0
    for x, x_adv, _ in attacked(model, data, attack, limit, seed):
        change = np.asarray(upcast_half(x_adv)) - np.asarray(upcast_half(x))
        size = np.abs(change).reshape(len(x), -1)
        limits = [(fraction + _ROUNDING) * radius for fraction in RADIUS_FRACTIONS]
        within = [(size <= limit).mean(axis=1).sum() for limit in limits]
        sums += [size.mean(axis=1).sum(), size.max(axis=1).sum(), *within]
        samples += len(x)
    l1, linf, *within = map(float, sums / samples)
    return Perturbations(l1, linf, tuple(within), samples)
