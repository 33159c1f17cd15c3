"""How large the perturbations of an attack are, pixel by pixel."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from keras_robust.attacks.crafting.base import Attack, check_attack
from keras_robust.core.numerics import upcast_half
from keras_robust.evaluation.batching import attacked

SHARES = (0.9, 1.0, 1.1)  # of the radius
_ROUNDING = 1e-5  # of the radius, which float32 may miss


@dataclasses.dataclass(frozen=True)
class Perturbations:
    """The sizes of an attack's perturbations, means over images.

    Args:
        l1: the mean change of a pixel.
        linf: the largest change of a pixel.
        within: the share of pixels that change by at most 0.9, 1 and 1.1 times the radius.
        samples: how many images.
    """

    l1: float
    linf: float
    within: tuple[float, ...]
    samples: int


def perturbations(
    model: Any, data: Any, attack: Attack, *, limit: int | None = 1000, seed: int = 0
) -> Perturbations:
    """Measures the perturbations of an attack.

    Those that a robust model trains on are of `model.training_attack(tf.float32)`.

    Args:
        model: a robust model, a classifier, or a function `images -> {"logits", ...}`.
        data: a `tf.data.Dataset` of batches `(images, labels)`, or a pair of arrays.
        attack: the attack; compiled once.
        limit: use only the first so many images; None for all.
        seed: of the attack.

    Returns:
        Their sizes, in the units of the images.

    Raises:
        TypeError: `attack` is none.
        ValueError: no data.

    Example:
        >>> import keras_robust as kr
        >>> x = np.array([[0.5, 0.125]], "float32")
        >>> attack = kr.attacks.fgsm(kr.LinfBall(0.25))
        >>> found = perturbations(lambda x: {"logits": x}, (x, [1]), attack)
        >>> found.l1, found.linf, found.within  # the second pixel meets the end of its range
        (0.1875, 0.25, (0.5, 1.0, 1.0))

    Reference: Bui et al., "A Unified Wasserstein Distributional Robustness Framework for
    Adversarial Training" (2022), Table 5.
    """
    check_attack("attack", attack)
    radius = float(attack.ball.radius)
    sums, samples = np.zeros(2 + len(SHARES)), 0
    for x, x_adv, _ in attacked(model, data, attack, limit, seed):
        size = np.abs(np.asarray(upcast_half(x_adv)) - np.asarray(upcast_half(x))).reshape(
            len(x), -1
        )
        within = [(size <= (share + _ROUNDING) * radius).mean(axis=1).sum() for share in SHARES]
        sums += [size.mean(axis=1).sum(), size.max(axis=1).sum(), *within]
        samples += len(x)
    l1, linf, *within = map(float, sums / samples)
    return Perturbations(l1, linf, tuple(within), samples)
